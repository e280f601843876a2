"""Repetition: a text that goes round in circles, as models that have lost the thread write it.

What counts is runs of words that have been there before, one character again and again, and a line again and again.
Lists, tables and refrains repeat a little; the limits leave room for them.
"""

from collections import Counter
from typing import ClassVar

from pydantic import Field

from trackbed.rails.config import RailConfig
from trackbed.rails.library.spans import fold
from trackbed.rails.library.tokens import tokens
from trackbed.rails.types import Models, Stage, Streams, Then, Turn, Verdict

RUN = 4  # words of a run
FEW = 40  # words below which a share says nothing


class Repetition:
    """Blocks a text that repeats itself."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "output"})
    streams: ClassVar[Streams] = "prefix"
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "regenerate"})

    class Config(RailConfig):
        """How much repetition is too much."""

        share: float = Field(
            0.5, gt=0, lt=1, description="The share of four-word runs that were there before; from it on is too much."
        )
        characters: int = Field(40, ge=3, description="How often one letter or sign may stand in a row, at most.")
        lines: int = Field(8, ge=2, description="How often the same line of ten characters or more may come, at most.")

    def __init__(self, config: Config, models: Models) -> None:
        self.config = config

    async def check(self, turn: Turn) -> Verdict:
        """Block what repeats itself; the score of runs is the share of those that were there before."""
        if _longest_row(turn.text) > self.config.characters:
            return Verdict.block(detail="one character again and again", categories=("characters",))
        lines = Counter(line.strip() for line in turn.text.splitlines() if len(line.strip()) >= 10)
        if lines and max(lines.values()) > self.config.lines:
            return Verdict.block(detail="the same line again and again", categories=("lines",))
        words = [token.text for token in tokens(fold(turn.text))]
        if len(words) < FEW:
            return Verdict.allow()
        runs = [tuple(words[at : at + RUN]) for at in range(len(words) - RUN + 1)]
        share = 1 - len(set(runs)) / len(runs)
        if share >= self.config.share:
            return Verdict.block(detail="the same words again and again", categories=("words",), score=share)
        return Verdict.allow(score=share)


def _longest_row(text: str) -> int:
    """How often one character other than white space, or a line's dashes, dots and the like, stands in a row."""
    longest, row, before = 0, 0, ""
    for char in text:
        row = row + 1 if char == before else 1
        before = char
        if row > longest and not char.isspace() and char not in "-=_*.#~+|":
            longest = row
    return longest
