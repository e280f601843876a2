"""Search by meaning and by words at once, in the index of a folder.

Each side names its candidates, and every candidate is scored by both. A passage with the question's rare words is found
where its meaning is blurred by much else, and one that says it in other words is found too. This file knows the order
of these steps. It knows nothing of how either side searches.
"""

import asyncio
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trackbed.retrieval.current import Current
from trackbed.retrieval.fuse import WEIGHT, reciprocal_ranks, weighted
from trackbed.retrieval.index import Hits, Index
from trackbed.retrieval.nearest import best
from trackbed.retrieval.smooth import SHARE, smoothed
from trackbed.retrieval.types import Embedder, Passage, Query

CANDIDATES = 100  # of each side, unless more are asked for
WORDINGS = 8  # of a question that are sought; more of them are left out

Fusion = Literal["weighted", "ranks"]


class HybridRetriever:
    """Finds passages by cosine and BM25 together. It sees what is ingested while it is open.

    A score is a share of the highest that can be: `weight` of it cosine, the rest BM25. Fused by `weighted`, passages
    are ordered by these scores, when each has shared them with its neighbours: `smooth` is how much of it, and 0 is
    nothing. Fused by `ranks`, the order is that of reciprocal ranks.
    """

    def __init__(
        self,
        current: Current,
        embedder: Embedder,
        fusion: Fusion = "weighted",
        *,
        weight: float = WEIGHT,
        smooth: float = SHARE,
        candidates: int = CANDIDATES,
    ) -> None:
        if not (0 <= weight <= 1 and 0 <= smooth < 1 and candidates >= 1):
            raise ValueError(
                f"weight is {weight} and smooth {smooth}, which are 0 to 1; candidates are {candidates}, of 1 at least"
            )
        self._current = current
        self.embedder = embedder
        self.fusion = fusion
        self.weight = weight
        self.smooth = smooth
        self.candidates = candidates

    @classmethod
    def open(cls, path: Path, embedder: Embedder) -> "HybridRetriever":
        """The index that `ingest` wrote to this folder.

        Raises IndexMissing, IndexMismatch when it was made with another embedder or in another format, and
        RetrievalError when a file of it is missing or damaged.
        """
        return cls(Current(path, embedder), embedder)

    @property
    def index(self) -> Index:
        """The newest generation of the index."""
        return self._current.index

    async def search(self, query: Query, k: int) -> tuple[Passage, ...]:
        """The `k` passages that suit the question best in meaning and words; of several wordings, the best counts."""
        return await asyncio.to_thread(self._search, query, k)

    def _search(self, query: Query, k: int) -> tuple[Passage, ...]:
        index = self.index
        k = min(k, len(index))
        if k < 1:
            return ()
        texts = query.texts[:WORDINGS]
        vectors = self.embedder.embed(texts)
        allowed = index.allowed(query)
        wanted = max(self.candidates, k)
        near = [index.by_vector(vectors[n : n + 1], wanted, allowed).rows for n in range(len(texts))]
        said = [index.by_words([text], wanted, allowed).rows for text in texts]
        rows = np.unique(np.concatenate([*near, *said]))
        scores = np.full(len(rows), -1, dtype=np.float32)
        for n, text in enumerate(texts):
            cosines = index.similarity(vectors[n : n + 1], rows)
            words, limit = index.word_scores([text], rows), index.word_limit([text])
            scores = np.maximum(scores, weighted(cosines, words, limit, self.weight))
        if self.fusion == "ranks":
            return index.passages(_by_ranks(rows, scores, [*near, *said], k))
        return index.passages(self._smoothed(index, best(rows, scores, wanted), k))

    def _smoothed(self, index: Index, hits: Hits, k: int) -> Hits:
        """The `k` best when the first have been evened out; what comes after them stays after them."""
        if not self.smooth:
            return Hits(hits.rows[:k], hits.scores[:k])
        first = np.arange(min(self.candidates, len(hits.rows)))
        evened = smoothed(hits.scores[first], index.vectors(hits.rows[first]), self.smooth)
        order = np.concatenate([np.lexsort((first, -evened)), np.arange(len(first), len(hits.rows))])
        return _ordered(hits, order, k)


def _by_ranks(rows: NDArray[np.int64], scores: NDArray[np.float32], rankings: list[NDArray[np.int64]], k: int) -> Hits:
    """The `k` best by reciprocal ranks."""
    fused = reciprocal_ranks([ranking.tolist() for ranking in rankings])
    ranks = np.array([fused[row] for row in rows.tolist()])
    return _ordered(Hits(rows, scores), np.lexsort((rows, -scores, -ranks)), k)


def _ordered(hits: Hits, order: NDArray[np.int64], k: int) -> Hits:
    """The first `k` in another order than that of their scores; each has the best score from its place on.

    So scores fall, and the first says how good the best of all is, which a policy's minimum is compared with.
    """
    levelled = np.maximum.accumulate(hits.scores[order][::-1])[::-1]
    return Hits(hits.rows[order][:k], levelled[:k])
