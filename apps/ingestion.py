"""Documents into the index that a command names: a folder's, or one in PostgreSQL, written as `postgres:handbook`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trackbed.apps.build import open_embedder
from trackbed.apps.knowledge import POSTGRES, Progress, index_path, postgres_index
from trackbed.apps.settings import Settings

if TYPE_CHECKING:
    from trackbed.retrieval.ingest import IngestReport
    from trackbed.retrieval.postgres.connection import PostgresIndex


def place_of(settings: Settings, index: str) -> "Path | PostgresIndex":
    """Where the index of that name is. Raises SettingsError and RetrievalError."""
    kind, colon, name = index.partition(":")
    return postgres_index(settings, name) if kind == POSTGRES and colon else index_path(settings, index)


def ingest_to(
    settings: Settings, place: "Path | PostgresIndex", paths: Sequence[Path], report: Progress, *, anew: bool = False
) -> "IngestReport":
    """Bring that index up to date with these files and folders, or make it. Raises RetrievalError and LLMError."""
    from trackbed.retrieval.ingest import ingest, ingest_into

    embedder = open_embedder(settings)
    if isinstance(place, Path):
        return ingest(paths, place, embedder, report, anew=anew)
    from trackbed.retrieval.chunk import Chunking
    from trackbed.retrieval.postgres.write import PostgresWriter

    with PostgresWriter.open(place, embedder, Chunking()._asdict(), anew=anew) as writer:
        return ingest_into(writer, paths, embedder, report)
