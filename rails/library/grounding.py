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
            0.5,
            ge=0,
            le=1,
            description="How much of the question's words the draft, or the headings it rests on, must take up.",
        )
        require_passages: bool = Field(
            True, description="Whether a draft without any passages is blocked; false lets it pass unjudged."
        )

    stages: ClassVar[frozenset[Stage]] = frozenset({"output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "regenerate", "quote"})

    def __init__(self, config: Config, models: Models) -> None:
        self.config = config

    async def check(self, turn: Turn) -> Verdict:
        """Judge the draft. Without passages, or without a sentence, nothing in it is supported."""
        if not turn.passages and not self.config.require_passages:
            return Verdict.allow()
        found = [s for s in sentences(turn.text) if MARK.sub("", f" {s.text}").strip()]
        claims = [s for s in found if not ABSTAINS.search(s.text)]
        if turn.text.rstrip().endswith(":"):
            return Verdict.block(detail="what it only announces", score=1.0)
        supports = [support(MARK.sub("", s.text), turn.passages) for s in claims]
        behind = [turn.passages[s.passage].heading for s in supports if s.score >= self.config.support]
        if claims and behind and coverage(turn.question, [turn.text, *behind]) < self.config.relevance:
            return Verdict.block(detail="what was not asked", score=1.0)
        unsupported = [c for c, s in zip(claims, supports, strict=True) if s.score < self.config.support]
        share = 1 - len(unsupported) / len(found) if found else 0.0
        if share >= self.config.minimum:
            return Verdict.allow(score=1 - share)
        return Verdict.block(
            detail="what the documents do not say",
            score=1 - share,
            findings=tuple(Finding("UNSUPPORTED", s.start, s.end) for s in unsupported),
        )
