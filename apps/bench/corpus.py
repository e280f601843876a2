"""A corpus of any size that nobody wrote: passages with words and vectors that are spread as those of real texts are.

Words follow Zipf's law; each topic has words of its own. Vectors are those of a topic, of a subject in it and of what
is left, in falling directions; passages of one subject are near each other, and a question is another passage of a
subject. What real texts have beside that, it has not; so figures of it are about cost, and about recall with care.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trackbed.retrieval.types import Passage

WORDS = 200_000  # different ones
LENGTH = 90  # words of a passage, in the mean
TOPICS = 64
IN_SUBJECT = 40  # passages of one subject
OF_DOCUMENT = 10  # passages
SHARES = (0.35, 0.65, 0.67)  # of a vector: its topic, its subject, the rest


@dataclass(frozen=True, slots=True)
class Block:
    """Some passages of the corpus, with their vectors: whole documents."""

    passages: Sequence[Passage]
    vectors: NDArray[np.float32]


class Corpus:
    """So many passages; the same every time."""

    def __init__(self, passages: int, dimension: int = 384) -> None:
        self.count = passages
        self.dimension = dimension
        chance = np.random.default_rng(7)
        # Later directions count for less, as in what embedders give.
        self._falling = ((np.arange(dimension) + 1.0) ** -0.35).astype(np.float32)
        self._topics = self._spread(chance, TOPICS)
        self._subjects = self._spread(chance, max(1, passages // IN_SUBJECT))
        self._weights = 1 / (np.arange(WORDS) + 2.7)
        self._weights = np.cumsum(self._weights / self._weights.sum())

    def blocks(self, size: int = 10_000) -> Iterator[Block]:
        """All passages, some at a time."""
        for first in range(0, self.count, size):
            yield self._block(first, min(size, self.count - first))

    def questions(self, count: int) -> tuple[list[str], NDArray[np.float32]]:
        """Texts that are sought, and their vectors."""
        chance = np.random.default_rng(11)
        subjects = chance.integers(0, len(self._subjects), count)
        texts = [" ".join(f"w{word}" for word in self._words(chance, int(subject), 8)) for subject in subjects]
        return texts, self._vectors(chance, subjects)

    def _block(self, first: int, count: int) -> Block:
        chance = np.random.default_rng((3, first))
        subjects = chance.integers(0, len(self._subjects), count)
        lengths = np.clip(chance.normal(LENGTH, LENGTH / 4, count), 5, 2 * LENGTH).astype(int)
        passages = []
        for i, (subject, length) in enumerate(zip(subjects.tolist(), lengths.tolist(), strict=True)):
            text = " ".join(f"w{word}" for word in self._words(chance, subject, length))
            start = (first + i) % OF_DOCUMENT * 1000
            document = (first + i) // OF_DOCUMENT
            metadata = {"mark": str(document % 10)}
            passages.append(Passage(text, f"{document}.md", start, start + len(text), metadata=metadata))
        return Block(passages, self._vectors(chance, subjects))

    def _words(self, chance: np.random.Generator, subject: int, length: int) -> list[int]:
        """Numbers of words: most as they come in all texts, a fifth of them the subject's own."""
        words = np.searchsorted(self._weights, chance.random(length))
        own = chance.random(length) < 0.2
        words[own] = 1000 + (subject * 37 + chance.integers(0, 12, int(own.sum()))) % (WORDS - 1000)
        return [int(word) for word in words]

    def _vectors(self, chance: np.random.Generator, subjects: NDArray[np.int64]) -> NDArray[np.float32]:
        topic, subject, rest = SHARES
        vectors = topic * self._topics[subjects % TOPICS] + subject * self._subjects[subjects]
        vectors += rest * self._spread(chance, len(subjects))
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    def _spread(self, chance: np.random.Generator, count: int) -> NDArray[np.float32]:
        vectors = chance.standard_normal((count, self.dimension), dtype=np.float32) * self._falling
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def documents(blocks: Iterator[Block]) -> Iterator[tuple[str, Sequence[Passage], NDArray[np.float32]]]:
    """The documents of these blocks: source, passages, vectors."""
    for block in blocks:
        for first in range(0, len(block.passages), OF_DOCUMENT):
            some = slice(first, first + OF_DOCUMENT)
            yield block.passages[first].source, block.passages[some], block.vectors[some]
