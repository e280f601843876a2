"""Connections to PostgreSQL: opened when needed, kept for the next search, replaced when the server has gone away.

What is known here of an index is where it is. The words of an error hold no password and nothing that anybody
wrote or asked.
"""

import re
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from trackbed.retrieval.errors import IndexMissing, RetrievalError

if TYPE_CHECKING:
    import psycopg
    from psycopg.sql import Identifier

KEPT = 8  # connections at most; whoever comes when all are in use waits
CONNECT_SECONDS = 5
SEARCH_SECONDS = 10
NAME = re.compile(r"(?:([a-z_][a-z0-9_]{0,62})\.)?([a-z_][a-z0-9_]{0,39})")
EXTRA = "PostgreSQL needs the packages psycopg and pgvector: pip install 'trackbed[postgres]'"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PostgresIndex:
    """Where an index is: a database, and the name that its tables begin with, which a schema's may go before."""

    connection: str = field(repr=False)  # postgresql://..., with a password perhaps
    name: str

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise RetrievalError(
                f"{self.name!r} cannot be the name of an index in PostgreSQL: write at most 40 of a-z, 0-9 and _, "
                "beginning with a letter, as in handbook; the name of a schema may go before it, as in sales.handbook"
            )

    def __str__(self) -> str:
        return f"postgres:{self.name}"

    @property
    def ingest(self) -> str:
        """The command that makes it."""
        return f"`trackbed ingest PATHS --to {self}`"

    @property
    def rebuild(self) -> str:
        """The command that makes it anew, whatever it is."""
        return f"{self.ingest[:-1]} --rebuild`"

    def table(self, of: str) -> "Identifier":
        """The table of its passages, its documents, or its manifest."""
        from psycopg.sql import Identifier

        schema, _, prefix = self.name.rpartition(".")
        return Identifier(*filter(None, (schema, f"{prefix}_{of}")))


class Connections:
    """Connections to one database for searches, which read only and may take so long and no longer."""

    def __init__(self, index: PostgresIndex) -> None:
        self.index = index
        self._free = threading.BoundedSemaphore(KEPT)
        self._kept: list[psycopg.Connection] = []
        self._lock = threading.Lock()
        # Who drops a retriever need not close it.
        weakref.finalize(self, _close_all, self._kept)

    def run(self, work: "Callable[[psycopg.Connection], T]") -> T:
        """What `work` gives; it is done again where a kept connection turns out to be broken. Raises RetrievalError."""
        import psycopg

        with self._free:
            while True:
                kept = self._take()
                connection = kept or self._opened()
                try:
                    done = work(connection)
                except psycopg.Error as error:
                    lost = connection.closed
                    connection.close()
                    if kept and lost:
                        continue  # the server has gone away, and with it perhaps all that were kept
                    raise explained(error, self.index) from None
                except BaseException:
                    connection.close()
                    raise
                self._keep(connection)
                return done

    def close(self) -> None:
        """Close what is kept. A search afterwards opens anew."""
        with self._lock:
            _close_all(self._kept)

    def _take(self) -> "psycopg.Connection | None":
        with self._lock:
            return self._kept.pop() if self._kept else None

    def _keep(self, connection: "psycopg.Connection") -> None:
        with self._lock:
            self._kept.append(connection)

    def _opened(self) -> "psycopg.Connection":
        return connect(
            self.index,
            default_transaction_read_only="on",
            statement_timeout=f"{SEARCH_SECONDS}s",
            jit="off",  # compiling a search takes longer than the search
            **{"hnsw.iterative_scan": "strict_order", "hnsw.ef_search": "100"},
        )


def _close_all(kept: "list[psycopg.Connection]") -> None:
    while kept:
        kept.pop().close()


def connect(index: PostgresIndex, **settings: str) -> "psycopg.Connection":
    """A connection on which each statement counts at once. Raises RetrievalError, which says what to do."""
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict, make_conninfo
    except ImportError:
        raise RetrievalError(EXTRA) from None
    try:
        said = conninfo_to_dict(index.connection)
    except psycopg.Error:
        # Its own words would repeat the string.
        raise RetrievalError(
            "the setting 'postgres' is no connection string; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        ) from None
    if "@" in str(said.get("host", "")):
        raise RetrievalError("the setting 'postgres' has two @; write the one in the user's name or password as %40")
    try:
        connection = psycopg.connect(
            make_conninfo(index.connection, connect_timeout=said.get("connect_timeout", CONNECT_SECONDS)),
            autocommit=True,
            prepare_threshold=None,  # each search is planned by its own filter
        )
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        if said.get("password"):
            reason = reason.replace(str(said["password"]), "***")
        raise RetrievalError(
            f"{index} cannot be reached: {reason}; see the setting 'postgres' and whether the server runs"
        ) from None
    try:
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    except psycopg.Error as error:
        connection.close()
        raise explained(error, index) from None
    return connection


def explained(error: "psycopg.Error", index: PostgresIndex) -> RetrievalError:
    """An error of PostgreSQL's as ours. Its own words may hold what was written or asked, and are left out."""
    from psycopg import errors

    if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName):
        return IndexMissing(f"there is no index {index}; this makes one: {index.ingest}")
    if isinstance(error, errors.InsufficientPrivilege):
        return RetrievalError(f"{index}: the user of the setting 'postgres' has no right to do this; GRANT it")
    if isinstance(error, errors.QueryCanceled):
        return RetrievalError(f"{index}: PostgreSQL took longer than it may ({SEARCH_SECONDS} s for a search)")
    if isinstance(error, errors.LockNotAvailable):
        return RetrievalError(f"{index}: somebody else holds its tables; nothing was written; try again later")
    state = error.sqlstate or "the connection was lost"
    # Of these classes, which are about statements, space and limits, the words hold nothing that anybody wrote.
    reason = f" ({error.diag.message_primary})" if state[:2] in ("42", "53", "54") else ""
    return RetrievalError(f"{index}: PostgreSQL could not do it: {type(error).__name__}, {state}{reason}")
