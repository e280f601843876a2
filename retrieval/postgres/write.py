"""An ingestion into PostgreSQL: staged apart, and made to count in one transaction.

What is put goes into tables that only this connection sees, and that end with it. So readers see the index as it was
until `commit`, and after it as it is to be; and whoever is killed before leaves nothing. One writer at a time.
"""

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from trackbed.retrieval.errors import RetrievalError
from trackbed.retrieval.manifest import EmbedderRecord
from trackbed.retrieval.postgres.connection import EXTRA, PostgresIndex, connect, explained
from trackbed.retrieval.postgres.filters import readers
from trackbed.retrieval.postgres.tables import (
    DROP,
    FORMAT,
    GRAPH,
    INDEXED_FROM,
    INDEXED_TO,
    INDEXES,
    TABLES,
    check_embedder,
    exists,
    missing,
    read_manifest,
    statement,
    to_json,
)
from trackbed.retrieval.postgres.text import restored, stored
from trackbed.retrieval.types import Embedder, Known, Passage

if TYPE_CHECKING:
    import psycopg
    from psycopg.sql import Composed

T = TypeVar("T")
LEAST_VERSION = (0, 8)  # of pgvector: the first whose graph goes on until enough is found
STAGED = 1_000  # passages that are held here before they are sent
WAIT = 5.0  # seconds for another writer to be done
POLL = 0.05
LOCK = 7_418_329  # any number: the first key of the lock, the second being the index

STAGE = """
CREATE TEMP TABLE staged_documents (
    put bigint, source text COLLATE "C", digest text, root text, passages integer
);
CREATE TEMP TABLE staged_passages (
    put bigint, place integer, begins integer, ends integer, text text, heading text, page integer,
    pages integer[], gap text, metadata jsonb, readers text[], vector vector({dimension})
);
CREATE TEMP TABLE staged_moves (source text COLLATE "C" PRIMARY KEY, root text);
"""
DOCUMENT = ("int8", "text", "text", "text", "int4")
PASSAGE = ("int8", "int4", "int4", "int4", "text", "text", "int4", "int4[]", "text", "jsonb", "text[]", "vector")
# Of each document what was said last; without a digest it is to go.
LATEST = """
CREATE TEMP TABLE latest ON COMMIT DROP AS
SELECT DISTINCT ON (source) * FROM staged_documents ORDER BY source, put DESC
"""
MOVE = """
UPDATE {documents} AS documents SET root = moves.root FROM staged_moves AS moves
WHERE moves.source = documents.source
"""
# In how many passages each word is: fewer by those that go, more by those that come.
APPLY = """
INSERT INTO {words} AS words (word, passages)
SELECT lexeme, -count(*) FROM {passages} AS passages JOIN latest USING (source), unnest(passages.words) GROUP BY lexeme
ON CONFLICT (word) DO UPDATE SET passages = words.passages + excluded.passages;
DELETE FROM {documents} AS documents USING latest WHERE documents.source = latest.source;
INSERT INTO {documents} (source, digest, root, passages)
SELECT source, digest, root, passages FROM latest WHERE digest IS NOT NULL;
INSERT INTO {passages} (source, begins, ends, text, heading, page, pages, gap, metadata, readers, vector)
SELECT source, begins, ends, text, heading, page, pages, gap, metadata, readers, vector
FROM staged_passages JOIN latest USING (put) ORDER BY put, place;
INSERT INTO {words} AS words (word, passages)
SELECT lexeme, count(*) FROM {passages} AS passages JOIN latest USING (source), unnest(passages.words) GROUP BY lexeme
ON CONFLICT (word) DO UPDATE SET passages = words.passages + excluded.passages;
DELETE FROM {words} WHERE passages = 0;
"""
RECORD = """
INSERT INTO {manifest} (format, embedder, sha256, dimension, chunking, documents, passages, indexed)
SELECT %(format)s, %(embedder)s, %(sha256)s, %(dimension)s, %(chunking)s::jsonb, count(*), coalesce(sum(passages), 0),
    %(indexed)s
FROM {documents}
ON CONFLICT (single) DO UPDATE SET
    embedder = excluded.embedder, chunking = excluded.chunking, documents = excluded.documents,
    passages = excluded.passages, indexed = excluded.indexed, written = now()
"""


class PostgresWriter:
    """An ingestion under way. To be used in a `with` block, at the end of which what was not committed is gone."""

    def __init__(
        self,
        index: PostgresIndex,
        embedder: Embedder | EmbedderRecord,
        chunking: Mapping[str, int],
        connection: "psycopg.Connection",
        *,
        anew: bool,
    ) -> None:
        self.index = index
        self.embedder = embedder
        self.chunking = chunking
        self.connection = connection
        self._anew = anew
        self._puts = 0
        self._documents: list[tuple[Any, ...]] = []  # Any: rows of the staged tables
        self._passages: list[tuple[Any, ...]] = []

    @classmethod
    def open(
        cls,
        index: PostgresIndex,
        embedder: Embedder | EmbedderRecord,
        chunking: Mapping[str, int],
        *,
        anew: bool = False,
        wait: float = WAIT,
    ) -> "PostgresWriter":
        """Begin an ingestion into this index, which need not be there. With `anew`, what is there will go.

        Raises IndexMismatch where it was made with another embedder, and RetrievalError where another ingestion is
        under way and not done after `wait` seconds, or the database cannot be reached or lacks pgvector.
        """
        connection = connect(index, lock_timeout="30s", client_min_messages="error")
        try:
            return cls._begun(index, embedder, chunking, connection, anew=anew, wait=wait)
        except BaseException:
            connection.close()
            raise

    @classmethod
    def _begun(
        cls,
        index: PostgresIndex,
        embedder: Embedder | EmbedderRecord,
        chunking: Mapping[str, int],
        connection: "psycopg.Connection",
        *,
        anew: bool,
        wait: float,
    ) -> "PostgresWriter":
        import psycopg

        try:
            _lock(connection, index, wait)
            _check_pgvector(connection, index)
            if not anew and exists(connection, index):
                check_embedder(read_manifest(connection, index), embedder, index)
            connection.execute(statement(STAGE, index, embedder.dimension))
        except psycopg.Error as error:
            raise explained(error, index) from None
        return cls(index, embedder, chunking, connection, anew=anew)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the ingestion. Without a commit before, it has never been."""
        import psycopg

        # The server may take a while to notice that a connection is closed, and the next ingestion is not to wait.
        with contextlib.suppress(psycopg.Error):
            self.connection.execute("SELECT pg_advisory_unlock_all()")
        self.connection.close()

    def known(self) -> Mapping[str, Known]:
        """The documents that the index holds, by source."""
        if self._anew or not self._run(lambda: exists(self.connection, self.index)):
            return {}
        words = "SELECT source, digest, root, passages FROM {documents}"
        rows = self._run(lambda: self.connection.execute(self._statement(words)).fetchall())
        return {restored(source): Known(digest, restored(root), passages) for source, digest, root, passages in rows}

    def put(self, source: str, known: Known, passages: Sequence[Passage], vectors: NDArray[np.float32]) -> None:
        """Add a document, or put it in place of the one of that source. `vectors`: [passages, dimension]."""
        assert vectors.shape == (len(passages), self.embedder.dimension)
        self._puts += 1
        self._documents.append((self._puts, stored(source), known.digest, stored(known.root), len(passages)))
        for place, (passage, vector) in enumerate(zip(passages, vectors, strict=True)):
            self._passages.append((self._puts, place, *_row(passage), vector))
        if len(self._passages) >= STAGED:
            self._stage()

    def delete(self, source: str) -> None:
        """Take a document out."""
        self._puts += 1
        self._documents.append((self._puts, stored(source), None, None, None))

    def move(self, source: str, root: str) -> None:
        """Say that a document comes from another root now."""
        words = "INSERT INTO staged_moves VALUES (%s, %s) ON CONFLICT (source) DO UPDATE SET root = excluded.root"
        self._run(lambda: self.connection.execute(words, (stored(source), stored(root))))

    def commit(self) -> None:
        """Make it all count, in one step. Raises RetrievalError when it cannot; then what was there is there still."""
        self._stage()
        self._run(self._applied)

    def _applied(self) -> None:
        connection, embedder = self.connection, self.embedder
        with connection.transaction():
            if self._anew:
                connection.execute(self._statement(DROP))
            connection.execute(self._statement(TABLES))
            connection.execute(self._statement(MOVE))
            connection.execute(LATEST)
            connection.execute(self._statement(APPLY))
            connection.execute(self._statement(INDEXES))  # after the rows: a new index is quicker made at once
            row = connection.execute(self._statement("SELECT count(*) FROM {passages}")).fetchone()
            indexed = bool(row and row[0] >= INDEXED_FROM and embedder.dimension <= INDEXED_TO)
            if indexed:
                connection.execute(self._statement(GRAPH))
            made_of = {
                "format": FORMAT,
                "embedder": stored(embedder.name),
                "sha256": embedder.sha256,
                "dimension": embedder.dimension,
                "chunking": json.dumps(dict(self.chunking)),
                "indexed": indexed,
            }
            connection.execute(self._statement(RECORD), made_of)
            connection.execute(self._statement("ANALYZE {passages}, {words}"))
            connection.execute("TRUNCATE staged_documents, staged_passages, staged_moves")
        self._anew = False

    def _stage(self) -> None:
        """Send what is held here to the staged tables."""
        self._run(lambda: self._copy("staged_documents", DOCUMENT, self._documents))
        self._run(lambda: self._copy("staged_passages", PASSAGE, self._passages))

    def _copy(self, table: str, types: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
        from psycopg.sql import SQL, Identifier

        statement = SQL("COPY {} FROM STDIN (FORMAT binary)").format(Identifier(table))
        with self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)
        rows.clear()

    def _statement(self, words: str) -> "Composed":
        return statement(words, self.index, self.embedder.dimension)

    def _run(self, work: Callable[[], T]) -> T:
        import psycopg

        try:
            return work()
        except psycopg.Error as error:
            raise explained(error, self.index) from None


def delete_index(index: PostgresIndex) -> None:
    """Take an index away, with all that is in it. Raises IndexMissing."""
    import psycopg

    with connect(index, lock_timeout="30s") as connection:
        try:
            _lock(connection, index, WAIT)
            if not exists(connection, index):
                raise missing(index)
            connection.execute(statement(DROP, index))
        except psycopg.Error as error:
            raise explained(error, index) from None


def _row(passage: Passage) -> tuple[Any, ...]:
    return (
        passage.start,
        passage.end,
        stored(passage.text),
        stored(passage.heading),
        passage.page,
        list(passage.pages),
        stored(passage.gap),
        to_json(passage.metadata),
        readers(passage.metadata),
    )


def _lock(connection: "psycopg.Connection", index: PostgresIndex, wait: float) -> None:
    """Hold the index alone until the connection ends. Raises RetrievalError where somebody else does for so long."""
    schema, _, prefix = index.name.rpartition(".")
    asked = "SELECT pg_try_advisory_lock(%s, hashtext(coalesce(nullif(%s, ''), current_schema()) || '.' || %s))"
    until = time.monotonic() + wait
    while connection.execute(asked, (LOCK, schema, prefix)).fetchone() != (True,):
        if time.monotonic() >= until:
            raise RetrievalError(f"another ingestion is writing to {index}; nothing was written; wait until it is done")
        time.sleep(POLL)


def _check_pgvector(connection: "psycopg.Connection", index: PostgresIndex) -> None:
    """See that there is pgvector, and that it is new enough; and teach the connection its vectors."""
    import psycopg

    try:
        from pgvector.psycopg import register_vector
    except ImportError:
        raise RetrievalError(EXTRA) from None

    asked = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    try:
        if connection.execute(asked).fetchone() is None:
            connection.execute("CREATE EXTENSION vector")
    except psycopg.Error:
        raise RetrievalError(
            f"{index}: the database has no pgvector; install it on the server, and as its administrator run "
            "CREATE EXTENSION vector"
        ) from None
    row = connection.execute(asked).fetchone()
    version = row[0] if row else "0"
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST_VERSION:
        raise RetrievalError(f"{index}: pgvector is {version}, and 0.8 is needed: ALTER EXTENSION vector UPDATE")
    register_vector(connection)
