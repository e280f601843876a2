"""Grounding: is each sentence of the draft supported by the passages, contradicted by them, or not found there?

Words, numbers, names, dates and negation are compared (`rails/support.py`), sentence by sentence; a model that is named
is asked too (`rails/library/claims.py`). What the passages speak of with another number, name or date is contradicted,
whatever a model thinks of it.
"""

import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from pydantic import Field

from trackbed.rails.cite import MARK
from trackbed.rails.config import ModelName, RailConfig
from trackbed.rails.library.claims import Ask, Opinion, excerpt, opinion, windows
from trackbed.rails.sentences import ITEM, WORD, Sentence, sentences
from trackbed.rails.support import MISSING_NUMBER, Support, coverage, misplaced, support
from trackbed.rails.types import Finding, Models, Stage, Streams, Then, Turn, Verdict

# A draft that says it does not know claims nothing.
ABSTAINS = re.compile(
    r"\b(?:I (?:do not|don't|don’t) know|(?:do|does)(?: not|n't|n’t) (?:say|mention|contain|provide|answer))\b",
    re.IGNORECASE,
)
GAP = re.compile(rf"(?:\s|{MARK.pattern})*")  # between sentences
UNSUPPORTED, CONTRADICTED, UNASKED = "UNSUPPORTED", "CONTRADICTED", "UNASKED"
VERBATIM = 0.95  # what stands in a passage so nearly word for word is not asked about
SHORT = 8  # words of an answer that is looked for where the passages speak of the question
MOST = 16  # sentences of a draft that a model is asked about
MOST_ODDS = 3.0  # log-odds of a model that count: it is not surer than that
REMEMBERED = 256  # opinions; while a draft is written, its first sentences are looked at again and again


class Grounding:
    """Objects to sentences that the passages do not support, where these are too many."""

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
        short_answers: bool = Field(
            False,
            description="Whether an answer of a few words has to stand in a sentence that takes up as many of the "
            "question's words as any other does: the year of something else is no answer.",
        )
        model: ModelName | None = Field(
            None,
            description="The policy's name of a model that is asked about each sentence that does not stand in the "
            "passages word for word; `support` then counts for contradictions alone, or for both with `model_weight`.",
        )
        ask: Ask = Field(
            "judge",
            description="How the model is asked: a judge, such as a cross-encoder for entailment, by its own words; a "
            "chat model by the logits of yes and no; one that tells no logits by a word that it writes.",
        )
        model_support: float = Field(
            0.5, gt=0, le=1, description="The probability from which the model's support is believed."
        )
        model_weight: float | None = Field(
            None,
            gt=0,
            le=1,
            description="How much the model's log-odds, from -3 to 3, add to the share of a sentence's words that is "
            "supported; together they must reach `support`. Without it the model decides by itself.",
        )
        excerpt: int = Field(
            0,
            ge=0,
            description="How many characters of the passages a model is given: the sentences that have most of the "
            "claim's words. With 0 it reads all of them.",
        )
        window: int = Field(
            4000,
            ge=200,
            description="How many characters of the passages a model is given at once, where it reads all.",
        )
        left_out: str = Field(
            "I left out what the documents do not say.",
            max_length=400,
            description="With then: mask, what an answer ends with of which sentences were left out; empty for none.",
        )

        @property
        def streams(self) -> Streams:
            """Whether a share is large enough is known at the end; whether each sentence is supported, at once."""
            return "sentences" if self.minimum == 1 else "whole"

        @property
        def calls(self) -> int:
            """How often a model is asked about one draft, where passages fit into one window."""
            return MOST if self.model else 0

    stages: ClassVar[frozenset[Stage]] = frozenset({"output"})
    asks: ClassVar[str] = "model"  # it waits for nothing where this names none
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask", "regenerate", "quote"})

    def __init__(self, config: Config, models: Models) -> None:
        self.config = config
        self.model = models.generators[config.model] if config.model else None
        self._opinions: OrderedDict[tuple[str, ...], Opinion] = OrderedDict()

    async def check(self, turn: Turn) -> Verdict:
        """Judge the draft. Without passages, or without a sentence, nothing in it is supported.

        A draft whose supported sentences do not speak of the question is blocked without a finding: while it is
        written, that can change. Raises RailFailed where a model's answer cannot be read, and what the model raises.
        """
        if not turn.passages and not self.config.require_passages:
            return Verdict.allow()
        each = self.config.minimum == 1
        announced = turn.text.rstrip().endswith(":") and len(turn.text) >= len(turn.draft or "")
        said = _said(turn.text)
        claims = [s for s in said if not ABSTAINS.search(s.text)]
        judged = [await self._judge(turn, claim, number) for number, claim in enumerate(claims)]
        if each and announced and judged and judged[-1].sentence == said[-1] and judged[-1].supported:
            judged[-1] = judged[-1]._replace(label=UNSUPPORTED)  # what it announces is not there
        supported, unsupported = [j for j in judged if j.supported], [j for j in judged if not j.supported]
        doubts = [j.doubt for j in judged] or [0.0 if said else 1.0]
        score = max(doubts) if each else sum(doubts) / len(doubts)
        if announced and not each:
            return Verdict.block(detail="what it only announces", score=1.0)
        # What follows an unsupported sentence is no answer either.
        first = [
            j for j in supported if not each or not unsupported or j.sentence.start < unsupported[0].sentence.start
        ]
        strays = bool(first) and self._strays(turn, first, turn.text)
        if strays and not (each and unsupported):
            return Verdict.block(detail="what was not asked", score=1.0)
        share = 1 - len(unsupported) / len(said) if said else 0.0
        if share >= self.config.minimum:
            return Verdict.allow(score=score)
        unasked = [j._replace(label=UNASKED) for j in first] if strays else []
        findings = tuple(
            Finding(j.label, _after_gap(turn.text, j.sentence.start), j.sentence.end)
            for j in sorted([*unasked, *unsupported], key=lambda j: j.sentence.start)
        )
        contradicted = any(j.label == CONTRADICTED for j in unsupported)
        detail = "what the documents contradict" if contradicted else "what the documents do not say"
        left = self.leave(turn, findings)
        noted = "\n\n".join(filter(None, [left, self.config.left_out])) if left else ""
        return Verdict.block(detail=detail, score=max(score, 1 - share), findings=findings, text=noted)

    def held(self, turn: Turn) -> int:
        """Where the unfinished sentence begins; nothing is settled before a sentence claims what was asked."""
        if not turn.passages and not self.config.require_passages:
            return len(turn.text)
        finished = sentences(turn.text)[:-1]
        said = [s for s in finished if MARK.sub("", f" {s.text}").strip()]
        claims = [s for s in said if not ABSTAINS.search(s.text)]
        if not claims or self._astray(turn, claims, turn.text[: finished[-1].end]):
            return 0
        return _after_gap(turn.text, finished[-1].end)

    def leave(self, turn: Turn, findings: Sequence[Finding]) -> str:
        """The text without the sentences that the passages do not support.

        It is empty where too little is left: no sentence, or none that speaks of the question.
        """
        dropped = [f for f in findings if f.label != UNASKED]
        text = without(turn.text, dropped)
        said = _said(text)
        claims = [s for s in said if not ABSTAINS.search(s.text)]
        if not said or (claims and self._astray(turn, claims, text)):
            return ""
        return text

    async def _judge(self, turn: Turn, sentence: Sentence, number: int) -> "_Judged":
        """What becomes of a sentence; a model is not asked about more than the first ones."""
        found = _best(turn, sentence)
        enough = found.score >= self.config.support
        if enough and self.config.short_answers and self._misplaced(turn, sentence):
            return _Judged(sentence, found, max(1 - found.score, 0.5), UNSUPPORTED)
        if self.model is None or found.score >= VERBATIM:
            label = "" if enough else CONTRADICTED if found.against else UNSUPPORTED
            return _Judged(sentence, found, 1 - found.score, label)
        told = await self._ask(turn, MARK.sub("", sentence.text).strip()) if number < MOST else Opinion(0.0)
        if found.against and not enough:
            return _Judged(sentence, found, max(1 - told.supported, 1 - found.score), CONTRADICTED)
        believed, least = told.supported, self.config.model_support
        if self.config.model_weight:
            odds = _log_odds(told.supported)
            # No model makes up for a number that the passages do not have, nor for almost every word.
            believed = found.score + self.config.model_weight * (
                min(odds, 0) if found.score <= MISSING_NUMBER else odds
            )
            believed, least = min(max(believed, 0.0), 1.0), self.config.support
        if believed >= least:
            return _Judged(sentence, found, 1 - believed, "")
        contradicted = told.contradicted > 1 - told.supported - told.contradicted
        return _Judged(sentence, found, 1 - believed, CONTRADICTED if contradicted else UNSUPPORTED)

    def _misplaced(self, turn: Turn, sentence: Sentence) -> bool:
        answer = MARK.sub("", sentence.text)
        short = len(WORD.findall(answer)) <= SHORT and turn.question.rstrip().endswith("?")
        return short and misplaced(answer, turn.question, turn.passages)

    async def _ask(self, turn: Turn, claim: str) -> Opinion:
        """The model's opinion of a sentence, which it is asked once."""
        assert self.model is not None
        key = (claim, turn.question, *(passage.text for passage in turn.passages))
        if key not in self._opinions:
            texts = windows(turn.passages, self.config.window)
            if self.config.excerpt:
                texts = iter([excerpt(turn.passages, claim, turn.question, self.config.excerpt)])
            self._opinions[key] = await opinion(self.model, self.config.ask, claim, turn.question, texts)
            if len(self._opinions) > REMEMBERED:
                self._opinions.popitem(last=False)
        return self._opinions[key]

    def _strays(self, turn: Turn, kept: Sequence["_Judged"], text: str) -> bool:
        """Whether what is supported does not speak of the question, nor do the headings it rests on."""
        behind = [turn.passages[j.support.passage].heading for j in kept if j.support.passage >= 0]
        spoken = [j.sentence.text for j in kept] if self.config.minimum == 1 else [text]
        return coverage(turn.question, [*spoken, *behind]) < self.config.relevance

    def _astray(self, turn: Turn, claims: Sequence[Sentence], text: str) -> bool:
        """The same of sentences that have not been judged."""
        return self._strays(turn, [_Judged(s, _best(turn, s), 0.0, "") for s in claims], text)


class _Judged(NamedTuple):
    """A sentence that claims something, and what is wrong with it."""

    sentence: Sentence
    support: Support  # by comparison of words
    doubt: float  # 0 to 1
    label: str  # empty: nothing is

    @property
    def supported(self) -> bool:
        return not self.label


def without(text: str, findings: Sequence[Finding]) -> str:
    """The text with these sentences left out, their marks, and the signs of list items that held nothing else.

    >>> text = "One. Two. [1] Three.\\n- Four.\\n- Five."
    >>> without(text, [Finding("", 5, 9), Finding("", 23, 28)])
    'One. Three.\\n- Five.'
    """
    pieces, at = [], 0
    for finding in findings:
        start, line = finding.start, text.rfind("\n", 0, finding.start) + 1
        end = _after_marks(text, finding.end)
        if not text[line:start].strip() or ITEM.fullmatch(text[line:start]):
            start = line if text[end : end + 1] in ("", "\n") else start
            end += len(text[end:]) - len(text[end:].lstrip())
        else:
            start -= len(text[line:start]) - len(text[line:start].rstrip())
        pieces.append(text[at : max(at, start)])
        at = max(at, end)
    return ("".join(pieces) + text[at:]).rstrip()


def _said(text: str) -> list[Sentence]:
    """The sentences of a text that are more than a mark."""
    return [s for s in sentences(text) if MARK.sub("", f" {s.text}").strip()]


def _best(turn: Turn, sentence: Sentence) -> Support:
    return support(MARK.sub("", sentence.text), turn.passages)


def _log_odds(probability: float) -> float:
    """Those of a probability, from -MOST_ODDS to MOST_ODDS."""
    if not 0 < probability < 1:
        return MOST_ODDS if probability else -MOST_ODDS
    return max(-MOST_ODDS, min(MOST_ODDS, math.log(probability / (1 - probability))))


def _after_marks(text: str, end: int) -> int:
    """Where the marks behind a sentence end."""
    while (mark := MARK.match(text, end)) and "\n" not in mark.group():
        end = mark.end()
    return end


def _after_gap(text: str, start: int) -> int:
    """Where, from there on, something else than white space and marks begins."""
    gap = GAP.match(text, start)
    return gap.end() if gap else start
