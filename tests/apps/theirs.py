"""Retrievers and stores of other frameworks, for policies to name."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.retrievers import BaseRetriever as LlamaRetriever
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQuery, VectorStoreQueryResult
from pydantic import Field

from tests.fakes import WordEmbedder
from trackbed.apps.adapters.langchain import TrackbedEmbeddings
from trackbed.apps.adapters.llamaindex import TrackbedEmbedding
from trackbed.retrieval.types import Passage, Query

PAGES = {
    "trains.md": ("Trains run on rails of steel.", {"year": 2024, "start_index": 40}),
    "boats.md": ("Boats run on water and not on rails.", {"year": 2023, "tags": ["a", "b"]}),
    "board.md": ("Rails of gold are planned for trains.", {"year": 2024, "allow": ["board"]}),
    "nobody.md": ("Rails of trains, read by nobody.", {"year": 2024, "allow": {"odd": 1}}),
}


def langchain_store() -> InMemoryVectorStore:
    store = InMemoryVectorStore(TrackbedEmbeddings(WordEmbedder()))
    store.add_documents([Document(text, metadata={**said, "source": source}) for source, (text, said) in PAGES.items()])
    return store


def langchain_retriever() -> BaseRetriever:
    return langchain_store().as_retriever(search_kwargs={"k": 1})


class ScoredStore(InMemoryVectorStore):
    """One that says how near a document is."""

    def _select_relevance_score_fn(self) -> Any:
        return lambda similarity: similarity


def scored_store() -> InMemoryVectorStore:
    store = ScoredStore(TrackbedEmbeddings(WordEmbedder()))
    store.store = langchain_store().store
    return store


class Fixed(BaseRetriever):
    """One that gives what it has, whatever is asked, and however many."""

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [Document(text, metadata={**said, "source": source}) for source, (text, said) in PAGES.items()]


class Failing(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        raise ValueError(f"cannot find {query}")


fixed = Fixed()


def nodes() -> list[TextNode]:
    return [
        TextNode(
            text=text,
            metadata={**said, "file_name": source},
            excluded_embed_metadata_keys=["file_name", *said],
            start_char_idx=said.get("start_index"),
        )
        for source, (text, said) in PAGES.items()
    ]


def llamaindex_index() -> VectorStoreIndex:
    return VectorStoreIndex(nodes(), embed_model=TrackbedEmbedding(WordEmbedder()))


def llamaindex_retriever() -> LlamaRetriever:
    return llamaindex_index().as_retriever(similarity_top_k=1)


class TextStore(BasePydanticVectorStore):
    """A store that holds texts beside their vectors, compared with everyone."""

    stores_text: bool = True
    held: list[Any] = Field(default_factory=list)

    @property
    def client(self) -> None:
        return None

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        self.held.extend(nodes)
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        raise NotImplementedError

    def query(self, query: VectorStoreQuery, **_: Any) -> VectorStoreQueryResult:
        near = sorted(self.held, key=lambda node: -np.dot(node.embedding, query.query_embedding))
        near = near[: query.similarity_top_k]
        scores = [float(np.dot(node.embedding, query.query_embedding)) for node in near]
        return VectorStoreQueryResult(nodes=near, similarities=scores, ids=[node.node_id for node in near])


def llamaindex_store() -> TextStore:
    store = TextStore()
    for node in nodes():
        node.embedding = WordEmbedder().embed([node.text])[0].tolist()
        store.add([node])
    return store


def vectors_alone() -> SimpleVectorStore:
    return SimpleVectorStore()


class LlamaFixed(LlamaRetriever):
    """One that must not be asked in the loop."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=node, score=17.5) for node in nodes()]


class Ours:
    """A search of our own form."""

    async def search(self, query: Query, k: int) -> tuple[Passage, ...]:
        return tuple(Passage(text, source, 0, len(text), 0.5) for source, (text, _) in PAGES.items())[:1]


class NoRetriever:
    pass


def broken() -> None:
    raise ConnectionError
