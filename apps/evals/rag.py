"""How good answers are that rest on passages: `trackbed eval rag`.

Answers are compared with those that people gave as SQuAD compares them (Rajpurkar et al. 2016, arXiv:1606.05250): F1 of
words, exact match, and whether one that people gave is contained. Whether a sentence is supported, and by what it
cites, is decided as the rails decide it (`rails/support.py`). What leaves and what the model drafted are both measured.
"""

import asyncio
import json
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from trackbed.apps.evals.measures import DRAWS, Figure, spread
from trackbed.rails.knowledge import Knowledge
from trackbed.rails.library.grounding import ABSTAINS
from trackbed.rails.marks import MARK, unmarked
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import Policy
from trackbed.rails.recording import RecordedRetriever, noted, recorded
from trackbed.rails.sentences import sentences
from trackbed.rails.support import support
from trackbed.rails.types import Citation, Models, Reply, Turn
from trackbed.retrieval.types import Passage, Query, Retriever

SUPPORTED = 0.75  # how far a passage must support a sentence, as the default policy has it
ARTICLES = re.compile(r"\b(?:a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation + "“”‘’«»–—")
Report = Callable[[str, int, int], None]


class Asked(NamedTuple):
    """A question, what people answered, and the passages that are given."""

    id: str
    question: str
    answers: tuple[str, ...]  # empty: the passages do not answer it
    contexts: tuple[str, ...]  # in the order in which they are shown; empty: they are searched for
    gold: str  # the text that has the answer; empty where it is not known
    doc_id: str


class Compared(NamedTuple):
    """How near a text comes to the answers of people, from 0 to 1."""

    f1: float
    exact: float
    contained: float


class Cited(NamedTuple):
    """What the citations of a text are worth."""

    sentences: int  # that claim something
    cited: int  # of these: with a citation that supports them
    supported: int  # of these: that any passage supports
    citations: int  # of a sentence by a mark
    right: int  # of these: that support their sentence
    gold: int  # of these: that point to the text with the answer


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a question."""

    asked: Asked
    reply: str  # without marks
    declined: bool
    compared: Compared  # of nothing, where it was declined
    cited: Cited
    draft: str
    draft_declined: bool
    draft_compared: Compared
    action: str  # of the verdict
    by: str  # stage/id of the rail that did it
    milliseconds: float

    def as_json(self) -> dict[str, Any]:
        """As JSON values, for who looks into single answers."""
        return {
            "id": self.asked.id,
            "question": self.asked.question,
            "answers": self.asked.answers,
            "reply": self.reply,
            "draft": self.draft,
            "declined": self.declined,
            "action": self.action,
            "by": self.by,
            **self.compared._asdict(),
            **{f"sentences_{name}": count for name, count in self.cited._asdict().items()},
            "milliseconds": round(self.milliseconds, 1),
        }


@dataclass(frozen=True, slots=True)
class Rated:
    """The figures of all questions."""

    shipped: dict[str, Figure]
    draft: dict[str, Figure]
    rows: int
    unanswerable: int
    milliseconds: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        told = {
            name: {measure: figure.as_json() for measure, figure in figures.items()}
            for name, figures in (("shipped", self.shipped), ("draft", self.draft))
        }
        counts = {"rows": self.rows, "unanswerable": self.unanswerable, "milliseconds": self.milliseconds}
        return {**told, **counts}


def read_asked(path: Path) -> list[Asked]:
    """The rows of a file of JSON lines. Raises ValueError, which names the line."""
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                context = str(row.get("context") or "")
                contexts = tuple(str(text) for text in row.get("contexts") or ([context] if context else []))
                answers = tuple(str(answer) for answer in row["answers"])
                doc_id, question = str(row.get("doc_id") or ""), str(row["question"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path}:{number}: a row needs question and a list of answers: {error!r}") from error
            if not contexts and not doc_id:
                raise ValueError(f"{path}:{number}: a row needs one of: context, contexts, doc_id")
            rows.append(Asked(str(row.get("id", number)), question, answers, contexts, context, doc_id))
    return rows


def compare(text: str, answers: Sequence[str]) -> Compared:
    """The nearest of the answers.

    >>> compare("It was the year 1923. [1]", ["In 1923", "1923"])
    Compared(f1=0.4, exact=0.0, contained=1.0)
    """
    said = _normal(MARK.sub("", f" {text}"))
    each = [_compare(said, _normal(answer)) for answer in answers]
    return Compared(*(max(values) for values in zip(*each, strict=True))) if each else Compared(0.0, 0.0, 0.0)


def _compare(said: list[str], answer: list[str]) -> Compared:
    same = sum((Counter(said) & Counter(answer)).values())
    f1 = 2 * same / (len(said) + len(answer)) if same else float(said == answer)
    contained = bool(answer) and f" {' '.join(answer)} " in f" {' '.join(said)} "
    return Compared(f1, float(said == answer), float(contained))


def _normal(text: str) -> list[str]:
    """As SQuAD's script does: in lower case, without punctuation and articles."""
    return ARTICLES.sub(" ", text.lower().translate(NO_PUNCTUATION)).split()


def declines(text: str, policy: Policy) -> bool:
    """Whether it says that it does not know, and nothing else."""
    said = [s.text for s in sentences(unmarked(text)[0])]
    return text.strip() == policy.generation.unknown or not said or all(ABSTAINS.search(s) for s in said)


def weigh(text: str, citations: Sequence[Citation], passages: Sequence[Passage], gold: str) -> Cited:
    """What the citations of a text are worth. A mark also stands for the sentences before it that have none."""
    left, marks = unmarked(text)
    quotes = {citation.n: citation.quote for citation in citations}
    claims = [s for s in sentences(left) if not ABSTAINS.search(s.text)]
    named, waiting = dict[int, list[int]](), list[int]()
    for i, sentence in enumerate(claims):
        end = claims[i + 1].start if i + 1 < len(claims) else len(left) + 1
        own = [n for at, n in marks if sentence.start < at <= end and n in quotes]
        waiting.append(i)
        if own:
            named |= dict.fromkeys(waiting, own)
            waiting = []
    right = {(i, n): _supports(claims[i].text, [_passage(quotes[n])]) for i, numbers in named.items() for n in numbers}
    return Cited(
        sentences=len(claims),
        cited=sum(any(right[i, n] for n in named.get(i, ())) for i in range(len(claims))),
        supported=sum(_supports(sentence.text, passages) for sentence in claims),
        citations=len(right),
        right=sum(right.values()),
        gold=sum(bool(gold) and " ".join(quotes[n].split()) in " ".join(gold.split()) for _, n in right),
    )


def _supports(claim: str, passages: Sequence[Passage]) -> bool:
    return support(claim, passages).score >= SUPPORTED


def _passage(text: str, source: str = "") -> Passage:
    return Passage(text, source, 0, len(text), 1.0)


GIVEN: ContextVar[tuple[Passage, ...]] = ContextVar("given")


class Given:
    """A retriever that finds what the row gives."""

    async def search(self, query: Query, k: int) -> tuple[Passage, ...]:
        """The passages of the row that is asked, at most so many."""
        return GIVEN.get()[:k]


def ask(
    policy: Policy, models: Models, retriever: Retriever | None, rows: Sequence[Asked], report: Report
) -> Iterator[Answered]:
    """What comes of each row, one after the other; without a retriever, its own passages are given."""
    sources = {name: str(source) for name, source in policy.models.items()}
    searched = RecordedRetriever(retriever, policy.knowledge.index) if retriever and policy.knowledge else None
    pipeline = Pipeline(policy, recorded(models, sources, policy.drafts), searched or Given())
    with asyncio.Runner() as runner:
        for number, row in enumerate(rows):
            report("answering", number, len(rows))
            yield runner.run(_answered(pipeline, row, searched=searched is not None))


async def _answered(pipeline: Pipeline, row: Asked, *, searched: bool) -> Answered:
    policy = pipeline.policy
    GIVEN.set(tuple(_passage(text, f"{row.doc_id or row.id}-{n}") for n, text in enumerate(row.contexts, 1)))
    started = perf_counter()
    with noted() as notes:
        reply = await pipeline.respond(Turn(row.question))
    spent = 1000 * (perf_counter() - started)
    passages = tuple(p for found in notes.searches for p in found.passages) if searched else GIVEN.get()
    drafts = [a.text for a in notes.answers if a.model == policy.drafts and a.text is not None]
    draft = drafts[-1] if drafts else ""
    declined, draft_declined = _refused(reply) or declines(reply.text, policy), declines(draft, policy)
    nothing = Compared(0.0, 0.0, 0.0)
    verdict = reply.verdict
    return Answered(
        row,
        unmarked(reply.text)[0],
        declined,
        nothing if declined else compare(reply.text, row.answers),
        Cited(0, 0, 0, 0, 0, 0) if declined else weigh(reply.text, reply.citations, passages, row.gold),
        draft,
        draft_declined,
        nothing if draft_declined else compare(draft, row.answers),
        verdict.action,
        f"{verdict.stage}/{verdict.rail}" if verdict.stage else "",
        spent,
    )


def _refused(reply: Reply) -> bool:
    return reply.verdict.action == "block"


def rate(answered: Sequence[Answered], seed: int = 0) -> Rated:
    """The figures, with intervals over rows."""
    asked = [bool(one.asked.answers) for one in answered]

    def told(declined: Sequence[bool], compared: Sequence[Compared]) -> dict[str, Figure]:
        each = list(zip(asked, declined, compared, strict=True))
        return {
            "f1": share([(c.f1, a) for a, _, c in each], seed),
            "exact": share([(c.exact, a) for a, _, c in each], seed),
            "contained": share([(c.contained, a) for a, _, c in each], seed),
            "declined_unanswerable": share([(d and not a, not a) for a, d, _ in each], seed),
            "declined_answerable": share([(d and a, a) for a, d, _ in each], seed),
        }

    cited = [one.cited for one in answered]
    known = [c for c, one in zip(cited, answered, strict=True) if one.asked.gold]
    shipped = told([one.declined for one in answered], [one.compared for one in answered])
    shipped |= {
        "sentences_cited": share([(c.cited, c.sentences) for c in cited], seed),
        "sentences_supported": share([(c.supported, c.sentences) for c in cited], seed),
        "citation_precision": share([(c.right, c.citations) for c in cited], seed),
        "citation_to_gold": share([(c.gold, c.citations) for c in known], seed),
    }
    draft = told([one.draft_declined for one in answered], [one.draft_compared for one in answered])
    return Rated(shipped, draft, len(answered), asked.count(False), spread([one.milliseconds for one in answered]))


def share(counts: Sequence[tuple[float, float]], seed: int = 0) -> Figure:
    """The sum of the first over the sum of the second, and its interval over rows; NaN over nothing."""
    table = np.array(counts, dtype=float).reshape(-1, 2)
    if not table[:, 1].sum():
        return Figure(float("nan"), float("nan"), float("nan"))
    chance = np.random.default_rng(seed)
    draws = np.array([table[chance.integers(0, len(table), len(table))].sum(0) for _ in range(DRAWS)])
    draws = draws[draws[:, 1] > 0]
    low, high = np.percentile(draws[:, 0] / draws[:, 1], [2.5, 97.5])
    return Figure(float(table[:, 0].sum() / table[:, 1].sum()), float(low), float(high))


class Opened(NamedTuple):
    """A policy as its models are opened for it, and as it answers."""

    built: Policy
    asked: Policy


def given(policy: Policy, knowledge: Knowledge, passages: int, index: str | None = None) -> Opened:
    """The policy over an index of that name; without one, over so many passages as rows give, and no index is open."""
    if index:
        named = replace(policy, knowledge=replace(knowledge, indexes=(index,)))
        return Opened(named, named)
    shown = replace(knowledge, passages=max(passages, 1), minimum_score=-1.0, filter={})
    return Opened(replace(policy, knowledge=None), replace(policy, knowledge=shown))
