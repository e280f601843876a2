"""Finds passages."""

from collections.abc import Mapping

from trackbed.retrieval.errors import DocumentUnreadable, IndexMismatch, IndexMissing, RetrievalError
from trackbed.retrieval.types import AnyOf, Between, Document, Embedder, Passage, Query, Retriever

__all__ = [
    "RETRIEVERS",
    "AnyOf",
    "Between",
    "Document",
    "DocumentUnreadable",
    "Embedder",
    "IndexMismatch",
    "IndexMissing",
    "Passage",
    "Query",
    "RetrievalError",
    "Retriever",
]

# By the names that a policy uses. Each has `open(place, embedder)`, a class method that gives a Retriever; the place is
# a folder's path, and a PostgresIndex for `postgres`.
RETRIEVERS: Mapping[str, str] = {
    "bm25": "trackbed.retrieval.bm25:Bm25Retriever",
    "faiss": "trackbed.retrieval.faiss_index:FaissRetriever",
    "hybrid": "trackbed.retrieval.hybrid:HybridRetriever",
    "postgres": "trackbed.retrieval.postgres.search:PostgresRetriever",
}
