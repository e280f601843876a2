"""Documents into the index that a command names: a folder's, or one in PostgreSQL, written as `postgres:handbook`.

Here it is put together what embeds, in this process or in many, and what writes.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trackbed.apps.build import open_embedder
from trackbed.apps.knowledge import POSTGRES, Progress, index_path, postgres_index
from trackbed.apps.settings import Settings
from trackbed.retrieval.types import Embedder, Writer

if TYPE_CHECKING:
    from trackbed.retrieval.chunk import Chunking
    from trackbed.retrieval.ingest import IngestReport
    from trackbed.retrieval.postgres.connection import PostgresIndex


def place_of(settings: Settings, index: str) -> "Path | PostgresIndex":
    """Where the index of that name is. Raises SettingsError and RetrievalError."""
    kind, colon, name = index.partition(":")
    return postgres_index(settings, name) if kind == POSTGRES and colon else index_path(settings, index)


def ingest_to(
    settings: Settings,
    place: "Path | PostgresIndex",
    paths: Sequence[Path],
    report: Progress,
    *,
    anew: bool = False,
    ray: str | None = None,
) -> "IngestReport":
    """Bring that index up to date with these files and folders, or make it. Raises RetrievalError and LLMError.

    With `ray`, many processes do the work: those of the cluster at that address, or where it is empty, of this machine.
    """
    from trackbed.retrieval.chunk import Chunking
    from trackbed.retrieval.ingest import ingest, ingest_into

    embedder, chunking = open_embedder(settings), Chunking()
    if isinstance(place, Path) and ray is None:
        return ingest(paths, place, embedder, report, chunking, anew=anew)
    with ExitStack() as stack:
        writer = stack.enter_context(_writer(place, embedder, chunking, anew=anew))
        if ray is None:
            return ingest_into(writer, paths, embedder, report, chunking)
        from trackbed.llm.encoder import Encoder
        from trackbed.retrieval.ray_ingest import on_ray

        make = stack.enter_context(on_ray(partial(Encoder, settings.embedder, settings.models), chunking, ray))
        return ingest_into(writer, paths, embedder, report, chunking, make=make)


def _writer(
    place: "Path | PostgresIndex", embedder: Embedder, chunking: "Chunking", *, anew: bool
) -> AbstractContextManager[Writer]:
    if isinstance(place, Path):
        from trackbed.retrieval.writer import IndexWriter

        return IndexWriter(place, embedder, chunking._asdict(), anew=anew)
    from trackbed.retrieval.postgres.write import PostgresWriter

    return PostgresWriter.open(place, embedder, chunking._asdict(), anew=anew)
