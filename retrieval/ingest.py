"""Documents to an index: find what changed, load, split, embed, write.

Ingestion knows the order of the steps, what counts as changed or gone, and what to report. It knows nothing of formats,
models or files of an index. Reading and splitting go on in a thread of their own while the embedder works, and no more
is held in memory than what is next.
"""

import hashlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from trackbed.retrieval.chunk import Chunking, chunk
from trackbed.retrieval.errors import DocumentUnreadable, RetrievalError
from trackbed.retrieval.searchable import searchable
from trackbed.retrieval.sources import Found, LeftOut, document_digest, find, gone, roots_of
from trackbed.retrieval.types import Document, Embedder, Known, Mover, Passage, Writer
from trackbed.retrieval.writer import WAIT, IndexWriter

Progress = Callable[[str, int, int], None]  # what is being done, how many are done, how many in all (0: unknown)
VERSION = 3  # of how documents are read, split and made searchable; what another one made is made anew
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
    *,
    make: "Make | None" = None,
) -> IngestReport:
    """The same for any writer: puts and deletes what changed, and commits. `make` reads and embeds elsewhere."""
    paths = list(paths)
    _check(paths)
    work = _Ingestion(writer, embedder, chunking, progress or (lambda step, done, total: None))
    if make:
        work.put_made(find(paths, work.known), make)
    else:
        work.put(find(paths, work.known))
    if not work.seen:
        raise RetrievalError("; ".join(["there is no document to ingest", *work.skipped[:3]]))
    roots = roots_of(paths)
    for source, known in work.known.items():
        missing = known.root in roots and source not in work.seen and source not in work.kept
        if missing and (source in work.doubtful or gone(source, known.root)):
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
        work.put(Found(one.source, "", document_digest(one), partial(_itself, one)) for one in documents)
        return work.commit()


class _Split(NamedTuple):
    """A document that is to be put."""

    source: str
    known: Known
    passages: tuple[Passage, ...]


class Made(NamedTuple):
    """A document that was read, split and embedded; or why it could not be read."""

    found: Found
    passages: tuple[Passage, ...]
    vectors: NDArray[np.float32]  # [passages, dimension]
    error: str = ""


Make = Callable[[Sequence[Found]], Iterator[Made]]


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
        self.seen: set[str] = set()  # sources of what is, or will be, in the index as it is now
        self.kept: set[str] = set()  # of what could not be read
        self.doubtful: set[str] = set()  # of what could not be read, and might say who may read it
        self.skipped: list[str] = []

    def put(self, found: Iterable[Found | LeftOut]) -> None:
        """Embed and put what is new or has changed."""
        window: list[_Split] = []
        passages = 0
        with closing(_ahead(self._changed(found), AHEAD)) as splits:
            for split in splits:
                window.append(split)
                passages += len(split.passages)
                if passages >= WINDOW:
                    self._put(window)
                    window, passages = [], 0
        if window:
            self._put(window)

    def put_made(self, found: Iterable[Found | LeftOut], make: Make) -> None:
        """Put what is new or has changed, made of it by others."""
        needed: dict[Found, str] = {}
        for one, digest, moved in self._needed(found):
            if moved:
                assert isinstance(self._writer, Mover)
                self._writer.move(one.source, one.root)
            else:
                needed[one] = digest
        for one, passages, vectors, error in make(list(needed)):
            if error:
                self._unreadable(one, error)
                continue
            self._seen(one.source, "updated" if one.source in self.known else "added")
            self._passages += len(passages)
            self._report("embedding", self._passages, 0)
            vectors = vectors.reshape(len(passages), self._embedder.dimension)  # it may have none
            self._writer.put(one.source, Known(needed[one], one.root, len(passages)), passages, vectors)

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

    def _changed(self, found: Iterable[Found | LeftOut]) -> Generator[_Split, None, None]:
        """The passages of what is new or has changed. Runs in the thread that reads."""
        for one, digest, moved in self._needed(found):
            if moved:
                yield _Split(one.source, Known(digest, one.root, self.known[one.source].passages), ())
                continue
            try:
                document = one.read()
            except DocumentUnreadable as error:
                self._unreadable(one, str(error))
                continue
            passages = tuple(chunk(document, self._chunking))
            self._seen(one.source, "updated" if one.source in self.known else "added")
            yield _Split(one.source, Known(digest, one.root, len(passages)), passages)

    def _needed(self, found: Iterable[Found | LeftOut]) -> Iterator[tuple[Found, str, bool]]:
        """What the index does not have as it is, with its digest, and whether it has only moved."""
        for one in found:
            if isinstance(one, LeftOut):
                self.skipped.append(one.why)
                self.kept.add(one.source)
                continue
            digest = hashlib.sha256(f"{VERSION} {self._chunking} {one.digest}".encode()).hexdigest()
            before = self.known.get(one.source)
            same = before is not None and one.digest and before.digest == digest
            if before and same and (before.root == one.root or isinstance(self._writer, Mover)):
                self._seen(one.source, "unchanged")
                if before.root != one.root:
                    yield one, digest, True
                continue
            yield one, digest, False

    def _seen(self, source: str, what: str) -> None:
        self.seen.add(source)
        self._counts[what] += 1
        self._report("reading", len(self.seen), 0)

    def _unreadable(self, one: Found, error: str) -> None:
        """Keep what the index has of a document; not where a list of readers may be in what cannot be read."""
        doubtful = one.source in self.known and not one.plain
        (self.doubtful if doubtful else self.kept).add(one.source)
        doubt = "; so who may read it is not certain, and it is found no more" if doubtful else ""
        self.skipped.append(f"{error}{doubt}")

    def _put(self, window: Sequence[_Split]) -> None:
        vectors = self._embed([searchable(passage) for split in window for passage in split.passages])
        first = 0
        for source, known, passages in window:
            if known.passages and not passages:
                assert isinstance(self._writer, Mover)
                self._writer.move(source, known.root)
                continue
            self._writer.put(source, known, passages, vectors[first : first + len(passages)])
            first += len(passages)

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        def report(done: int) -> None:
            self._report("embedding", self._passages + done, 0)

        vectors = embed(texts, self._embedder, report)
        self._passages += len(texts)
        return vectors


def embed(
    texts: Sequence[str], embedder: Embedder, report: Callable[[int], None] = lambda done: None
) -> NDArray[np.float32]:
    """The texts' vectors: [texts, dimension]. Raises RetrievalError where they are none."""
    vectors = np.empty((len(texts), embedder.dimension), dtype=np.float32)
    # Neighbours in length go together, so that a batch holds little padding.
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for first in range(0, len(order), BATCH):
        report(first)
        rows = order[first : first + BATCH]
        batch = embedder.embed([texts[row] for row in rows])
        if batch.shape != (len(rows), embedder.dimension) or not np.isfinite(batch).all():
            raise RetrievalError(
                f"the embedder {embedder.name} gave {batch.shape[0]} vectors, or values that are no numbers, "
                f"for {len(rows)} texts of {embedder.dimension} dimensions"
            )
        vectors[rows] = batch
    report(len(texts))
    return vectors


def _itself(document: Document) -> Document:
    return document


def _check(paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise DocumentUnreadable(f"{path}: there is no such file or folder")


def _ahead(items: Generator[T, None, None], most: int) -> Generator[T, None, None]:
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
            with closing(items):
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
