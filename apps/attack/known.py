"""The attacks that are known: those that ship, and those of a file. Texts alone; nothing here disguises or judges."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from trackbed.apps.settings import SettingsError
from trackbed.rails.source import read_source

SEEDS = Path(__file__).parents[2] / "policies" / "attacks" / "seeds.yaml"
HARMLESS = frozenset({"benign", "safe"})  # labels of texts that are none


class Row(BaseModel):
    """A line of a file of texts; what else it says is let be."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    text: str
    label: str | None = None

    @field_validator("text")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("a text says something")
        return text


def shipped() -> tuple[str, ...]:
    """The attacks that ship with trackbed."""
    return tuple(str(attack["text"]) for attack in read_source(SEEDS).plain()["attacks"])


def from_file(file: Path) -> tuple[str, ...]:
    """The attacks of a file with a JSON object in each line: all but those whose label is `benign` or `safe`.

    Raises OSError, and SettingsError that names the line which is none of that.
    """
    return tuple(row.text for row in _rows(file) if row.label not in HARMLESS)


def _rows(file: Path) -> Iterator[Row]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = Row.model_validate(json.loads(line.decode()))
            except ValidationError as error:
                wrong = error.errors()[0]
                where = "".join(f" {part!r}:" for part in wrong["loc"])
                raise SettingsError(f"{file}:{number}:{where} {wrong['msg']}; a line is {{'text', 'label'}}") from None
            except (ValueError, RecursionError) as error:
                raise SettingsError(
                    f"{file}:{number}: this is no JSON: {error}; a line is {{'text', 'label'}}"
                ) from None
            # Half of a surrogate pair is no text that anybody could send.
            yield row.model_copy(update={"text": row.text.encode("utf-8", "replace").decode()})


def some(attacks: Sequence[str], limit: int | None, seed: int) -> tuple[str, ...]:
    """At most `limit` of the attacks, each once, as the seed picks them and in their order."""
    each = list(dict.fromkeys(attacks))
    if limit is None or limit >= len(each):
        return tuple(each)
    picked = Random(seed).sample(range(len(each)), limit)  # noqa: S311 - to be repeatable, not secret
    return tuple(each[i] for i in sorted(picked))
