"""Documents to an index: load, split, embed, write.

Ingestion knows the order of the steps and what to report. It knows nothing of formats, models or files of
an index.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trackbed.retrieval.chunk import Chunking, chunk
from trackbed.retrieval.errors import DocumentUnreadable, RetrievalError
from trackbed.retrieval.faiss_index import write_index
from trackbed.retrieval.load import load
from trackbed.retrieval.types import Embedder, Passage

Progress = Callable[[str, int, int], None]  # what is being done, how many are done, how many in all (0: unknown)
BATCH = 64  # passages between two reports of progress


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingestion came to."""

    documents: int
    passages: int
    skipped: tuple[str, ...]  # one sentence for each file that could not be read, which names it


def ingest(
    paths: Iterable[Path],
    index_path: Path,
    embedder: Embedder,
    progress: Progress | None = None,
    chunking: Chunking = Chunking(),
) -> IngestReport:
    """Make an index of these files and folders. It takes the place of the one at `index_path` only when all went well.

    Raises DocumentUnreadable for a path that is not there, and RetrievalError when no document could be
    read or the index cannot be written.
    """
    report = progress or (lambda step, done, total: None)
    passages: list[Passage] = []
    skipped: list[str] = []
    documents = 0
    for loaded in load(paths):
        if isinstance(loaded, DocumentUnreadable):
            skipped.append(str(loaded))
            continue
        documents += 1
        passages.extend(chunk(loaded, chunking))
        report("reading", documents, 0)
    if not documents:
        raise RetrievalError("; ".join(["there is no document to ingest", *skipped[:3]]))
    vectors = _embed(passages, embedder, report)
    report("writing", 0, 0)
    write_index(index_path, passages, vectors, embedder, documents=documents, chunking=chunking._asdict())
    return IngestReport(documents, len(passages), tuple(skipped))


def searchable(passage: Passage) -> str:
    """What is embedded for a passage: its text, under what it is about."""
    about = passage.heading or str(passage.metadata.get("title", ""))
    return f"{about}\n{passage.text}" if about else passage.text


def _embed(passages: Sequence[Passage], embedder: Embedder, report: Progress) -> NDArray[np.float32]:
    """The passages' vectors: [passages, dimension]."""
    texts = [searchable(passage) for passage in passages]
    vectors = np.empty((len(texts), embedder.dimension), dtype=np.float32)
    # Neighbours in length go together, so that a batch holds little padding.
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for first in range(0, len(order), BATCH):
        report("embedding", first, len(order))
        rows = order[first : first + BATCH]
        batch = embedder.embed([texts[row] for row in rows])
        if batch.shape != (len(rows), embedder.dimension) or not np.isfinite(batch).all():
            raise RetrievalError(
                f"the embedder {embedder.name} gave {batch.shape[0]} vectors, or values that are no numbers, for "
                f"{len(rows)} texts of {embedder.dimension} dimensions"
            )
        vectors[rows] = batch
    report("embedding", len(order), len(order))
    return vectors
