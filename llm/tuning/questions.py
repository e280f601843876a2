"""Questions with passages from rows of question answering and from pages: what answers is one sentence of a passage.

A row without an answer is made of one that has it: the sentence is left out of its paragraph, or other paragraphs
that speak of the same stand in its place. Similarity is the weight of shared words (inverse document frequency,
Sparck Jones 1972). This file knows nothing of models.
"""

import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from trackbed.llm.tuning.invented import Case, Piece

# A sentence ends before white space, and not after what is mostly an abbreviation.
END = re.compile(
    r"(?<=[.!?])(?<!\b[A-Z]\.)(?<!\b(?:Dr|Mr|St|vs|No|ca)\.)(?<!\b(?:e\.g|i\.e|Mrs|etc|Rev|Gen)\.)"
    r"[\"”’)]?\s+(?=[\"“‘(]?[A-Z0-9])"
)
WORD = re.compile(r"[^\W_]+")
# Where a long sentence may end earlier, once it has said what was asked.
CLAUSE = re.compile(r";|,? [–—] |, (?=(?:while|whereas|but|which|who|although)\b)")
NEGATION = re.compile(r"\b(?:not?|never|none|neither|nor|without|\w+n't)\b", re.IGNORECASE)
LONG, REST, KEPT = 26, 6, 6  # words of a sentence that is cut, of what is cut off, and of what stays, at least
SIZES = (40, 80, 140, 200)
SIZE_WEIGHTS = (0.15, 0.35, 0.3, 0.2)
HELD_OUT = 8  # folds from this on train nothing that ships
FOREIGN = 0.15  # the share of rows without an answer whose passages are of anything


class Asked(NamedTuple):
    """A row: a question, its paragraph, and the words in it that answer."""

    question: str
    context: str
    answer: str
    title: str
    fold: int
    source: str
    licence: str


def read_asked(path: Path) -> list[Asked]:
    """Rows of JSON lines with `question`, `context`, `answers`, `doc_id`, `fold`, `licence`. Raises ValueError."""
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                title = str(row["doc_id"]).rpartition("-")[0].replace("_", " ")
                rows.append(
                    Asked(
                        " ".join(str(row["question"]).split()),
                        str(row["context"]),
                        str(row["answers"][0]),
                        title,
                        int(row["fold"]),
                        str(row["source"]),
                        str(row["licence"]),
                    )
                )
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise ValueError(
                    f"{path}:{number}: a row needs question, context, answers and more: {error!r}"
                ) from error
    return rows


class Paragraphs:
    """What could be shown beside a paragraph, or in its place."""

    def __init__(self, rows: Sequence[Asked]) -> None:
        titles = {row.context: row.title for row in rows}
        self.found = [Piece(text, title) for text, title in titles.items()]
        self._words = [words(piece.text) for piece in self.found]
        counts = Counter(word for each in self._words for word in each)
        self._weights = {word: math.log(len(self.found) / count) for word, count in counts.items()}

    def like(self, question: str, title: str, without: str | None, context: str) -> list[Piece]:
        """Paragraphs that do not have these words and are not this one, most similar to the question first."""
        asked = words(question)
        scored = []
        for piece, said in zip(self.found, self._words, strict=True):
            if piece.text == context or (without and without.casefold() in piece.text.casefold()):
                continue
            score = sum(self._weights.get(word, 0.0) for word in asked & said)
            scored.append((score + (2.0 if piece.heading == title else 0.0), piece))
        return [piece for _, piece in sorted(scored, key=lambda each: -each[0])]


def words(text: str) -> frozenset[str]:
    """The words of a text, in lower case."""
    return frozenset(word.casefold() for word in WORD.findall(text))


def sentences_of(text: str) -> list[str]:
    """Its sentences, each as it stands there."""
    found, at = [], 0
    for match in END.finditer(text):
        found.append(text[at : match.end()].strip())
        at = match.end()
    return [sentence for sentence in [*found, text[at:].strip()] if sentence]


def sentence_with(row: Asked) -> str | None:
    """The sentence that answers: of those with the answer's words, the one that shares most with the question."""
    asked = words(row.question)
    having = [sentence for sentence in sentences_of(row.context) if row.answer in sentence]
    return max(having, key=lambda sentence: len(asked & words(sentence)), default=None)


def brief(sentence: str, answer: str) -> str:
    """The sentence, ended where a long one has said the answer: the same words as far as they go."""
    if len(sentence.split()) < LONG:
        return sentence
    told = sentence.index(answer) + len(answer)
    for cut in CLAUSE.finditer(sentence, told):
        kept, rest = sentence[: cut.start()], sentence[cut.end() :]
        balanced = kept.count("(") == kept.count(")") and kept.count('"') % 2 == 0
        if balanced and len(kept.split()) >= KEPT and len(rest.split()) >= REST and not NEGATION.search(rest):
            return kept.rstrip(" ,;") + "."
    return sentence


def answered(rows: Iterable[Asked], others: Paragraphs, seed: int = 0) -> list[Case]:
    """Each question with its paragraph, or a part of it, among up to three others."""
    chance = random.Random(seed)  # noqa: S311
    cases = []
    for row in rows:
        if (sentence := sentence_with(row)) is None:
            continue
        near = others.like(row.question, row.title, row.answer, row.context)[:6]
        beside = chance.sample(near, min(len(near), chance.choice([0, 0, 0, 1, 1, 2, 3])))
        room = _room(chance)
        pieces = [Piece(around(piece.text, row.question, room // (1 + len(beside))), piece.heading) for piece in beside]
        place = chance.randrange(len(pieces) + 1)
        pieces.insert(place, Piece(_shown(row.context, sentence, room, chance), row.title))
        told = brief(sentence, row.answer)
        cases.append(Case(row.question, _titled(pieces, chance), told, place, row.source, row.licence))
    return cases


def unanswered(rows: Iterable[Asked], others: Paragraphs, seed: int = 0) -> list[Case]:
    """Each question with passages that do not have its answer, though they speak of the same."""
    chance = random.Random(seed)  # noqa: S311
    cases = []
    for row in rows:
        sentence, kept = sentence_with(row), row.answer.casefold()
        near = others.like(row.question, row.title, row.answer, row.context)
        room, pieces = _room(chance), list[Piece]()
        left = [s for s in sentences_of(row.context) if kept not in s.casefold()]
        if sentence and len(left) >= 2 and chance.random() < 0.4:
            whole = " ".join(left)
            pieces.append(Piece(around(whole, row.question, room), row.title))
        pool = near[20:] or near if chance.random() < FOREIGN else near[:6]
        more = chance.choice([0, 0, 0, 1, 2]) if pieces else chance.choice([1, 1, 1, 2, 3])
        for piece in chance.sample(pool, min(len(pool), more)):
            pieces.append(Piece(around(piece.text, row.question, room // max(1, more)), piece.heading))
        chance.shuffle(pieces)
        cases.append(Case(row.question, _titled(pieces, chance), "", -1, row.source, row.licence))
    return cases


def with_history(cases: Sequence[Case], share: float, seed: int = 0) -> list[Case]:
    """The same, that share of them after another question and its answer."""
    chance = random.Random(seed)  # noqa: S311
    earlier = [case for case in cases if case.answer]
    found = []
    for case in cases:
        if chance.random() < share:
            other = chance.choice(earlier)
            case = case._replace(before=(other.question, f"{other.answer} [1]"))
        found.append(case)
    return found


def around(text: str, question: str, size: int) -> str:
    """So many words of a text, in whole sentences: those around the one that is most like the question."""
    said, asked = sentences_of(text), words(question)
    best = max(range(len(said)), key=lambda i: len(asked & words(said[i])))
    return " ".join(said[slice(*_grown(said, best, size))])


def _shown(context: str, sentence: str, size: int, chance: random.Random) -> str:
    """So many words of a paragraph, in whole sentences, and this one among them."""
    said = sentences_of(context)
    begin, end = _grown(said, said.index(sentence), size, chance)
    return " ".join(said[begin:end])


def _grown(said: Sequence[str], at: int, size: int, chance: random.Random | None = None) -> tuple[int, int]:
    """From where to where, when neighbours are taken in as long as there is room."""
    begin, end, held = at, at + 1, len(said[at].split())
    while begin > 0 or end < len(said):
        back = begin > 0 and (end == len(said) or (chance.random() < 0.5 if chance else True))
        held += len(said[begin - 1 if back else end].split())
        if held > size:
            break
        begin, end = (begin - 1, end) if back else (begin, end + 1)
    return begin, end


def _room(chance: random.Random) -> int:
    return chance.choices(SIZES, SIZE_WEIGHTS)[0]


def _titled(pieces: Sequence[Piece], chance: random.Random) -> tuple[Piece, ...]:
    """With their headings, or all without."""
    return tuple(pieces) if chance.random() < 0.5 else tuple(Piece(piece.text) for piece in pieces)
