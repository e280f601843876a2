"""Documents to an index: find what changed, load, split, embed, write.

Ingestion knows the order of the steps, what counts as changed or gone, and what to report. It knows nothing of formats,
models or files of an index. Reading and splitting go on in a thread of their own while the embedder works, and no more
is held in memory than what is next.
"""

import hashlib
import json
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from trackbed.retrieval.chunk import Chunking, chunk
from trackbed.retrieval.errors import DocumentUnreadable, RetrievalError
from trackbed.retrieval.load import load
from trackbed.retrieval.searchable import searchable
from trackbed.retrieval.types import Document, Embedder, Known, Passage, Writer
from trackbed.retrieval.writer import WAIT, IndexWriter

Progress = Callable[[str, int, int], None]  # what is being done, how many are done, how many in all (0: unknown)
VERSION = 2  # of how documents are read, split and made searchable; what another one made is made anew
BATCH = 64  # passages that are embedded at once, and between two reports of progress
WINDOW = 32 * BATCH  # passages that are put in order of length, so that a batch holds little padding
AHEAD = 64  # documents that are read before the embedder wants them
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingestion came to."""

    documents: int  # that the index holds now
    passages: int  # of these
    added: int  # documents
    updated: int
    unchanged: int
    deleted: int
    skipped: tuple[str, ...]  # one sentence for each file that was left out, which names it


def ingest(
    paths: Iterable[Path],
    index_path: Path,
    embedder: Embedder,
    progress: Progress | None = None,
    chunking: Chunking = Chunking(),
    *,
    anew: bool = False,
    wait: float = WAIT,
) -> IngestReport:
    """Bring an index up to date with these files and folders, or make it; it counts only when all went well.

    What changed is embedded, what did not is not, and what was ingested from these same paths and is there no more is
    taken out. With `anew`, the index is made of these paths alone, whatever it was before. Raises DocumentUnreadable
    for a path that is not there, IndexMismatch, and RetrievalError when no document could be read, another writer is
    at work after `wait` seconds, or the index cannot be written.
    """
    paths = list(paths)
    _check(paths)
    with IndexWriter(index_path, embedder, chunking._asdict(), anew=anew, wait=wait) as writer:
        return ingest_into(writer, paths, embedder, progress, chunking)


def ingest_into(
    writer: Writer,
    paths: Iterable[Path],
    embedder: Embedder,
    progress: Progress | None = None,
    chunking: Chunking = Chunking(),
) -> IngestReport:
    """The same for any writer: puts and deletes what changed, and commits."""
    paths = list(paths)
    _check(paths)
    roots = [os.path.abspath(path) for path in paths]
    work = _Ingestion(writer, embedder, chunking, progress or (lambda step, done, total: None))
    work.put(_found(paths, roots, work.known, work.skipped))
    if not work.seen and not work.skipped and not work.known:
        raise RetrievalError("there is no document to ingest")
    if not work.seen:
        raise RetrievalError("; ".join(["there is no document to ingest", *work.skipped[:3]]))
    for source, known in work.known.items():
        if known.root in roots and source not in work.seen and _gone(source, known.root):
            work.delete(source)
    return work.commit()


def ingest_documents(
    documents: Iterable[Document],
    index_path: Path,
    embedder: Embedder,
    progress: Progress | None = None,
    chunking: Chunking = Chunking(),
    *,
    anew: bool = False,
    wait: float = WAIT,
) -> IngestReport:
    """Add documents that are no files, or put them in place of those of their sources; none is deleted.

    Raises IndexMismatch and RetrievalError, as `ingest` does.
    """
    with IndexWriter(index_path, embedder, chunking._asdict(), anew=anew, wait=wait) as writer:
        work = _Ingestion(writer, embedder, chunking, progress or (lambda step, done, total: None))
        work.put(_Found(document, "", document_digest(document)) for document in documents)
        return work.commit()


def document_digest(document: Document) -> str:
    """Changes with anything of a document."""
    return hashlib.sha256(json.dumps(asdict(document), sort_keys=True, default=list).encode()).hexdigest()


class _Found(NamedTuple):
    """A document, and where it is from."""

    document: Document
    root: str
    digest: str


class _Split(NamedTuple):
    """A document that is to be put."""

    source: str
    known: Known
    passages: tuple[Passage, ...]


class _Ingestion:
    """One ingestion: what it has seen, and what it did."""

    def __init__(self, writer: Writer, embedder: Embedder, chunking: Chunking, report: Progress) -> None:
        self._writer = writer
        self._embedder = embedder
        self._chunking = chunking
        self._report = report
        self._passages = 0
        self._counts = dict.fromkeys(("added", "updated", "unchanged", "deleted"), 0)
        self.known: Mapping[str, Known] = dict(writer.known())
        self.seen: set[str] = set()
        self.skipped: list[str] = []

    def put(self, found: Iterable[_Found | DocumentUnreadable]) -> None:
        """Embed and put what is new or has changed."""
        window: list[_Split] = []
        with closing(_ahead(self._split(found), AHEAD)) as splits:
            for split in splits:
                window.append(split)
                if sum(len(one.passages) for one in window) >= WINDOW:
                    self._put(window)
                    window = []
        if window:
            self._put(window)

    def delete(self, source: str) -> None:
        """Take a document out."""
        self._writer.delete(source)
        self._counts["deleted"] += 1

    def commit(self) -> IngestReport:
        """Make it count."""
        self._report("writing", 0, 0)
        self._writer.commit()
        known = self._writer.known()
        passages = sum(one.passages for one in known.values())
        return IngestReport(len(known), passages, skipped=tuple(self.skipped), **self._counts)

    def _split(self, found: Iterable[_Found | DocumentUnreadable]) -> Iterator[_Split]:
        """The passages of what is new or has changed. Runs in the thread that reads."""
        for one in found:
            if isinstance(one, DocumentUnreadable):
                self.skipped.append(str(one))
                continue
            document, root, digest = one
            source = document.source
            self.seen.add(source)
            self._report("reading", len(self.seen), 0)
            digest = hashlib.sha256(f"{VERSION} {self._chunking} {digest}".encode()).hexdigest()
            before = self.known.get(source)
            if before and (before.digest, before.root) == (digest, root):
                self._counts["unchanged"] += 1
                continue
            passages = tuple(chunk(document, self._chunking))
            self._counts["updated" if before else "added"] += 1
            yield _Split(source, Known(digest, root, len(passages)), passages)

    def _put(self, window: Sequence[_Split]) -> None:
        vectors = self._embed([searchable(passage) for split in window for passage in split.passages])
        first = 0
        for source, known, passages in window:
            self._writer.put(source, known, passages, vectors[first : first + len(passages)])
            first += len(passages)

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The texts' vectors: [texts, dimension]."""
        vectors = np.empty((len(texts), self._embedder.dimension), dtype=np.float32)
        # Neighbours in length go together, so that a batch holds little padding.
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for first in range(0, len(order), BATCH):
            self._report("embedding", self._passages, 0)
            rows = order[first : first + BATCH]
            batch = self._embedder.embed([texts[row] for row in rows])
            if batch.shape != (len(rows), self._embedder.dimension) or not np.isfinite(batch).all():
                raise RetrievalError(
                    f"the embedder {self._embedder.name} gave {batch.shape[0]} vectors, or values that are no numbers, "
                    f"for {len(rows)} texts of {self._embedder.dimension} dimensions"
                )
            vectors[rows] = batch
            self._passages += len(rows)
        self._report("embedding", self._passages, 0)
        return vectors


def _check(paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise DocumentUnreadable(f"{path}: there is no such file or folder")


def _found(
    paths: Sequence[Path], roots: Sequence[str], known: Mapping[str, Known], skipped: list[str]
) -> Iterator[_Found | DocumentUnreadable]:
    """The documents of these paths. What another path that is still there already has under its name is left out."""
    sources: dict[str, str] = {}
    for path, root in zip(paths, roots, strict=True):
        for loaded in load([path]):
            if isinstance(loaded, DocumentUnreadable):
                yield loaded
                continue
            before = known.get(loaded.source)
            other = sources.get(loaded.source)
            if other is None and before and before.root not in ("", *roots) and not _gone(loaded.source, before.root):
                other = before.root
            if other is not None and other != root:
                yield DocumentUnreadable(
                    f"{root}: {loaded.source!r} is already there, from {other}; ingest the folder above both, or "
                    "delete that one first"
                )
                continue
            sources[loaded.source] = root
            yield _Found(loaded, root, document_digest(loaded))


def _gone(source: str, root: str) -> bool:
    """Whether a document is no more where it was found; one that cannot be looked at is not gone."""
    path = Path(root)
    try:
        os.lstat(path / source if path.is_dir() else path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _ahead(items: Iterator[T], most: int) -> Generator[T, None, None]:
    """The same items, made by another thread that is some ahead. Its error is raised here, after what came before."""
    made: queue.Queue[T | BaseException | None] = queue.Queue(most)
    stopped = threading.Event()

    def give(item: T | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                made.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                give(item)
                if stopped.is_set():
                    return
            give(None)
        except BaseException as error:  # noqa: BLE001  raised below
            give(error)

    thread = threading.Thread(target=work, name="trackbed-reading", daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
