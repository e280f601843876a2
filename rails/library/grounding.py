"""Grounding: is each sentence of the draft supported by the passages?

A first version: it compares words, numbers, names and negation (`rails/support.py`), sentence by sentence.
"""

import re
from typing import ClassVar

from pydantic import Field

from trackbed.rails.cite import MARK
from trackbed.rails.sentences import sentences
from trackbed.rails.support import coverage, support
from trackbed.rails.types import Finding, Models, RailConfig, Stage, Then, Turn, Verdict

# A draft that says it does not know claims nothing.
ABSTAINS = re.compile(
    r"\b(?:I (?:do not|don't|don’t) know|(?:do|does)(?: not|n't|n’t) (?:say|mention|contain|provide|answer))\b",
    re.IGNORECASE,
)


class Grounding:
    """Blocks a draft of which the passages support too little."""

    class Config(RailConfig):
        """What a policy may say of it."""

        minimum: float = Field(
            0.5, ge=0, le=1, description="The share of the draft's sentences that must be supported."
        )
        support: float = Field(
            0.6, ge=0, le=1, description="How far the passages must support a sentence, from none of its words to all."
        )

        relevance: float = Field(
            0.5, ge=0, le=1, description="How much of the question's words the passages must speak of at all."
        )

    stages: ClassVar[frozenset[Stage]] = frozenset({"output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "regenerate", "quote"})

    def __init__(self, config: Config, models: Models) -> None:
        self.config = config

    async def check(self, turn: Turn) -> Verdict:
        """Judge the draft. Without passages, or without a sentence, nothing in it is supported."""
        if not ABSTAINS.search(turn.text) and coverage(turn.question, turn.passages) < self.config.relevance:
            return Verdict.block(detail="what the documents do not answer", score=1.0)
        found = [s for s in sentences(turn.text) if MARK.sub("", f" {s.text}").strip()]
        claims = [s for s in found if not ABSTAINS.search(s.text)]
        unsupported = [s for s in claims if self._unsupported(s.text, turn)]
        share = 1 - len(unsupported) / len(found) if found else 0.0
        if share >= self.config.minimum:
            return Verdict.allow(score=1 - share)
        return Verdict.block(
            detail="what the documents do not say",
            score=1 - share,
            findings=tuple(Finding("UNSUPPORTED", s.start, s.end) for s in unsupported),
        )

    def _unsupported(self, claim: str, turn: Turn) -> bool:
        return support(MARK.sub("", claim), turn.passages).score < self.config.support
