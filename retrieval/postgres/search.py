"""The search in PostgreSQL: by meaning and by words in one statement, among what the query's principals may read.

The nearest vectors and the best matches of words are two lists, made one by reciprocal rank fusion (Cormack and others,
2009). A word weighs more the fewer passages have it, as in BM25 (Robertson and Zaragoza, 2009); how much a passage is
about it, `ts_rank` says, which grows ever less with each time that it is there. There is one statement that searches,
and its conditions are part of it. Nothing here writes.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trackbed.retrieval.errors import RetrievalError
from trackbed.retrieval.postgres.connection import Connections, PostgresIndex
from trackbed.retrieval.postgres.filters import permitted
from trackbed.retrieval.postgres.shelf import PostgresShelf
from trackbed.retrieval.postgres.tables import COLUMNS, Manifest, check_embedder, missing, read_manifest, read_passage
from trackbed.retrieval.postgres.text import stored
from trackbed.retrieval.types import Embedder, Passage, Query

if TYPE_CHECKING:
    import psycopg

CANDIDATES = 100  # of each list at least
RANK = 60  # what the paper adds to each rank
TEXT = 4_096  # characters of a text whose words are sought
WORDS = 32  # of these the rarest
WORDED = 5_000  # passages that have one of them are compared by their words, or those that have the rarest of all

SEARCH = """
WITH asked AS (
    SELECT vector::vector AS vector, which
    FROM unnest(%(vectors)s::text[]) WITH ORDINALITY AS given (vector, which)
), sought AS MATERIALIZED (
    SELECT
        quote_literal(lexeme)::tsquery AS word,
        cardinality(positions) * ln(1 + (manifest.passages - words.passages + 0.5) / (words.passages + 0.5)) AS weight,
        sum(words.passages) OVER rarest <= %(worded)s OR row_number() OVER rarest = 1 AS rare
    FROM unnest(to_tsvector('english', %(texts)s)) JOIN {words} AS words ON word = lexeme, {manifest} AS manifest
    WINDOW rarest AS (ORDER BY words.passages, lexeme)
    ORDER BY words.passages, lexeme
    LIMIT %(words)s
), near AS MATERIALIZED (
    SELECT which, found.id, found.score
    FROM asked CROSS JOIN LATERAL (
        SELECT id, -(passages.vector <#> asked.vector) AS score
        FROM {passages} AS passages
        WHERE {permitted}
        ORDER BY passages.vector <#> asked.vector
        LIMIT %(candidates)s
    ) AS found
), worded AS MATERIALIZED (
    SELECT id, (SELECT sum(weight * ts_rank(passages.words, word)) FROM sought) AS score
    FROM {passages} AS passages
    WHERE passages.words @@ (SELECT string_agg(word::text, ' | ')::tsquery FROM sought WHERE rare) AND {permitted}
    ORDER BY score DESC, id
    LIMIT %(candidates)s
), fused AS (
    SELECT id, sum(1.0 / (%(rank)s + place)) AS worth
    FROM (
        SELECT id, row_number() OVER (ORDER BY max(score) DESC, id) AS place FROM near GROUP BY id
        UNION ALL
        SELECT id, row_number() OVER (ORDER BY score DESC, id) AS place FROM worded
    ) AS placed
    GROUP BY id
    ORDER BY worth DESC, id
    LIMIT %(k)s
)
SELECT
    manifest.format, manifest.embedder, manifest.sha256, manifest.dimension, manifest.chunking, manifest.documents,
    manifest.passages, manifest.indexed,
    (SELECT min(found) FROM (SELECT count(near.id) AS found FROM asked LEFT JOIN near USING (which)
        GROUP BY which) AS each),
    {columns},
    (SELECT max(-(passages.vector <#> asked.vector)) FROM asked)
FROM {manifest} AS manifest LEFT JOIN (fused JOIN {passages} AS passages USING (id)) ON true
ORDER BY fused.worth DESC, fused.id
"""


class PostgresRetriever:
    """Finds the passages whose vectors are nearest to the question's, or that have its words."""

    def __init__(self, place: PostgresIndex, embedder: Embedder, connections: Connections) -> None:
        self.place = place
        self.embedder = embedder
        self.connections = connections

    @classmethod
    def open(cls, index: PostgresIndex, embedder: Embedder) -> "PostgresRetriever":
        """The index that an ingestion wrote there.

        Raises IndexMissing, IndexMismatch when it was made with another embedder or in a newer format, and
        RetrievalError when the database cannot be reached.
        """
        connections = Connections(index)
        try:
            check_embedder(connections.run(lambda connection: read_manifest(connection, index)), embedder, index)
        except RetrievalError:
            connections.close()
            raise
        return cls(index, embedder, connections)

    @property
    def index(self) -> PostgresShelf:
        """What is known of passages beside finding them."""
        return PostgresShelf(self.place, self.embedder.dimension, self.connections)

    def close(self) -> None:
        """Close the connections that are kept."""
        self.connections.close()

    async def search(self, query: Query, k: int) -> tuple[Passage, ...]:
        """The `k` passages most like the query in meaning and words, best first.

        A score is the cosine similarity to the query. Where the words put a passage before others that are more
        similar, it has the score of the most similar after it; so scores fall, and a least score cuts off the end.
        """
        return await asyncio.to_thread(self._search, query, k)

    def _search(self, query: Query, k: int) -> tuple[Passage, ...]:
        if k < 1:
            return ()
        vectors = self.embedder.embed(query.texts)
        return self.connections.run(lambda connection: self._found(connection, query, vectors, k))

    def _found(
        self, connection: "psycopg.Connection", query: Query, vectors: NDArray[np.float32], k: int
    ) -> tuple[Passage, ...]:
        from psycopg.sql import SQL

        condition, parameters = permitted(query)
        tables = {of: self.place.table(of) for of in ("manifest", "passages", "words")}
        statement = SQL(SEARCH).format(permitted=condition, columns=SQL(COLUMNS), **tables)
        candidates = max(k, CANDIDATES)
        parameters |= {
            "vectors": [f"[{','.join(map(str, vector.tolist()))}]" for vector in vectors],
            "texts": "\n".join(stored(text[:TEXT]) for text in query.texts),
            "candidates": candidates,
            "words": WORDS,
            "worded": WORDED,
            "rank": RANK,
            "k": k,
        }
        rows = connection.execute(statement, parameters).fetchall()
        if not rows:
            raise missing(self.place)
        *made_of, nearest = rows[0][:9]
        manifest = Manifest(*made_of)
        check_embedder(manifest, self.embedder, self.place)  # it may have been made anew since it was opened
        if manifest.indexed and nearest < candidates:
            # The graph gives up where few of many are permitted; then each of these is compared.
            with connection.transaction():
                connection.execute("SET LOCAL enable_indexscan = off")
                rows = connection.execute(statement, parameters).fetchall()
        return _passages([row[9:] for row in rows if row[9] is not None])


def _passages(rows: Sequence[Sequence[Any]]) -> tuple[Passage, ...]:  # Any: a column of each type
    scores = np.clip([row[-1] for row in rows], -1, 1)
    scores = np.maximum.accumulate(scores[::-1])[::-1]  # of all that follow, the highest
    return tuple(read_passage(row[:-1], float(score)) for row, score in zip(rows, scores, strict=True))
