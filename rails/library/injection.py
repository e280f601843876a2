"""Injection: a document that gives the model orders.

Heuristics over `attacks.py`, on passages and on any other text that came from outside. A page that explains
attacks can still look like one: `then: drop` costs one passage, not the turn. With a `model`, a judge that was trained
for this is asked too; where it alone objects, it does so to the whole text.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import ClassVar

from pydantic import Field

from trackbed.rails.config import ModelName, RailConfig
from trackbed.rails.library.attacks import DOCUMENT, Match, attacks, probability, windows
from trackbed.rails.library.opinion import unsafe_reading
from trackbed.rails.library.spans import disjoint
from trackbed.rails.library.views import readings
from trackbed.rails.sentences import sentences
from trackbed.rails.types import Finding, Models, Stage, Then, Turn, Verdict

DETAIL = "instructions hidden in a document"
WINDOW = 1000  # characters: about a passage


class Injection:
    """Finds sentences that speak to the model instead of to the reader."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval", "tools"})
    asks: ClassVar[str] = "model"  # it waits for nothing where this names none
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask", "drop"})

    class Config(RailConfig):
        """When to be sure."""

        threshold: float = Field(
            0.5, gt=0, le=1, description="The probability from which a text is an attack; lower finds more."
        )
        model: ModelName | None = Field(
            None, description="The policy's name of a guard model that is asked too, such as minilm-injection."
        )
        model_threshold: float | None = Field(
            None, gt=0, le=1, description="The probability from which the model is believed; `threshold`, if unset."
        )

    def __init__(self, config: Config, models: Models) -> None:
        self.threshold, self.surely = config.threshold, config.model_threshold or config.threshold
        self.model = models.generators[config.model] if config.model else None

    async def check(self, turn: Turn) -> Verdict:
        """Judge the text by the families of attack that stand near each other; then ask the model.

        The findings are whole sentences. Raises RailFailed where its answer cannot be read, and what it raises.
        """
        read = readings(turn.text)
        near = [(probability(window), window) for window in windows(attacks(read, DOCUMENT), WINDOW)]
        score = max((score for score, _ in near), default=0.0)
        if score < self.threshold:
            told = await unsafe_reading(self.model, read) if self.model and turn.text.strip() else 0.0
            score = max(score, told)
            if told < self.surely:
                return Verdict.allow(score=score)
            return Verdict.block(detail=DETAIL, score=score, findings=(Finding("INJECTION", 0, len(turn.text)),))
        found = [match for score, window in near if score >= self.threshold for match in window]
        return Verdict.block(
            detail=DETAIL,
            categories=tuple(dict.fromkeys(match.family for match in found)),
            score=score,
            findings=disjoint(_spans(turn.text, found)),
        )


def _spans(text: str, found: Sequence[Match]) -> Iterator[Finding]:
    """Each match, and each sentence that it touches."""
    said = sentences(text)
    for match in dict.fromkeys(found):
        yield Finding("INJECTION", match.start, match.end)
        begin = max(bisect_right(said, match.start, key=lambda sentence: sentence.start) - 1, 0)
        until = bisect_left(said, match.end, key=lambda sentence: sentence.start)
        for sentence in said[begin:until]:
            if match.start < sentence.end:
                yield Finding("INJECTION", sentence.start, sentence.end)
