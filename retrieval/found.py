"""What a search came to, and how it came about, where the retriever tells that."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from trackbed.retrieval.types import Passage, Query, Retriever


class Found(NamedTuple):
    """What a search came to, and how: `notes` are JSON values for a trace, and hold no text."""

    passages: tuple[Passage, ...]
    notes: Mapping[str, int | str]


@runtime_checkable
class Finder(Protocol):
    """A retriever that tells how it found what it finds."""

    async def find(self, query: Query, k: int) -> Found:
        """What `search` gives, and how."""
        ...


async def find(retriever: Retriever, query: Query, k: int) -> Found:
    """What a retriever finds, with its notes where it makes some."""
    if isinstance(retriever, Finder):
        return await retriever.find(query, k)
    return Found(await retriever.search(query, k), {})
