"""Rails in Python as anyone may write them, for benchmarks: one looks for words, one only takes its time."""

import asyncio
from typing import ClassVar

from pydantic import Field

from trackbed.rails.config import RailConfig
from trackbed.rails.types import Finding, Models, Stage, Then, Turn, Verdict


class Words:
    """Objects to the first of its words that stands in the text."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block"})
    streams: ClassVar = "prefix"  # the beginning of a text can be judged before its end is there

    class Config(RailConfig):
        """The words."""

        words: list[str] = Field(min_length=1)

    def __init__(self, config: Config, models: Models) -> None:
        self.words = config.words

    async def check(self, turn: Turn) -> Verdict:
        """Block at the first word that is there."""
        for word in self.words:
            if (at := turn.text.find(word)) >= 0:
                return Verdict.block(detail=word, findings=(Finding("WORD", at, at + len(word)),))
        return Verdict.allow()


class Slow:
    """Allows everything, after a while."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block"})

    class Config(RailConfig):
        """How long it takes."""

        seconds: float = Field(gt=0)

    def __init__(self, config: Config, models: Models) -> None:
        self.seconds = config.seconds

    async def check(self, turn: Turn) -> Verdict:
        """Wait, as for a model that judges elsewhere, and allow."""
        await asyncio.sleep(self.seconds)
        return Verdict.allow()
