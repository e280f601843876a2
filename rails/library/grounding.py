"""Grounding: is each sentence of the draft supported by the passages?

A first version: it compares words, numbers, names and negation (`rails/support.py`), sentence by sentence.
"""

import re
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from pydantic import Field

from trackbed.rails.cite import MARK
from trackbed.rails.config import RailConfig
from trackbed.rails.sentences import Sentence, sentences
from trackbed.rails.support import coverage, support
from trackbed.rails.types import Finding, Models, Stage, Streams, Then, Turn, Verdict

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
            0.5,
            ge=0,
            le=1,
            description="The share of the draft's sentences that must be supported. With 1 each sentence is judged for "
            "itself, so that an answer can be shown while it is written.",
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

        @property
        def streams(self) -> Streams:
            """Whether a share is large enough is known at the end; whether each sentence is supported, at once."""
            return "spans" if self.minimum == 1 else "whole"

    stages: ClassVar[frozenset[Stage]] = frozenset({"output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "regenerate", "quote"})

    def __init__(self, config: Config, models: Models) -> None:
        self.config = config

    async def check(self, turn: Turn) -> Verdict:
        """Judge the draft. Without passages, or without a sentence, nothing in it is supported."""
        if not turn.passages and not self.config.require_passages:
            return Verdict.allow()
        judged = self._judged(turn, sentences(turn.text))
        unsupported = judged.unsupported
        if judged.announced and not judged.each:
            return Verdict.block(detail="what it only announces", score=1.0)
        if judged.strays:
            findings = judged.claims if judged.each else ()
            return Verdict.block(detail="what was not asked", score=1.0, findings=_findings(findings))
        share = 1 - len(unsupported) / len(judged.said) if judged.said else 0.0
        if share >= self.config.minimum:
            return Verdict.allow(score=1 - share)
        return Verdict.block(detail="what the documents do not say", score=1 - share, findings=_findings(unsupported))

    def held(self, turn: Turn) -> int:
        """Where the last sentence begins; nothing is settled before one can stay."""
        if not turn.passages and not self.config.require_passages:
            return len(turn.text)
        said = sentences(turn.text)[:-1]
        judged = self._judged(turn, said)
        stays = judged.said and not judged.strays and len(judged.unsupported) < len(judged.said)
        return said[-1].end if stays else 0

    def _judged(self, turn: Turn, said: Sequence[Sentence]) -> "_Judged":
        """What the passages make of the sentences of the draft."""
        said = [s for s in said if MARK.sub("", f" {s.text}").strip()]
        claims = [s for s in said if not ABSTAINS.search(s.text)]
        supports = [support(MARK.sub("", s.text), turn.passages) for s in claims]
        supported = [(c, s) for c, s in zip(claims, supports, strict=True) if s.score >= self.config.support]
        unsupported = [c for c, s in zip(claims, supports, strict=True) if s.score < self.config.support]
        each = self.config.minimum == 1
        announced = turn.text.rstrip().endswith(":")
        if announced and each and said and said[-1].end >= len(turn.text.rstrip()) and said[-1] not in unsupported:
            unsupported.append(said[-1])
        spoken = [*(c.text for c, _ in supported)] if each else [turn.text]
        behind = [turn.passages[s.passage].heading for _, s in supported]
        strays = bool(supported) and coverage(turn.question, [*spoken, *behind]) < self.config.relevance
        return _Judged(said, claims, unsupported, announced, strays, each)


class _Judged(NamedTuple):
    """The sentences of a draft, and what is wrong with them."""

    said: Sequence[Sentence]
    claims: Sequence[Sentence]  # those that say more than that they do not know
    unsupported: Sequence[Sentence]
    announced: bool  # it ends with a colon
    strays: bool  # what is supported does not speak of the question
    each: bool  # every sentence has to be supported


def _findings(unsupported: Sequence[Sentence]) -> tuple[Finding, ...]:
    return tuple(Finding("UNSUPPORTED", s.start, s.end) for s in unsupported)
