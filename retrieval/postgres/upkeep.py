"""Looking after an index in PostgreSQL: what it holds, whether its tables agree, and taking documents out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from trackbed.retrieval.manifest import EmbedderRecord
from trackbed.retrieval.postgres.connection import Connections, PostgresIndex
from trackbed.retrieval.postgres.tables import Manifest, read_manifest, statement
from trackbed.retrieval.postgres.text import restored
from trackbed.retrieval.postgres.write import PostgresWriter
from trackbed.retrieval.upkeep import take_out

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")
SIZE = "SELECT sum(pg_total_relation_size(name)) FROM unnest(%s::regclass[]) AS name"
ROOTS = "SELECT root, count(*) FROM {documents} GROUP BY root ORDER BY root"
# What each finds is none where the index is whole.
CHECKS = {
    "passages are not as many as their document says": """
        SELECT count(*) FROM {documents} AS documents
        WHERE passages <> (SELECT count(*) FROM {passages} AS held WHERE held.source = documents.source)""",
    "counts in the manifest are wrong": """
        SELECT count(*) FROM {manifest} AS manifest
        WHERE (documents, passages) <> ((SELECT count(*) FROM {documents}), (SELECT count(*) FROM {passages}))""",
    "words are not counted right": """
        SELECT count(*) FROM (
            SELECT lexeme, count(*) AS found FROM {passages} AS held, unnest(held.words) GROUP BY lexeme
        ) AS counted FULL JOIN {words} AS kept ON word = lexeme WHERE found IS DISTINCT FROM passages""",
    "vectors are not of unit length": """
        SELECT count(*) FROM {passages} WHERE abs(vector_norm(vector) - 1) > 0.01 AND vector_norm(vector) > 0""",
}


@dataclass(frozen=True, slots=True)
class Described:
    """What an index is, and what it takes."""

    manifest: Manifest
    bytes: int  # of its tables, with their indexes
    roots: dict[str, int]  # documents by the folder or file that they came from


def describe(index: PostgresIndex) -> Described:
    """What the index holds. Raises IndexMissing, IndexMismatch and RetrievalError."""

    def work(connection: "psycopg.Connection") -> Described:
        manifest = read_manifest(connection, index)
        tables = [index.table(of).as_string(connection) for of in ("manifest", "documents", "passages", "words")]
        size = connection.execute(SIZE, (tables,)).fetchone()
        roots = connection.execute(statement(ROOTS, index)).fetchall()
        return Described(manifest, int(size[0]) if size else 0, {restored(root): count for root, count in roots})

    return _once(index, work)


def verify(index: PostgresIndex) -> tuple[str, ...]:
    """What in the tables does not agree; nothing: the index is whole. Raises as `describe` does."""

    def work(connection: "psycopg.Connection") -> tuple[str, ...]:
        read_manifest(connection, index)
        connection.execute("SET statement_timeout = 0")
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # so that all see one state
            rows = {wrong: connection.execute(statement(check, index)).fetchone() for wrong, check in CHECKS.items()}
        return tuple(f"{index}: {row[0]} {wrong}" for wrong, row in rows.items() if row and row[0])

    return _once(index, work)


def compact(index: PostgresIndex) -> None:
    """Give the room of what was deleted back to the tables. Raises as `describe` does."""

    def work(connection: "psycopg.Connection") -> None:
        read_manifest(connection, index)
        connection.execute("SET statement_timeout = 0")
        for of in ("documents", "passages", "words"):
            connection.execute(statement(f"VACUUM (ANALYZE) {{{of}}}", index))

    _once(index, work)


def delete(index: PostgresIndex, sources: Sequence[str]) -> tuple[str, ...]:
    """Take documents out, by their source or by a pattern such as drafts/*. Gives their sources.

    Raises RetrievalError, and deletes nothing, when one of them finds none.
    """
    made = _once(index, lambda connection: read_manifest(connection, index))
    embedder = EmbedderRecord(name=restored(made.embedder), sha256=made.sha256, dimension=made.dimension)
    with PostgresWriter.open(index, embedder, made.chunking) as writer:
        return take_out(writer, sources, str(index))


def _once(index: PostgresIndex, work: "Callable[[psycopg.Connection], T]") -> T:
    connections = Connections(index)
    try:
        return connections.run(work)
    finally:
        connections.close()
