"""Search by meaning in the index of a folder: the passages whose vectors are nearest to the question's."""

import asyncio
from pathlib import Path

from trackbed.retrieval.current import Current
from trackbed.retrieval.index import Index
from trackbed.retrieval.types import Embedder, Passage, Query


class FaissRetriever:
    """Finds the passages most like a question, by cosine similarity. It sees what is ingested while it is open."""

    def __init__(self, current: Current, embedder: Embedder) -> None:
        self._current = current
        self.embedder = embedder

    @classmethod
    def open(cls, path: Path, embedder: Embedder) -> "FaissRetriever":
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
        """The `k` passages most like the query, best first, with their cosine similarity as score."""
        return await asyncio.to_thread(self._search, query, k)

    def _search(self, query: Query, k: int) -> tuple[Passage, ...]:
        index = self.index
        vectors = self.embedder.embed(query.texts)
        return index.passages(index.by_vector(vectors, k, index.allowed(query)))
