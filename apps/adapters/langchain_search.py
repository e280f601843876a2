"""LangChain's retrievers and vector stores as searches, which `foreign` makes retrievers of ours."""

from collections.abc import Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever

from trackbed.apps.adapters.foreign import Hit, Search, passage_of, source_of
from trackbed.retrieval.types import Embedder


def search_of(given: object, embedder: Embedder) -> Search | None:
    """The search of a vector store or a retriever; None where it is neither."""
    if isinstance(given, VectorStore):
        return _search_of_store(given)
    if isinstance(given, BaseRetriever):
        return _search_of_retriever(given)
    return None


def _search_of_store(store: VectorStore) -> Search:
    async def search(text: str, count: int) -> Sequence[Hit]:
        try:
            # What its public form adds is a warning that quotes documents.
            scored = await store._asimilarity_search_with_relevance_scores(text, k=count)
        except NotImplementedError:
            return [_hit(document, None) for document in await store.asimilarity_search(text, k=count)]
        return [_hit(document, score) for document, score in scored]

    return search


def _search_of_retriever(retriever: BaseRetriever) -> Search:
    async def search(text: str, count: int) -> Sequence[Hit]:
        # How many it gives is a retriever's own matter; `k` is the usual name.
        fields: dict[str, Any] = {}
        if isinstance(retriever, VectorStoreRetriever):
            fields = {"search_kwargs": {**retriever.search_kwargs, "k": count}}
        elif "k" in type(retriever).model_fields:
            fields = {"k": count}
        asked = retriever.model_copy(update=fields) if fields else retriever
        return [_hit(document, None) for document in await asked.ainvoke(text)]

    return search


def _hit(document: Document, score: float | None) -> Hit:
    said = document.metadata
    start = said.get("start_index", said.get("start"))
    return Hit(passage_of(document.page_content, source_of(said, document.id), start, said), score)
