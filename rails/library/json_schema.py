"""JSON schema: an answer that is not JSON, or not of the form that the policy asks for.

For answers that programs read. A key that stands twice, a number that JSON has not, and anything before or after the
value are mistakes: parsers differ in what they make of these.
"""

import json
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, ValidationInfo

from trackbed.rails.config import RailConfig
from trackbed.rails.json_schema import compile_any_schema
from trackbed.rails.types import Models, Stage, Then, Turn, Verdict

FENCE = "```"
MOST = 1_000_000  # characters of an answer


def _read(schema: object, info: ValidationInfo) -> object:
    compile_any_schema(schema, info.context)
    return schema


class JsonSchema:
    """Blocks an answer that does not fit its JSON Schema."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "regenerate"})

    class Config(RailConfig):
        """The schema, and what may stand around the value."""

        schema_: Annotated[dict[str, Any], BeforeValidator(_read)] = Field(
            alias="schema",
            min_length=1,
            description="The JSON Schema (2020-12) of an answer; a file of it by !include. References lead into its "
            "own $defs alone, and patterns are RE2's.",
        )
        fenced: bool = Field(
            True, description="Whether the value may stand in a fence of Markdown, ```json before it and ``` after it."
        )

    def __init__(self, config: Config, models: Models) -> None:
        self.mistake = compile_any_schema(config.schema_)
        self.fenced = config.fenced

    async def check(self, turn: Turn) -> Verdict:
        """Block on the first mistake; the detail says where it is, and quotes nothing."""
        text = turn.text.strip()
        if self.fenced:
            text = _unfenced(text)
        if len(text) > MOST:
            return _blocked(f"the answer has more than {MOST} characters")
        try:
            value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
        except json.JSONDecodeError as error:
            return _blocked(f"the answer is not JSON: line {error.lineno}, column {error.colno}")
        except RecursionError:
            return _blocked("the answer nests too deep")
        except ValueError as error:  # what the hooks below raise, and integers of thousands of digits
            return _blocked(
                str(error) if isinstance(error, _Ambiguous) else "the answer holds a number that is too long"
            )
        mistake = self.mistake(value)
        if not mistake:
            return Verdict.allow()
        whole = mistake.startswith(("is ", "has ")) and ": " not in mistake  # else it begins with where it is
        return _blocked(f"the answer {mistake}" if whole else f"the answer: {mistake}")


class _Ambiguous(ValueError):
    """JSON that parsers read in different ways."""


def _blocked(detail: str) -> Verdict:
    return Verdict.block(detail=detail, categories=("json",))


def _unfenced(text: str) -> str:
    """What stands in a fence, where that is all there is."""
    first, _, rest = text.partition("\n")
    if first.strip().lower() in (FENCE, f"{FENCE}json") and rest.endswith(FENCE) and FENCE not in rest[: -len(FENCE)]:
        return rest[: -len(FENCE)].strip()
    return text


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Ambiguous("the answer has a key twice in one object")
    return found


def _no_number(word: str) -> None:
    raise _Ambiguous("the answer holds NaN or Infinity, which JSON has not")
