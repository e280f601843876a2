"""The words of a text, and where they are: what BM25 counts.

A segment keeps how often each of its words is in each of its rows, and how long the rows are. Scores are made of these
counts when a question comes, with the number of rows and their mean length at that time; so adding, deleting and
merging change no file of a segment, and many segments score as one. (bm25s, which the tests compare with, keeps scores
in place of counts, and so for one fixed set of texts.) Nothing here knows documents, metadata or vectors.
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

K1, B = 1.5, 0.75  # how soon a word's repetitions count for little, and how much long rows are held back
LONGEST = 64  # characters of a word; the rest of it counts for nothing

# The commonest English words, which say nothing of what a text is about.
_COMMON = """
a about after all also an and any are as at be because been before being between but by can could did do does during
each for from had has have he her here him his how i if in into is it its may me more most my no nor not of on only or
other our out over own she should so some such than that the their them then there these they this those through to too
under until up us very was we were what when where which while who whom why will with would you your
"""
PLAIN = frozenset(("", *_COMMON.split()))

# Possessives are dropped; what stands between white space in scripts that have none is cut into pairs.
_WORD = re.compile(r"['’]s\b|([^\W_]+)")
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+)"
)


def split(text: str) -> list[str]:
    """The words of a text, in order, lower-case; some may be empty."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


class Analyzer:
    """Gives the terms of a word: itself without an English ending, or none for the commonest English words."""

    def __init__(self) -> None:
        from Stemmer import Stemmer

        self._stem = Stemmer("english", 0).stemWord

    def terms(self, word: str) -> tuple[str, ...]:
        """The terms of a word; of one in a script without white space, its pairs of characters."""
        return () if word in PLAIN else tuple(self._cut(word[: LONGEST * LONGEST]))

    def _cut(self, word: str) -> Iterator[str]:
        for n, part in enumerate(_UNSPACED.split(word)):
            if n % 2:
                yield from (part[i : i + 2] for i in range(max(1, len(part) - 1)))
            elif part:
                yield self._stem(part[:LONGEST].encode("utf-8", "replace").decode())


@cache
def analyzer() -> Analyzer:
    """The only one; making it loads libraries."""
    return Analyzer()


class Words:
    """Where the words of a segment are."""

    def __init__(
        self,
        text: NDArray[np.uint8],  # all terms in a row, sorted by their bytes
        ends: NDArray[np.uint64],  # of each term in `text`
        starts: NDArray[np.int64],  # of each term's postings, and the end of the last: [terms + 1]
        rows: NDArray[np.int32],  # [postings]
        counts: NDArray[np.uint16],  # [postings]
        lengths: NDArray[np.uint32],  # [rows]
    ) -> None:
        self.text = text
        self.ends = ends
        self.starts = starts
        self.rows = rows
        self.counts = counts
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How many rows hold each term: [terms]."""
        return self.starts[1:] - self.starts[:-1]

    def term(self, number: int) -> bytes:
        """A term by its place in the order."""
        first = int(self.ends[number - 1]) if number else 0
        return self.text[first : int(self.ends[number])].tobytes()

    def terms(self) -> list[bytes]:
        """All terms, in order."""
        text, ends = self.text.tobytes(), self.ends.tolist()
        return [text[first:end] for first, end in zip([0, *ends], ends, strict=False)]

    def postings(self, term: str) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
        """The rows that hold a term, in order, and how often each does."""
        sought = term.encode()
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.term(middle) < sought:
                low = middle + 1
            else:
                high = middle
        if low == len(self) or self.term(low) != sought:
            return self.rows[:0], self.counts[:0]
        here = slice(int(self.starts[low]), int(self.starts[low + 1]))
        return self.rows[here], self.counts[here]


def idf(rows: int, holding: int) -> float:
    """How much a term says that so many of all rows hold; as Lucene has it, and never below zero."""
    return math.log1p((rows - holding + 0.5) / (holding + 0.5))


def norms(lengths: NDArray[np.uint32], mean: float) -> NDArray[np.float32]:
    """For each row, what a count is weighed against: [rows]."""
    return np.asarray(K1 * (1 - B + B * (lengths.astype(np.float32) / np.float32(mean or 1))), dtype=np.float32)


def posted(tokens: NDArray[np.int64], lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Postings of rows whose tokens stand one after the other: (terms, rows, counts), by term and then row."""
    rows = len(lengths)
    keys = tokens * rows + np.repeat(np.arange(rows, dtype=np.int64), lengths)
    found, counts = np.unique(keys, return_counts=True)
    return found // max(rows, 1), found % max(rows, 1), counts


def union(vocabularies: Sequence[list[bytes]]) -> tuple[list[bytes], list[NDArray[np.int64]]]:
    """The sorted terms of several vocabularies, and for each of these the places of its terms among them."""
    terms = sorted(set().union(*vocabularies))
    places = {term: place for place, term in enumerate(terms)}
    return terms, [
        np.fromiter((places[term] for term in vocabulary), dtype=np.int64, count=len(vocabulary))
        for vocabulary in vocabularies
    ]
