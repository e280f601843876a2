"""The nouns of retrieval, and the two protocols at its edges. Nothing here knows any index or model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Document:
    """A source as text. Offsets of its passages count characters of `text`."""

    source: str  # how a reader finds it again: a path relative to what was ingested, or a URL
    text: str
    title: str = ""
    pages: tuple[int, ...] = ()  # where each page after the first begins in `text`, for paged formats
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document: `text` is the document's text from `start` to `end`."""

    text: str
    source: str
    start: int
    end: int
    score: float = 0.0  # cosine similarity to the query, -1 to 1; 0 before a search
    heading: str = ""  # the headings above it, "Policies > Rails"
    page: int | None = None  # counted from 1, for paged formats
    metadata: Mapping[str, str] = field(default_factory=dict)


class Embedder(Protocol):
    """Turns texts into vectors of unit length."""

    @property
    def name(self) -> str:
        """The name that an index's manifest records."""
        ...

    @property
    def sha256(self) -> str:
        """The digest of the weights, hexadecimal; two embedders with one digest give the same vectors."""
        ...

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """One vector a text, of unit length: [texts, dimension]."""
        ...


class Retriever(Protocol):
    """Finds the passages that bear on a question."""

    async def search(self, query: str, k: int) -> tuple[Passage, ...]:
        """The `k` best passages, best first; fewer where there are fewer."""
        ...
