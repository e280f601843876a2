"""Competitors: object to the names of other firms and their products, whole and however they are written.

What is said of them makes no difference: that a model neither praises nor disparages them is sure only where it does
not name them. A refusal says that a competitor was named, not which one.
"""

from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from trackbed.rails.config import RailConfig
from trackbed.rails.library.phrases import MOST, Phrase, Phrases
from trackbed.rails.library.spans import fold
from trackbed.rails.types import Models, Stage, Streams, Then, Turn, Verdict

COMPETITOR = "COMPETITOR"


def _with_aliases(value: object) -> object:
    """Names alone have no other names."""
    return (
        {name: [] for name in value}
        if isinstance(value, list) and all(isinstance(name, str) for name in value)
        else value
    )


class Competitors:
    """Finds the names of competitors, and other names that they go by."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval", "tools", "output"})
    streams: ClassVar[Streams] = "spans"
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask", "drop", "regenerate"})

    class Config(RailConfig):
        """Who they are."""

        names: Annotated[
            dict[Phrase, Annotated[list[Phrase], Field(max_length=MOST)]],
            BeforeValidator(_with_aliases, json_schema_input_type=dict[str, list[str]] | list[str]),
            Field(min_length=1, max_length=MOST),
        ] = Field(description="Names: a list, or a mapping from each to a list of its other names, such as products.")

    def __init__(self, config: Config, models: Models) -> None:
        self.phrases = Phrases(name for known, others in config.names.items() for name in (known, *others))

    async def check(self, turn: Turn) -> Verdict:
        """Block on any of the names, and say where each is."""
        folded = fold(turn.text)
        findings = tuple(folded.finding(COMPETITOR, *span) for span in self.phrases.found(folded))
        if not findings:
            return Verdict.allow()
        return Verdict.block(detail="a competitor", categories=(COMPETITOR,), findings=findings)

    def held(self, turn: Turn) -> int:
        """Where the last words begin that may yet be a name, or another word."""
        return self.phrases.held(fold(turn.text))
