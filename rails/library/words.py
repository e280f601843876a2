"""Words: object to words and phrases that a policy lists, whole and however they are written."""

from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from trackbed.rails.config import RailConfig
from trackbed.rails.library.phrases import MOST, Phrase, Phrases
from trackbed.rails.library.spans import fold
from trackbed.rails.types import Models, Stage, Streams, Then, Turn, Verdict


def _lines(value: object) -> object:
    return [line for line in value.splitlines() if line.strip()] if isinstance(value, str) else value


class Words:
    """Finds listed words and phrases."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval", "tools", "output"})
    streams: ClassVar[Streams] = "spans"
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask", "drop"})

    class Config(RailConfig):
        """The list, and what to call what is on it."""

        words: Annotated[
            list[Phrase],
            BeforeValidator(_lines, json_schema_input_type=list[str] | str),
            Field(min_length=1, max_length=MOST),
        ] = Field(description="Words and phrases: a list, or !include of a text file with one on each line.")
        label: str = Field("WORD", min_length=1, description="What they are called when they are masked.")

    def __init__(self, config: Config, models: Models) -> None:
        self.label = config.label
        self.phrases = Phrases(config.words)

    async def check(self, turn: Turn) -> Verdict:
        """Block on any listed word, and say where each is."""
        folded = fold(turn.text)
        findings = tuple(folded.finding(self.label, *span) for span in self.phrases.found(folded))
        if not findings:
            return Verdict.allow()
        return Verdict.block(detail=self.label, categories=(self.label,), findings=findings)

    def held(self, turn: Turn) -> int:
        """Where the last words begin that may yet be a phrase, or another word."""
        return self.phrases.held(fold(turn.text))
