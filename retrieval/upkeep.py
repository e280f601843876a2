"""Looking after an index: what it holds, whether its files are whole, and taking out documents or what was deleted."""

import difflib
import fnmatch
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trackbed.retrieval.errors import RetrievalError
from trackbed.retrieval.index import Index
from trackbed.retrieval.manifest import MANIFEST, FileRecord, Manifest, read_manifest
from trackbed.retrieval.segment import sha256
from trackbed.retrieval.types import Writer
from trackbed.retrieval.writer import WAIT, IndexWriter

WILD = "*?["


@dataclass(frozen=True, slots=True)
class Described:
    """What an index is, and what it takes."""

    manifest: Manifest
    bytes: int  # of its files
    roots: dict[str, int]  # documents by the folder or file that they came from


def describe(path: Path) -> Described:
    """What the index at `path` holds. Raises IndexMissing, IndexMismatch and RetrievalError."""
    index = Index.open(path)
    roots: Counter[str] = Counter()
    for segment, deleted in zip(index.segments, index.deleted, strict=True):
        for number, (_, known) in enumerate(segment.documents()):
            if deleted is None or not deleted[number]:
                roots[known.root] += 1
    size = (path / MANIFEST).stat().st_size + sum(record.bytes for _, record in _files(index.manifest))
    return Described(index.manifest, size, dict(sorted(roots.items())))


def verify(path: Path) -> tuple[str, ...]:
    """Read every file of the index, and name those that are missing or not as they were written; none: it is whole.

    Raises IndexMissing, IndexMismatch, and RetrievalError when its manifest is damaged.
    """
    while True:
        manifest = read_manifest(path)
        wrong = tuple(
            f"{path / name}: {why}" for name, record in _files(manifest) if (why := _wrong(path / name, record))
        )
        # A writer may have taken files away meanwhile; then there is a new manifest to go by.
        if not wrong or read_manifest(path).generation == manifest.generation:
            return wrong


def compact(path: Path, wait: float = WAIT) -> None:
    """Write the index anew as one segment, without what was deleted. Nothing is embedded. Raises RetrievalError."""
    with _changing(path, wait) as writer:
        writer.commit(compact=True)


def delete(path: Path, sources: Sequence[str], wait: float = WAIT) -> tuple[str, ...]:
    """Take documents out, by their source or by a pattern such as drafts/*. Gives their sources.

    Raises RetrievalError, and deletes nothing, when one of them finds none.
    """
    with _changing(path, wait) as writer:
        return take_out(writer, sources, f"the index at {path}")


def take_out(writer: Writer, sources: Sequence[str], index: str) -> tuple[str, ...]:
    """The same, for any writer; `index` is what messages call it."""
    known = sorted(writer.known())
    found: set[str] = set()
    for source in sources:
        matching = [source] if source in known else []
        if not matching and any(mark in source for mark in WILD):
            matching = [name for name in known if fnmatch.fnmatchcase(name, source)]
        if not matching:
            near = difflib.get_close_matches(source, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise RetrievalError(f"{index} has no document {source!r}{hint}")
        found.update(matching)
    for source in found:
        writer.delete(source)
    writer.commit()
    return tuple(sorted(found))


def _changing(path: Path, wait: float) -> IndexWriter:
    """A writer that leaves the index as it was made."""
    manifest = read_manifest(path)
    return IndexWriter(path, manifest.embedder, manifest.chunking, wait=wait)


def _files(manifest: Manifest) -> list[tuple[str, FileRecord]]:
    """The files of an index beside its manifest."""
    found = []
    for segment in manifest.segments:
        found += [(f"{segment.name}/{name}", record) for name, record in segment.files.items()]
        if segment.deleted:
            found.append((f"{segment.name}/{segment.deleted.name}", segment.deleted.file))
    return found


def _wrong(file: Path, record: FileRecord) -> str:
    """What is wrong with a file; empty where nothing is."""
    try:
        size = os.stat(file).st_size
        if size != record.bytes:
            return f"{size} bytes, and {record.bytes} were written"
        return "" if sha256(file) == record.sha256 else "its bytes are not those that were written"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
