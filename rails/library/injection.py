"""Injection: a document that gives the model orders.

Heuristics over `attacks.py`, on passages and on any other text that came from outside. A page that quotes an
attack in order to explain it looks like one: `then: drop` costs one passage, not the turn.
"""

from typing import ClassVar

from pydantic import Field

from trackbed.rails.library.attacks import DOCUMENT, attacks, probability
from trackbed.rails.library.spans import disjoint
from trackbed.rails.sentences import sentences
from trackbed.rails.types import Finding, Models, RailConfig, Stage, Then, Turn, Verdict


class Injection:
    """Finds sentences that speak to the model instead of to the reader."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask", "drop"})

    class Config(RailConfig):
        """When to be sure."""

        threshold: float = Field(
            0.5, gt=0, le=1, description="The probability from which a text is an attack; lower finds more."
        )

    def __init__(self, config: Config, models: Models) -> None:
        self.threshold = config.threshold

    async def check(self, turn: Turn) -> Verdict:
        """Judge the text by the families of attack that are found in it; the findings are whole sentences."""
        found = attacks(turn.text, DOCUMENT)
        families, score = tuple(dict.fromkeys(match.family for match in found)), probability(found)
        if score < self.threshold:
            return Verdict.allow(score=score)
        said = sentences(turn.text)
        findings = [Finding("INJECTION", match.start, match.end) for match in found]
        findings += [
            Finding("INJECTION", s.start, s.end)
            for s in said
            if any(m.start < s.end and s.start < m.end for m in found)
        ]
        return Verdict.block(
            detail="instructions hidden in a document", categories=families, score=score, findings=disjoint(findings)
        )
