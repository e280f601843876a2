"""Search by words in the index of a folder: the passages that hold most of a question's words, rare ones above all."""

import asyncio
from pathlib import Path

from trackbed.retrieval.current import Current
from trackbed.retrieval.index import Hits, Index
from trackbed.retrieval.types import Embedder, Passage, Query


class Bm25Retriever:
    """Finds the passages with the most BM25 for a question. It sees what is ingested while it is open."""

    def __init__(self, current: Current) -> None:
        self._current = current

    @classmethod
    def open(cls, path: Path, embedder: Embedder) -> "Bm25Retriever":
        """The index that `ingest` wrote to this folder.

        Raises IndexMissing, IndexMismatch when it was made with another embedder or in another format, and
        RetrievalError when a file of it is missing or damaged.
        """
        return cls(Current(path, embedder))

    @property
    def index(self) -> Index:
        """The newest generation of the index."""
        return self._current.index

    async def search(self, query: Query, k: int) -> tuple[Passage, ...]:
        """The `k` passages that suit the query's words, best first; their score is the share of the most possible.

        Where fewer hold one of its words, others follow with a score of 0.
        """
        return await asyncio.to_thread(self._search, query, k)

    def _search(self, query: Query, k: int) -> tuple[Passage, ...]:
        index = self.index
        allowed = index.allowed(query)
        found = index.by_words(query.texts, k, allowed)
        scores = found.scores / (index.word_limit(query.texts) or 1)
        return index.passages(index.filled(Hits(found.rows, scores), k, allowed))
