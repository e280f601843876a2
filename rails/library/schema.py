"""Schema: a call whose arguments are not what its tool takes."""

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, ValidationInfo

from trackbed.rails.config import RailConfig
from trackbed.rails.errors import RailFailed
from trackbed.rails.json_schema import compile_schema
from trackbed.rails.types import Models, Stage, Then, Turn, Verdict


def _read(schema: object, info: ValidationInfo) -> object:
    compile_schema(schema, info.context)
    return schema


class Schema:
    """Blocks a call whose arguments do not fit the JSON Schema of its tool; a tool without one passes."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"tools"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block"})

    class Config(RailConfig):
        """The schemas."""

        schemas: dict[str, Annotated[dict[str, Any], BeforeValidator(_read)]] = Field(
            min_length=1,
            description="For each tool, the JSON Schema (2020-12) of its arguments; a file of them by !include. "
            "References lead into the schema's own $defs alone, and patterns are RE2's.",
        )

    def __init__(self, config: Config, models: Models) -> None:
        self.checks = {tool: compile_schema(schema) for tool, schema in config.schemas.items()}

    async def check(self, turn: Turn) -> Verdict:
        """Block on the first argument that does not fit; the detail names it, and says nothing of its value."""
        if turn.call is None or turn.result is not None:
            raise RailFailed("a schema judges calls; there is none")
        if turn.call.name not in self.checks:
            return Verdict.allow()
        mistake = self.checks[turn.call.name](turn.call.plain())
        return Verdict.block(detail=mistake, categories=("arguments",)) if mistake else Verdict.allow()
