"""What an index in PostgreSQL knows of passages that it has found: what stands around them, and their vectors.

Who may read what stands around a passage, whoever asks for it decides.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trackbed.retrieval.postgres.connection import Connections, PostgresIndex
from trackbed.retrieval.postgres.tables import COLUMNS, read_passage, statement
from trackbed.retrieval.postgres.text import stored
from trackbed.retrieval.types import Passage

# The passages of a document were written in its order.
AROUND = f"""
WITH here AS (
    SELECT id, source FROM {{passages}}
    WHERE source = %(source)s AND begins = %(begins)s AND ends = %(ends)s ORDER BY id LIMIT 1
), near AS (
    (SELECT passages.id FROM {{passages}} AS passages JOIN here USING (source)
        WHERE passages.id < here.id ORDER BY passages.id DESC LIMIT %(before)s)
    UNION ALL
    (SELECT passages.id FROM {{passages}} AS passages JOIN here USING (source)
        WHERE passages.id >= here.id ORDER BY passages.id LIMIT %(after)s + 1)
)
SELECT {COLUMNS}, passages.id = (SELECT id FROM here) FROM {{passages}} AS passages JOIN near USING (id) ORDER BY id
"""  # noqa: S608 - of constants
VECTORS = """
SELECT given.place - 1, passages.vector::real[]
FROM unnest(%(sources)s::text[], %(begins)s::int[], %(ends)s::int[]) WITH ORDINALITY
    AS given (source, begins, ends, place)
JOIN {passages} AS passages USING (source, begins, ends)
"""


class PostgresShelf:
    """The passages of an index, beside finding them."""

    def __init__(self, place: PostgresIndex, dimension: int, connections: Connections) -> None:
        self.place = place
        self.dimension = dimension
        self.connections = connections

    def around(self, passage: Passage, before: int, after: int) -> tuple[Passage, ...]:
        """A passage with those before and after it in its document, in order; nothing where it is there no more."""
        said = {
            "source": stored(passage.source),
            "begins": passage.start,
            "ends": passage.end,
            "before": before,
            "after": after,
        }
        words = statement(AROUND, self.place)
        rows = self.connections.run(lambda connection: connection.execute(words, said).fetchall())
        return tuple(read_passage(row[:-1], passage.score if row[-1] else 0.0) for row in rows)

    def vectors_of(self, passages: Sequence[Passage]) -> NDArray[np.float32]:
        """Their vectors: [passages, dimension]; zeros for one that is there no more."""
        said = {
            "sources": [stored(passage.source) for passage in passages],
            "begins": [passage.start for passage in passages],
            "ends": [passage.end for passage in passages],
        }
        words = statement(VECTORS, self.place)
        rows = self.connections.run(lambda connection: connection.execute(words, said).fetchall())
        vectors = np.zeros((len(passages), self.dimension), dtype=np.float32)
        for number, vector in rows:
            vectors[number] = vector
        return vectors
