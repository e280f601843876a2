"""The nouns of retrieval, and the two protocols at its edges. Nothing here knows any index or model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Scalar = str | int | float | bool
Value = Scalar | tuple[str, ...]  # what metadata say of a document: one thing, or several words
ALLOW = "allow"  # the key of the groups that may read a document; without it everybody may


class Heading(NamedTuple):
    """A heading that the text itself does not show: a bookmark of a PDF, or a definition in code."""

    start: int  # where in the text its section begins; that ends where the next of its level or a higher one begins
    level: int  # from 1, the highest
    title: str  # empty for what stands between two definitions


Structure = Literal["prose", "records", "code"]  # Markdown and text; a paragraph a record; lines of a program


@dataclass(frozen=True, slots=True)
class Document:
    """A source as text. Offsets of its passages count characters of `text`."""

    source: str  # how a reader finds it again: a path relative to what was ingested, or a URL
    text: str
    title: str = ""
    pages: tuple[int, ...] = ()  # where each page after the first begins in `text`, for paged formats
    metadata: Mapping[str, Value] = field(default_factory=dict)
    start: int = 0  # where in `text` its passages begin; before that stands front matter, which is in `metadata`
    structure: Structure = "prose"
    outline: tuple[Heading, ...] = ()  # in order, for formats that keep headings beside the text


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document: `text` is the document's text from `start` to `end`."""

    text: str
    source: str
    start: int
    end: int
    score: float = 0.0  # cosine similarity to the query, -1 to 1; 0 before a search
    heading: str = ""  # the headings above it, "Policies > Rails"
    page: int | None = None  # where it begins, counted from 1, for paged formats
    metadata: Mapping[str, Value] = field(default_factory=dict)
    pages: tuple[int, ...] = ()  # where in the document later pages begin that it reaches into
    # The white space between it and the next of its document; with it, neighbours make one stretch of that.
    gap: str = field(default="", compare=False, repr=False)


class AnyOf(NamedTuple):
    """A condition on a key of metadata: it is one of these; of several words, one of them is."""

    values: tuple[Scalar, ...]


class Between(NamedTuple):
    """A condition on a key of metadata: it is a number, or a text such as a date, from `least` to `most`."""

    least: int | float | str | None = None  # None: there is no bound
    most: int | float | str | None = None


Condition = AnyOf | Between


@dataclass(frozen=True, slots=True)
class Query:
    """What is sought, on whose behalf, and among what.

    `principals` are the groups of whoever asks. They have no default, so that nobody forgets them: without any, only
    what everybody may read is found.
    """

    text: str
    principals: frozenset[str]
    filter: Mapping[str, Condition] = field(
        default_factory=dict
    )  # by key of the metadata; `source` is the document's own
    also: tuple[str, ...] = ()  # the same in other words: what these find counts too

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is sought."""
        return (self.text, *self.also)


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


class PairScorer(Protocol):
    """Reads a question beside each text."""

    def score(self, question: str, texts: Sequence[str]) -> "NDArray[np.float32]":
        """How well each text answers the question, 0 to 1: [texts]."""
        ...


class Retriever(Protocol):
    """Finds the passages that bear on a question."""

    async def search(self, query: Query, k: int) -> tuple[Passage, ...]:
        """The `k` best passages that the query's principals may read and its filter lets through, best first.

        Fewer only where there are fewer.
        """
        ...


class Shelf(Protocol):
    """What an index knows of passages that it has found, beside finding them."""

    def around(self, passage: Passage, before: int, after: int) -> tuple[Passage, ...]:
        """A passage with those before and after it in its document, in order; nothing where it is there no more."""
        ...

    def vectors_of(self, passages: Sequence[Passage]) -> "NDArray[np.float32]":
        """Their vectors: [passages, dimension]; zeros for one that is there no more."""
        ...


@runtime_checkable
class Shelved(Protocol):
    """A retriever that searches an index of its own."""

    @property
    def index(self) -> Shelf:
        """As it is now."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """What an index says of a document that it holds."""

    digest: str  # hexadecimal; changes with the document's bytes and metadata, and with how it is read and split
    root: str  # the folder or file that was ingested when it came, as an absolute path; empty where there was none
    passages: int


class Writer(Protocol):
    """An ingestion under way. Nothing of it counts, and nothing is lost, before `commit`."""

    def known(self) -> Mapping[str, Known]:
        """The documents that the index holds, by source."""
        ...

    def put(self, source: str, known: Known, passages: Sequence[Passage], vectors: "NDArray[np.float32]") -> None:
        """Add a document, or put it in place of the one of that source. `vectors`: [passages, dimension]."""
        ...

    def delete(self, source: str) -> None:
        """Take a document out."""
        ...

    def commit(self) -> None:
        """Make it all count, in one step. Raises RetrievalError when it cannot; then what was there is there still."""
        ...


@runtime_checkable
class Mover(Protocol):
    """A writer that need not be given a document again to say where it comes from now."""

    def move(self, source: str, root: str) -> None:
        """Say that a document comes from another root now."""
        ...
