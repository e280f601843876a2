"""How far passages support a sentence: word by word, with numbers, names, dates and negation held to more.

It compares words; it does not reason. On sentences that were written about a passage this is a strong
signal, and a fluent contradiction in the passage's own words can pass. Cosine similarity of MiniLM vectors was
tried beside it: a mean AUROC of .70 over nine kinds of answers with it and without it (1,100 answers), which does
not pay for a model in every turn.

On eight sources of labelled answers the worst sentence's score, below 0.75, has a mean balanced accuracy of .67; with
`misplaced` beside it .70, a rule that was made with these sources in view. What was trained on other sources did no
better by itself: forty such signals in a logistic regression .62, the most similar token of MiniLM for each token of a
sentence .64, the chat model's log-probabilities, on 640 answers, .63, and the judge `smollm2-claims` .62; added to the
score, that judge brings .71 (`llm/judges/smollm2-claims/card.md`).
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

from trackbed.rails.dates import MONTHS, Date, dates
from trackbed.rails.sentences import NUMBER, Content, Sentence, content, sentences, stem
from trackbed.retrieval.types import Passage

MISSING_NUMBER = 0.2  # the most that a sentence is supported whose number no passage has
MISSING_NAME = 0.4
FLIPPED = 0.5  # one of the two says no, and the other does not
SAME = 0.6  # the share of a claim's other words from which a stretch speaks of the same thing
ELSEWHERE = 0.05  # the share of a question's words that another sentence has more, where an answer is misplaced
OF_MONTHS = frozenset(stem(month) for month in MONTHS)

Fault = Literal["number", "name", "date", "negation"]
MOST: dict[Fault, float] = {"number": MISSING_NUMBER, "date": MISSING_NUMBER, "name": MISSING_NAME, "negation": FLIPPED}


class Support(NamedTuple):
    """The stretch of a passage that supports a sentence best: `passages[passage].text[start:end]`."""

    score: float  # 0 to 1
    passage: int = -1  # -1: there is none
    start: int = 0
    end: int = 0
    against: Fault | None = None  # what of it a stretch that speaks of the same thing says otherwise


def support(claim: str, passages: Sequence[Passage]) -> Support:
    """The best support for one sentence: by one or two neighbouring sentences of a passage, under its heading.

    The score is the mean of two shares: of the claim's content words that the stretch has, and of those that
    it has in the same order (ROUGE-L's recall, Lin 2004). A heading that asks something states nothing.
    Where a number, a name, a date or a negation holds the score down, and a stretch has another in its place, that
    is told as `against`; the score is that of what supports it best.
    """
    best, against = Support(0.0), None
    for number, passage in enumerate(passages):
        found = _within(claim, passage.text, passage.heading)
        against = against or found.against
        if found.score > best.score:
            best = found._replace(passage=number)
    return best._replace(against=against if best.score < SAME else None)


@lru_cache(maxsize=256)  # for the same reason as `content`
def _within(claim: str, text: str, heading: str) -> Support:
    """The best support for a sentence in one passage."""
    claimed, best = content(claim), Support(0.0)
    title = heading.rsplit(">", 1)[-1]
    above = frozenset[str]() if title.rstrip().endswith("?") else content(title).words
    nearest, against = 0.0, None
    for stretch, said in _read(text) if claimed.stems else ():
        raw, faults = _compared(claim, claimed, stretch.text, said, above)
        score = min([raw, *(MOST[fault] for fault, _ in faults)])
        if score > best.score:
            best = Support(score, start=stretch.start, end=stretch.end)
        if raw > nearest:
            nearest, against = raw, next((fault for fault, contrary in faults if contrary), None)
    return best._replace(against=against)


@lru_cache(maxsize=64)
def _read(text: str) -> list[tuple[Sentence, Content]]:
    """The stretches of a passage, and what they speak of."""
    return [(stretch, content(stretch.text)) for stretch in stretches(text)]


def coverage(question: str, texts: Iterable[str]) -> float:
    """The share of the question's content words that the texts speak of; 0 to 1."""
    asked = frozenset(content(question).stems)
    spoken = frozenset[str]().union(*(content(text).stems for text in texts))
    return len(asked & spoken) / len(asked) if asked else 0.0


def misplaced(answer: str, question: str, passages: Sequence[Passage]) -> bool:
    """Whether a short answer stands where the passages speak of something else than the question.

    Another sentence takes up more of the question's words than each one that holds the answer, and all that those
    take up. Where one that holds it has words of the question that the other lacks, the answer may rest on both.
    """
    asked = frozenset(content(question).stems)
    new = frozenset(content(answer).stems) - asked
    said = [frozenset(content(s.text).stems) for passage in passages for s in sentences(passage.text)]
    holding = [asked & one for one in said if new <= one]
    most = max((len(asked & one) for one in said), default=0)
    if not new or most - max(map(len, holding), default=0) <= ELSEWHERE * len(asked):
        return False
    fullest = [asked & one for one in said if len(asked & one) == most]
    return all(met <= other for met in holding for other in fullest)


def stretches(text: str) -> list[Sentence]:
    """Each sentence, and after these each sentence with the next: shorter ones first, so that they win ties."""
    single = sentences(text)
    return single + [Sentence(text[a.start : b.end], a.start, b.end) for a, b in pairwise(single)]


def _compared(
    claim: str, claimed: Content, stretch: str, said: Content, above: frozenset[str]
) -> tuple[float, list[tuple[Fault, bool]]]:
    """How many words a stretch has, and what it lacks that words do not make up for.

    Of what it lacks it is told whether the stretch speaks of the same thing and has another in its place.
    """
    told = [(date, [other for other in dates(stretch) if other.says(date)]) for date in dates(claim)]
    met = [(date, others) for date, others in told if others]
    written = frozenset(part for date, _ in met for part in content(claim[date.start : date.end]).stems)
    spoken = said.words | above | written  # a date that is written otherwise is the same date
    numbers = _counted(stretch, said) | _numbers(claim, [date for date, _ in met])
    needed = frozenset(claimed.stems)
    score = len(needed & (spoken | numbers)) / len(needed)
    score = (score + _in_order(claimed.stems, [*above, *said.stems]) / len(claimed.stems)) / 2
    other = needed - claimed.numbers - claimed.names - OF_MONTHS
    same = bool(other) and len(other & spoken) / len(other) >= SAME
    faults: list[tuple[Fault, bool]] = []
    if len(met) < len(told):
        faults.append(("date", same and bool(dates(stretch))))
    if missing := claimed.numbers - numbers:
        bare = missing - _numbers(claim, [date for date, _ in told])
        if bare or not faults:
            faults.append(("number", same and bool(said.numbers - claimed.numbers)))
    if not claimed.names <= spoken:
        faults.append(("name", same and bool(said.names - claimed.words)))
    if claimed.negated != said.negated:
        faults.append(("negation", same and len(other) > 1))
    return score, faults


def _counted(stretch: str, said: Content) -> frozenset[str]:
    """The numbers of a stretch without those of days: twelve books are not the twelfth of March."""
    found = dates(stretch)
    if not found:
        return said.numbers
    years = {str(date.year) for date in found if date.year}
    others = {
        match.group()
        for match in NUMBER.finditer(stretch)
        if not any(date.start <= match.start() < date.end for date in found)
    }
    return frozenset(years | others)


def _numbers(text: str, of: Iterable[Date]) -> frozenset[str]:
    """The numbers that dates of a text are written with."""
    return frozenset(number for date in of for number in NUMBER.findall(text[date.start : date.end]))


def _in_order(claimed: Sequence[str], said: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    reached = [0] * (len(said) + 1)
    for word in claimed:
        before = 0
        for i, other in enumerate(said, start=1):
            here = reached[i]
            reached[i] = before + 1 if word == other else max(here, reached[i - 1])
            before = here
    return reached[-1]
