"""Anybody's search as one of our retrievers.

A search that knows nothing of readers and filters is asked for more, until enough of what it finds may be found: the
rule of `allowed` is kept here, after it. This file knows no framework; the two beside it know theirs.
"""

import asyncio
import datetime
import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import NamedTuple

from trackbed.retrieval.allowed import allowed
from trackbed.retrieval.errors import RetrievalError
from trackbed.retrieval.types import ALLOW, Embedder, Passage, Query, Retriever, Value

# A framework, and the file whose `search_of` makes searches of its parts. Who has one of these parts has loaded it.
FRAMEWORKS = {
    "langchain_core": "trackbed.apps.adapters.langchain_search",
    "llama_index.core": "trackbed.apps.adapters.llamaindex_search",
}
KINDS = (
    "a class with `open(path, embedder)`, an object with an async `search(query, k)`, a retriever or vector store of "
    "LangChain or LlamaIndex, or a function of no arguments that gives one of these"
)
MORE = 4  # times as many are asked for when too few may be found
MOST = 4_096  # results that are asked for at once


class Hit(NamedTuple):
    """What a search found, and how near it says that is: a similarity of at most 1, or None."""

    passage: Passage
    score: float | None


Search = Callable[[str, int], Awaitable[Sequence[Hit]]]  # for a text, about so many results, best first


def adapted(given: object, name: str, embedder: Embedder) -> Retriever:
    """What a policy calls `name` as a retriever of ours. Raises RetrievalError where it is none."""
    if isinstance(given, type) or inspect.isroutine(given):
        try:
            given = given()
        except Exception as error:
            raise RetrievalError(f"retriever {name!r} could not be made: {type(error).__name__}") from error
    if inspect.iscoroutinefunction(getattr(given, "search", None)):
        ours: Retriever = given  # type: ignore[assignment]  # as far as one can see
        return ours
    for framework, module in FRAMEWORKS.items():
        if framework in sys.modules and (search := import_module(module).search_of(given, embedder)):
            return ForeignRetriever(search, name, embedder)
    raise RetrievalError(f"{name!r} is no retriever, but {type(given).__name__}; it can be {KINDS}")


class ForeignRetriever:
    """Finds what another search finds, as far as the query's principals may read it and its filter lets it through."""

    def __init__(self, search: Search, name: str, embedder: Embedder) -> None:
        self._search = search
        self.name = name
        self.embedder = embedder

    async def search(self, query: Query, k: int) -> tuple[Passage, ...]:
        """The first `k` that may be found, in the other search's order; for several texts, by their score.

        A score is what the other search says, or where that says none from -1 to 1, the cosine similarity to the query.
        """
        if k < 1:
            return ()
        try:
            lists = await asyncio.gather(*(self._enough(text, query, k) for text in query.texts))
        except RetrievalError:
            raise
        except Exception as error:
            raise RetrievalError(f"retriever {self.name!r} could not search: {type(error).__name__}") from error
        hits = {(hit.passage.source, hit.passage.start, hit.passage.text): hit for hits in lists for hit in hits}
        passages = await asyncio.to_thread(self._scored, query, list(hits.values()))
        if len(lists) > 1:
            passages.sort(key=lambda passage: -passage.score)
        return tuple(passages[:k])

    async def _enough(self, text: str, query: Query, k: int) -> list[Hit]:
        wanted = k
        while True:
            found = await self._search(text, wanted)
            may_be_found = [hit for hit in found if allowed(hit.passage, query)]
            # With fewer than were wanted, there are no more.
            if len(may_be_found) >= k or len(found) < wanted or wanted >= MOST:
                return may_be_found[:k]
            wanted = min(MORE * wanted, MOST)

    def _scored(self, query: Query, hits: Sequence[Hit]) -> list[Passage]:
        scores = [hit.score for hit in hits if hit.score is not None and -1 <= hit.score <= 1]
        if hits and len(scores) < len(hits):  # none, or on some other scale
            texts = self.embedder.embed([hit.passage.text for hit in hits])
            scores = (texts @ self.embedder.embed(query.texts).T).max(axis=1).clip(-1, 1).tolist()
        return [replace(hit.passage, score=float(score)) for hit, score in zip(hits, scores, strict=True)]


def passage_of(text: str, source: str, start: object, metadata: Mapping[str, object]) -> Passage:
    """A passage of a framework's document. Where it says no offset, its text is taken for the whole."""
    begins = start if type(start) is int and start >= 0 else 0
    label = metadata.get("page_label")
    return Passage(
        text=text,
        source=source,
        start=begins,
        end=begins + len(text),
        heading=str(metadata.get("heading") or ""),
        page=int(label) if isinstance(label, str) and label.isdecimal() else None,
        metadata=_values(metadata),
    )


def source_of(metadata: Mapping[str, object], otherwise: str | None) -> str:
    """How a reader finds a document again, by the names that frameworks have for it."""
    named = (metadata.get(key) for key in ("source", "file_path", "file_name", "url", "title"))
    return next((str(name) for name in (*named, otherwise) if name), "unnamed")


def _values(metadata: Mapping[str, object]) -> dict[str, Value]:
    """What our filters can compare of a framework's metadata. Of readers nothing is left out: doubt closes."""
    said = {str(key): _value(value) for key, value in metadata.items()}
    values = {key: value for key, value in said.items() if value is not None}
    if ALLOW in said and not _groups(metadata[ALLOW]):
        values[ALLOW] = ()
    return values


def _value(value: object) -> Value | None:
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple | set | frozenset) and all(isinstance(part, str) for part in value):
        return tuple(str(part) for part in value)
    return value.isoformat() if isinstance(value, datetime.date) else None


def _groups(readers: object) -> bool:
    """Whether this names readers: a group, or several."""
    return isinstance(readers, str) or (
        isinstance(readers, list | tuple | set | frozenset) and _value(readers) is not None
    )
