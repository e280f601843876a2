"""LlamaIndex's retrievers, indexes and vector stores as searches, which `foreign` makes retrievers of ours."""

import asyncio
import copy
from collections.abc import Sequence

from llama_index.core import VectorStoreIndex
from llama_index.core.indices.base import BaseIndex
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from trackbed.apps.adapters.foreign import Hit, Search, passage_of, source_of
from trackbed.apps.adapters.llamaindex import TrackbedEmbedding
from trackbed.retrieval.errors import RetrievalError
from trackbed.retrieval.types import Embedder


def search_of(given: object, embedder: Embedder) -> Search | None:
    """The search of an index, a vector store or a retriever; None where it is none of them.

    What is in a vector store must have been embedded by the embedder in use. Raises RetrievalError for one of vectors
    alone.
    """
    if isinstance(given, BasePydanticVectorStore):
        if not given.stores_text:
            raise RetrievalError(f"{type(given).__name__} of LlamaIndex holds no texts; name the index over it")
        given = VectorStoreIndex.from_vector_store(given, embed_model=TrackbedEmbedding(embedder))
    if isinstance(given, BaseIndex):
        given = given.as_retriever()
    return _search_of_retriever(given) if isinstance(given, BaseRetriever) else None


def _search_of_retriever(retriever: BaseRetriever) -> Search:
    # Unless it has a way of its own to be awaited, it would hold up everybody else.
    waits = type(retriever)._aretrieve is not BaseRetriever._aretrieve

    async def search(text: str, count: int) -> Sequence[Hit]:
        asked = retriever
        if hasattr(retriever, "similarity_top_k"):
            asked = copy.copy(retriever)
            asked.similarity_top_k = count
        nodes = await asked.aretrieve(text) if waits else await asyncio.to_thread(asked.retrieve, text)
        return [_hit(node) for node in nodes]

    return search


def _hit(found: NodeWithScore) -> Hit:
    node, said = found.node, found.node.metadata
    source = source_of(said, node.ref_doc_id or node.node_id)
    return Hit(passage_of(node.get_content(), source, getattr(node, "start_char_idx", None), said), found.score)
