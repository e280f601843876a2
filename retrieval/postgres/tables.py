"""The tables of an index, and the record of what it was made of.

`<name>_manifest` has one row; `<name>_documents` and `<name>_passages` have one for each, and `<name>_words` one for
each word, with the number of passages that have it. Vectors are of unit length. From INDEXED_FROM passages on a graph
(HNSW) stands beside the vectors; with fewer, comparing with every one is quick, and exact.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trackbed.retrieval.errors import IndexMismatch, IndexMissing
from trackbed.retrieval.manifest import EmbedderRecord
from trackbed.retrieval.postgres.connection import PostgresIndex
from trackbed.retrieval.postgres.text import restored, stored
from trackbed.retrieval.types import Embedder, Passage, Value

if TYPE_CHECKING:
    import psycopg
    from psycopg.sql import Composed

FORMAT = 1
INDEXED_FROM = 5_000
INDEXED_TO = 2_000  # dimensions: what a graph over vectors can have at most
READ = "SELECT format, embedder, sha256, dimension, chunking, documents, passages, indexed FROM {manifest}"

# Of a passage's row, what `read_passage` makes a passage of.
COLUMNS = """
    passages.text, passages.source, passages.begins, passages.ends, passages.heading, passages.page, passages.pages,
    passages.gap, passages.metadata"""

TABLES = """
CREATE TABLE IF NOT EXISTS {manifest} (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    format integer NOT NULL,
    embedder text NOT NULL,
    sha256 text NOT NULL,
    dimension integer NOT NULL,
    chunking jsonb NOT NULL,
    documents bigint NOT NULL,
    passages bigint NOT NULL,
    indexed boolean NOT NULL,
    written timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS {documents} (
    source text COLLATE "C" PRIMARY KEY,
    digest text NOT NULL,
    root text NOT NULL,
    passages integer NOT NULL
);
CREATE TABLE IF NOT EXISTS {passages} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text COLLATE "C" NOT NULL REFERENCES {documents} ON DELETE CASCADE,
    begins integer NOT NULL,
    ends integer NOT NULL,
    text text NOT NULL,
    heading text NOT NULL,
    page integer,
    pages integer[] NOT NULL,
    gap text NOT NULL,
    metadata jsonb NOT NULL,
    readers text[],
    vector vector({dimension}) NOT NULL,
    words tsvector GENERATED ALWAYS AS (
        to_tsvector('english', coalesce(nullif(heading, ''), metadata ->> 'title', '') || E'\\n' || text)
    ) STORED
);
CREATE TABLE IF NOT EXISTS {words} (
    word text COLLATE "C" PRIMARY KEY,
    passages bigint NOT NULL
);
"""
INDEXES = """
CREATE INDEX IF NOT EXISTS {by_source} ON {passages} (source);
CREATE INDEX IF NOT EXISTS {by_metadata} ON {passages} USING gin (metadata jsonb_path_ops);
CREATE INDEX IF NOT EXISTS {by_readers} ON {passages} USING gin (readers);
CREATE INDEX IF NOT EXISTS {by_words} ON {passages} USING gin (words);
"""
GRAPH = "CREATE INDEX IF NOT EXISTS {by_vector} ON {passages} USING hnsw (vector vector_ip_ops)"
DROP = "DROP TABLE IF EXISTS {passages}, {documents}, {words}, {manifest}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index is made of."""

    format: int
    embedder: str
    sha256: str
    dimension: int
    chunking: Mapping[str, int]
    documents: int
    passages: int
    indexed: bool  # whether there is a graph over the vectors


def statement(words: str, index: PostgresIndex, dimension: int = 0) -> "Composed":
    """A statement on the tables of an index, which it names in braces."""
    from psycopg.sql import SQL, Identifier, Literal

    prefix = index.name.rpartition(".")[2]
    names = {of: index.table(of) for of in ("manifest", "documents", "passages", "words")}
    names |= {
        f"by_{of}": Identifier(f"{prefix}_by_{of}") for of in ("source", "metadata", "readers", "words", "vector")
    }
    return SQL(words).format(**names, dimension=Literal(dimension))


def read_manifest(connection: "psycopg.Connection", index: PostgresIndex) -> Manifest:
    """The manifest of an index. Raises IndexMissing, IndexMismatch where this trackbed cannot read its format."""
    # Whether the table is there is asked first, so that a transaction goes on where it is not.
    if not exists(connection, index):
        raise missing(index)
    row = connection.execute(statement(READ, index)).fetchone()
    if row is None:
        raise missing(index)
    manifest = Manifest(*row)
    if manifest.format != FORMAT:
        raise IndexMismatch(
            f"the index {index} is in format {manifest.format}, and this trackbed reads format {FORMAT}; "
            f"make it anew: {index.rebuild}"
        )
    return manifest


def exists(connection: "psycopg.Connection", index: PostgresIndex) -> bool:
    """Whether there are tables of that name."""
    name = index.table("manifest").as_string(connection)
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (name,)).fetchone()
    return bool(row and row[0])


def missing(index: PostgresIndex) -> IndexMissing:
    """The error that there is no such index."""
    return IndexMissing(f"there is no index {index}; this makes one: {index.ingest}")


def check_embedder(manifest: Manifest, embedder: Embedder | EmbedderRecord, index: PostgresIndex) -> None:
    """Raises IndexMismatch where other vectors are in the index than this embedder makes."""
    if (manifest.sha256, manifest.dimension) != (embedder.sha256, embedder.dimension):
        made = f"{manifest.embedder} (sha256 {manifest.sha256[:12]}, {manifest.dimension} dimensions)"
        used = f"{embedder.name} (sha256 {embedder.sha256[:12]}, {embedder.dimension} dimensions)"
        raise IndexMismatch(
            f"the index {index} was made with the embedder {made}, and {used} is in use; "
            f"use the former, or make it anew: {index.rebuild}"
        )


def read_passage(row: Sequence[Any], score: float) -> Passage:  # Any: a column of each type
    """The passage of a row's COLUMNS."""
    text, source, begins, ends, heading, page, pages, gap, metadata = row
    return Passage(
        text=restored(text),
        source=restored(source),
        start=begins,
        end=ends,
        score=score,
        heading=restored(heading),
        page=page,
        metadata=from_json(metadata),
        pages=tuple(pages),
        gap=restored(gap),
    )


def to_json(metadata: Mapping[str, Value]) -> dict[str, object]:
    """Metadata as JSON values. A number that is not finite is none in JSON, and becomes its name."""
    return {stored(key): _written(value) for key, value in metadata.items()}


def from_json(said: Mapping[str, object]) -> dict[str, Value]:
    """The metadata that `to_json` was given."""
    return {restored(key): _read(value) for key, value in said.items()}


def _written(value: Value) -> object:
    if isinstance(value, tuple):
        return [stored(word) for word in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return stored(value) if isinstance(value, str) else value


def _read(value: object) -> Value:
    if isinstance(value, list):
        return tuple(restored(word) for word in value)
    assert isinstance(value, str | int | float)
    return restored(value) if isinstance(value, str) else value
