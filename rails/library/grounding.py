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
GAP = re.compile(rf"(?:\s|{MARK.pattern})*")  # between sentences


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
            return Verdict.block(detail="what was not asked", score=1.0, findings=_findings(turn.text, findings))
        share = 1 - len(unsupported) / len(judged.said) if judged.said else 0.0
        if share >= self.config.minimum:
            return Verdict.allow(score=1 - share)
        return Verdict.block(
            detail="what the documents do not say", score=1 - share, findings=_findings(turn.text, unsupported)
        )

    def held(self, turn: Turn) -> int:
        """Where the unfinished sentence begins; nothing is settled before it is known that the first ones stay."""
        if not turn.passages and not self.config.require_passages:
            return len(turn.text)
        said = sentences(turn.text)[:-1]
        judged = self._judged(turn, said)
        stays = judged.said and not judged.strays and judged.said[0] not in judged.unsupported
        return _after_gap(turn.text, said[-1].end) if stays else 0

    def _judged(self, turn: Turn, said: Sequence[Sentence]) -> "_Judged":
        """What the passages make of the sentences of the draft."""
        each, announced = self.config.minimum == 1, turn.text.rstrip().endswith(":")
        said = [s for s in said if MARK.sub("", f" {s.text}").strip()]
        claims = [s for s in said if not ABSTAINS.search(s.text)]
        supports = {c: support(MARK.sub("", c.text), turn.passages) for c in claims}
        unsupported = [c for c in claims if supports[c].score < self.config.support]
        if announced and each and said and said[-1].end >= len(turn.text.rstrip()) and said[-1] not in unsupported:
            unsupported.append(said[-1])
        kept = [c for c in claims if c not in unsupported]
        if each and unsupported:  # what follows an unsupported sentence is no answer either
            kept = [c for c in kept if c.start < unsupported[0].start]
        behind = [turn.passages[supports[c].passage].heading for c in kept]
        spoken = [c.text for c in kept] if each else [turn.text]
        strays = bool(kept) and coverage(turn.question, [*spoken, *behind]) < self.config.relevance
        return _Judged(said, claims, unsupported, announced, strays, each)


class _Judged(NamedTuple):
    """The sentences of a draft, and what is wrong with them."""

    said: Sequence[Sentence]
    claims: Sequence[Sentence]  # those that say more than that they do not know
    unsupported: Sequence[Sentence]
    announced: bool  # it ends with a colon
    strays: bool  # what is supported does not speak of the question
    each: bool  # every sentence has to be supported


def _findings(text: str, unsupported: Sequence[Sentence]) -> tuple[Finding, ...]:
    """The sentences as findings; a mark before one belongs to the sentence before it."""
    return tuple(Finding("UNSUPPORTED", _after_gap(text, s.start), s.end) for s in unsupported)


def _after_gap(text: str, start: int) -> int:
    """Where, from there on, something else than white space and marks begins."""
    gap = GAP.match(text, start)
    return gap.end() if gap else start
