"""Changing an index: one writer at a time, and one step that makes all of a change count.

New documents become new segments beside the old ones, deleted ones marks beside their segment; both are on the disk
before a manifest that names them takes the place of the old one. So a crash, a full disk or a power cut at any moment
leaves the index as it was before or as it is after, and what else is left lying about the next writer removes. Small
segments are merged, so that there are never many, with work in proportion to what is added and not to what is there.
Nothing here knows files of documents, or embeds.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from trackbed.retrieval.errors import IndexMismatch, IndexMissing, RetrievalError
from trackbed.retrieval.index import read_deleted
from trackbed.retrieval.manifest import (
    FORMAT,
    MANIFEST,
    DeletedRecord,
    EmbedderRecord,
    FileRecord,
    Manifest,
    SegmentRecord,
    check_embedder,
    command,
    manifest_bytes,
    read_manifest,
    sync_folder,
)
from trackbed.retrieval.nearest import EXACT, make_lists
from trackbed.retrieval.searchable import searchable
from trackbed.retrieval.segment import LISTS, Segment, sha256
from trackbed.retrieval.segment_writer import SegmentWriter, merge
from trackbed.retrieval.types import Embedder, Known, Passage

LOCK = ".lock"
SEGMENT = "segment-"
FORMER = "generation-"  # the folders of the format before
NEXT = ".manifest-"
WAIT = 5.0  # seconds for another writer to be done
PART = 1 << 15  # passages of a segment under way, until it is written out and the next begun
RATIO = 3  # a segment is merged with smaller ones that have together a third of its rows
MOST = 10  # segments
HOLES = 3  # a segment of which a third is deleted is written anew
GROWN = 2  # times as many rows as centres were trained for: they are trained anew


@dataclass(eq=False, slots=True)
class _Part:
    """A segment, and which of its documents are deleted by now."""

    segment: Segment
    record: SegmentRecord
    deleted: NDArray[np.bool_]  # [documents]
    changed: bool = False

    @property
    def rows(self) -> int:
        """The passages that are left."""
        return int((~self.segment.rows_of(self.deleted)).sum())


@dataclass(eq=False, slots=True)
class _UnderWay:
    """The segment that is being written, and the documents in it that were replaced already."""

    writer: SegmentWriter
    sources: list[str] = field(default_factory=list)  # of its documents
    deleted: set[int] = field(default_factory=set)


class IndexWriter:
    """An ingestion under way: a `Writer` for the index in a folder.

    It is a context manager: what was not committed at its end is dropped. Raises RetrievalError when another
    writer is at work for longer than `wait` seconds, or the folder holds other things or cannot be written to,
    and IndexMismatch when the index is of another embedder or split otherwise, unless it is made `anew`.
    """

    def __init__(
        self,
        path: Path,
        embedder: Embedder | EmbedderRecord,
        chunking: Mapping[str, int],
        *,
        anew: bool = False,
        wait: float = WAIT,
    ) -> None:
        self.path = path
        self._embedder = EmbedderRecord.of(embedder)
        self._chunking = dict(chunking)
        self._stack = contextlib.ExitStack()
        self._made: list[str] = []  # the segments of this writer
        with _told(path), contextlib.ExitStack() as stack:
            path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(path, wait))
            if others := [name for name in os.listdir(path) if not _ours(name)]:
                raise RetrievalError(
                    f"{path} holds other things than an index, such as {sorted(others)[0]!r}; name another folder"
                )
            self._before = _manifest_to_change(path, self._embedder, self._chunking, anew=anew)
            _tidy(path, self._before)
            self._parts = [] if anew or not self._before else _opened(path, self._before)
            self._stack = stack.pop_all()
        self._dropped = bool(anew and self._before and self._before.segments)
        self._known: dict[str, Known] = {}
        self._places: dict[str, tuple[_Part | _UnderWay, int]] = {}
        for part in self._parts:
            for number, (source, known) in enumerate(part.segment.documents()):
                if not part.deleted[number]:
                    self._known[source] = known
                    self._places[source] = (part, number)
        self._added: list[_Part] = []
        self._under_way: _UnderWay | None = None

    def __enter__(self) -> "IndexWriter":
        return self

    def __exit__(self, *error: object) -> None:
        if self._under_way:
            self._under_way.writer.abandon()
        with contextlib.suppress(RetrievalError):
            _tidy(self.path, _manifest_or_none(self.path))
        self._stack.close()

    def known(self) -> Mapping[str, Known]:
        """The documents that the index holds, by source."""
        return dict(self._known)

    def put(self, source: str, known: Known, passages: Sequence[Passage], vectors: NDArray[np.float32]) -> None:
        """Add a document, or put it in place of the one of that source. `vectors`: [passages, dimension]."""
        if vectors.shape != (len(passages), self._embedder.dimension):
            raise ValueError(f"{vectors.shape} vectors for {len(passages)} passages of {self._embedder.dimension}")
        self.delete(source)
        with _told(self.path):
            if self._under_way is None:
                self._under_way = _UnderWay(SegmentWriter(self._new_folder(), self._embedder.dimension))
            texts = [searchable(passage) for passage in passages]
            number = self._under_way.writer.add(source, known, passages, texts, vectors)
            self._under_way.sources.append(source)
            self._known[source] = known
            self._places[source] = (self._under_way, number)
            if self._under_way.writer.rows >= PART:
                self._finish_part()

    def move(self, source: str, root: str) -> None:
        """Say that a document comes from another root now."""
        part, number = self._places[source]
        assert isinstance(part, _Part)
        segment, known = part.segment, self._known[source]
        first = int(segment.firsts[number])
        rows = range(first, first + known.passages)
        passages = [segment.passage(row, 0.0) for row in rows]
        self.put(source, replace(known, root=root), passages, segment.vectors[rows.start : rows.stop])

    def delete(self, source: str) -> None:
        """Take a document out, if it is there."""
        if source not in self._places:
            return
        part, number = self._places.pop(source)
        del self._known[source]
        if isinstance(part, _UnderWay):
            part.deleted.add(number)
        else:
            part.deleted[number] = part.changed = True

    def commit(self, *, compact: bool = False) -> None:
        """Make it all count, in one step; `compact` merges all segments into one without what was deleted.

        Raises RetrievalError when it cannot be written; then what was there is there still.
        """
        with _told(self.path):
            self._finish_part()
            self._merge_parts(compact=compact)
            kept = [part.record for part in self._parts]
            changed = self._dropped or any(part.changed for part in self._parts)
            if self._before and not changed and kept == list(self._before.segments):
                return
            self._replace(tuple(self._recorded(part) for part in self._parts))

    def _finish_part(self) -> None:
        """Write out the segment under way, so that it can be read."""
        if self._under_way is None:
            return
        under_way, self._under_way = self._under_way, None
        try:
            record = under_way.writer.finish()
        except BaseException:
            under_way.writer.abandon()
            raise
        part = self._open(record)
        part.deleted[list(under_way.deleted)] = part.changed = bool(under_way.deleted)
        self._added.append(part)
        for number, source in enumerate(under_way.sources):
            if number not in under_way.deleted:
                self._places[source] = (part, number)

    def _merge_parts(self, *, compact: bool) -> None:
        """Merge what should be, and give large segments their lists. What was added becomes one segment at least."""
        parts = [part for part in (*self._parts, *self._added) if not part.deleted.all()]
        groups = [[part] for part in parts if part not in self._added]
        if added := [part for part in parts if part in self._added]:
            groups.append(added)
        groups.sort(key=lambda group: -sum(part.rows for part in group))
        chosen = len(groups) if compact else _to_merge([sum(part.rows for part in group) for group in groups])
        merged = [part for group in groups[len(groups) - chosen :] for part in group]
        rest = groups[: len(groups) - chosen]
        # In the order in which they came, so that the order of rows is that of ingestion.
        joined = [*rest, sorted(merged, key=parts.index)] if merged else rest
        self._parts = [self._settled(group, compact=compact) for group in joined]

    def _settled(self, group: Sequence[_Part], *, compact: bool) -> _Part:
        """One part of these; without the deleted documents where these are many, or wherever it is written anew."""
        part = max(group, key=lambda part: part.record.rows)
        deleted = part.record.rows - part.rows
        if len(group) > 1 or deleted > part.record.rows // HOLES or (compact and part.deleted.any()):
            record = merge(self._new_folder(), [(one.segment, one.deleted) for one in group])
            return self._with_lists(self._open(record), part)
        return self._with_lists(part, part)

    def _with_lists(self, part: _Part, before: _Part) -> _Part:
        """The part with lists where it is large; with the centres of `before` if these were made for about as much."""
        if part.record.rows <= EXACT or part.record.lists:
            return part
        import faiss

        old = before.record.lists
        known = (before.segment.lists, old) if old and part.record.rows <= GROWN * old.trained else None
        lists, made = make_lists(part.segment.vectors, known)
        file = self.path / part.record.name / LISTS
        faiss.write_index(lists, str(file))
        _sync(file)
        written = FileRecord(bytes=file.stat().st_size, sha256=sha256(file))
        files = {**part.record.files, LISTS: written}
        return self._open(part.record.model_copy(update={"files": files, "lists": made}))

    def _open(self, record: SegmentRecord) -> _Part:
        segment = Segment(self.path, record, self._embedder.dimension)
        return _Part(segment, record, np.zeros(record.documents, dtype=np.bool_))

    def _recorded(self, part: _Part) -> SegmentRecord:
        """The record of a part, with its marks of deletion on the disk."""
        if not part.changed:
            return part.record
        folder = self.path / part.record.name
        name = f"deleted-{secrets.token_hex(8)}"
        bits = np.packbits(part.deleted, bitorder="little").tobytes()
        _write(folder / name, bits)
        sync_folder(folder)
        deleted = DeletedRecord(
            name=name,
            file=FileRecord(bytes=len(bits), sha256=hashlib.sha256(bits).hexdigest()),
            documents=int(part.deleted.sum()),
            rows=part.record.rows - part.rows,
        )
        return part.record.model_copy(update={"deleted": deleted})

    def _replace(self, segments: tuple[SegmentRecord, ...]) -> None:
        manifest = Manifest(
            format=FORMAT,
            generation=self._before.generation + 1 if self._before else 1,
            created=datetime.now(UTC),
            embedder=self._embedder,
            chunking=self._chunking,
            segments=segments,
        )
        # All that the manifest speaks of is on the disk before the manifest itself counts.
        written = self.path / f"{NEXT}{secrets.token_hex(8)}"
        _write(written, manifest_bytes(manifest))
        sync_folder(self.path)
        os.replace(written, self.path / MANIFEST)
        sync_folder(self.path)
        self._before = manifest

    def _new_folder(self) -> Path:
        return self.path / f"{SEGMENT}{secrets.token_hex(8)}"


def _to_merge(sizes: Sequence[int]) -> int:
    """How many of the smallest segments to merge into one; sizes are in falling order. 0: none.

    From the smallest up, each is merged that has not well more rows than those below it together. So sizes grow
    by a factor, there are few, and a row is written again only when it comes to be in a segment a third larger.
    """
    chosen, rows = 1, sizes[-1] if sizes else 0
    for place in range(len(sizes) - 2, -1, -1):
        if sizes[place] > RATIO * rows and place < MOST - 1:
            break
        chosen += 1
        rows += sizes[place]
    return chosen if chosen > 1 else 0


def _manifest_to_change(
    path: Path, embedder: EmbedderRecord, chunking: Mapping[str, int], *, anew: bool
) -> Manifest | None:
    """The manifest of the index that is there. Raises IndexMismatch where it cannot be added to."""
    if anew:
        return _manifest_or_none(path)
    try:
        manifest = read_manifest(path)
    except IndexMissing:
        return None
    check_embedder(path, manifest, embedder)
    if manifest.chunking != dict(chunking):
        raise IndexMismatch(
            f"the index at {path} was split with {_words(manifest.chunking)}, and {_words(chunking)} is asked for; "
            f"use the former, or make it anew: {command(path, anew=True)}"
        )
    return manifest


def _manifest_or_none(path: Path) -> Manifest | None:
    """The manifest, where there is one that can be read."""
    try:
        return read_manifest(path)
    except RetrievalError:
        return None


def _opened(path: Path, manifest: Manifest) -> list[_Part]:
    parts = []
    for record in manifest.segments:
        deleted = read_deleted(path, record)
        segment = Segment(path, record, manifest.embedder.dimension)
        parts.append(_Part(segment, record, np.zeros(record.documents, np.bool_) if deleted is None else deleted))
    return parts


def _tidy(path: Path, manifest: Manifest | None) -> None:
    """Remove what does not count: what was replaced, and what a crash has left. Who has it open keeps it."""
    named = {record.name: record for record in manifest.segments} if manifest else {}
    if manifest is None and (path / MANIFEST).exists():
        return  # what cannot be read may still be somebody's index
    for entry in list(os.scandir(path)):
        if entry.name.startswith(NEXT):
            Path(entry.path).unlink(missing_ok=True)
        elif entry.name.startswith((SEGMENT, FORMER)) and entry.name not in named:
            shutil.rmtree(entry.path, ignore_errors=True)
        elif record := named.get(entry.name):
            kept = {*record.files, record.deleted.name if record.deleted else ""}
            for file in list(os.scandir(entry.path)):
                if file.name not in kept:
                    Path(file.path).unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path, wait: float) -> Iterator[None]:
    """One writer at a time. A process that dies gives the lock back. Raises RetrievalError after `wait` seconds."""
    lock = path / LOCK
    with lock.open("a+b") as file:
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise RetrievalError(
                        f"{path} is being written to by another process{_owner(file)}; try again when it is done "
                        f"(it holds the lock {lock})"
                    ) from None
                time.sleep(0.05)
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        yield


def _owner(file: BinaryIO) -> str:
    file.seek(0)
    number = file.read(20)
    return f", {number.decode()}" if number.isdigit() else ""


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Make of what the disk says an error that names the index."""
    try:
        yield
    # What faiss cannot write is a RuntimeError.
    except (OSError, RuntimeError) as error:
        raise RetrievalError(f"the index at {path} could not be written: {error}") from error


def _write(file: Path, data: bytes) -> None:
    with file.open("xb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _ours(name: str) -> bool:
    return name == MANIFEST or name.startswith((".", SEGMENT, FORMER))


def _words(chunking: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in chunking.items())
