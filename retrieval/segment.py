"""A segment: a folder of files that never change, opened for reading.

| file | holds |
|---|---|
| passages.jsonl, passages.rows | text, headings, pages and gap, a line each; where each is, its span and its facts |
| facts.jsonl, facts.rows | the different pairs of source and metadata that passages have |
| documents.jsonl, documents.rows | source, digest and root, a line each; each document's first row |
| vectors.f32 | the vectors, as they came from the embedder |
| vectors.faiss | of a large segment: lists of compressed vectors, to find the nearest without reading all |
| words.* | the different words, the rows that hold each and how often, and how long each row is |

All is mapped when it is opened, so that it stays readable when a writer has taken the files away. A line is checked
against its checksum when it is read. Nothing here knows generations, or which documents were deleted.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackbed.retrieval.facts import Facts
from trackbed.retrieval.manifest import SegmentRecord, damaged
from trackbed.retrieval.types import Known, Passage, Value
from trackbed.retrieval.words import Words

PASSAGE = np.dtype([("at", "<u8"), ("start", "<i8"), ("end", "<i8"), ("fact", "<i4"), ("crc", "<u4")])
FACT = np.dtype([("at", "<u8"), ("crc", "<u4"), ("spare", "<u4")])
DOCUMENT = np.dtype([("at", "<u8"), ("hash", "<u8"), ("first", "<i8"), ("crc", "<u4"), ("spare", "<u4")])
TERM = np.dtype([("end", "<u8"), ("last", "<u8")])  # where its letters, and its postings, end

# The files of a segment, and the bytes of an entry where entries have one length.
FILES: Mapping[str, int] = {
    "passages.jsonl": 0,
    "passages.rows": PASSAGE.itemsize,
    "facts.jsonl": 0,
    "facts.rows": FACT.itemsize,
    "documents.jsonl": 0,
    "documents.rows": DOCUMENT.itemsize,
    "vectors.f32": 4,
    "words.text": 0,
    "words.terms": TERM.itemsize,
    "words.rows": 4,
    "words.counts": 2,
    "words.lengths": 4,
}
LISTS = "vectors.faiss"


class Segment:
    """A segment that can be read."""

    def __init__(self, index: Path, record: SegmentRecord, dimension: int) -> None:
        """Open all files. Raises FileNotFoundError, and RetrievalError for a file that has not its length or digest."""
        self._index = index
        self.record = record
        self.folder = index / record.name
        self._lines = {kind: self._map(f"{kind}.jsonl", np.uint8) for kind in ("passages", "facts", "documents")}
        self.rows = self._map("passages.rows", PASSAGE, record.rows)
        self._fact_rows = self._map("facts.rows", FACT)
        self._documents = self._map("documents.rows", DOCUMENT, record.documents)
        self.vectors = self._map("vectors.f32", np.float32, record.rows * dimension).reshape(record.rows, dimension)
        terms = self._map("words.terms", TERM, record.terms)
        postings = int(terms["last"][-1]) if len(terms) else 0
        self.words = Words(
            self._map("words.text", np.uint8),
            terms["end"],
            np.concatenate([np.zeros(1, np.int64), terms["last"].astype(np.int64)]),
            self._map("words.rows", np.int32, postings),
            self._map("words.counts", np.uint16, postings),
            self._map("words.lengths", np.uint32, record.rows),
        )
        # Any: an index of faiss, which has no type that mypy knows
        self.lists: Any = self._open_lists() if record.lists else None

    @property
    def firsts(self) -> NDArray[np.int64]:
        """The first row of each document: [documents]. Its rows follow each other."""
        return self._documents["first"]

    @property
    def ends(self) -> NDArray[np.int64]:
        """The row after the last of each document: [documents]."""
        return np.append(self.firsts[1:], self.record.rows)[: self.record.documents]

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """What sources are found by: [documents]."""
        return self._documents["hash"]

    @cached_property
    def facts(self) -> Facts:
        """What its passages say of themselves, by key; read whole when a filter first asks.

        Raises RetrievalError when it is not what was written: who may read a passage is part of it.
        """
        held = {"facts.jsonl": self._lines["facts"], "facts.rows": self._fact_rows, "passages.rows": self.rows}
        for name, mapped in held.items():
            # Of what is mapped, since the file may be gone.
            if hashlib.sha256(mapped.view(np.uint8).data).hexdigest() != self.record.files[name].sha256:
                raise damaged(self._index, self.folder / name)
        return Facts([self.fact(number) for number in range(len(self._fact_rows))], self.rows["fact"])

    def passage(self, row: int, score: float) -> Passage:
        """A row as it was put, with a score. Raises RetrievalError where it is damaged."""
        entry = self.rows[row]
        text, heading, page, gap, pages = self._line("passages", row, self.rows)
        source, metadata = self.fact(int(entry["fact"]))
        start, end = int(entry["start"]), int(entry["end"])
        return Passage(text, source, start, end, score, heading, page, metadata, tuple(pages), gap)

    def fact(self, number: int) -> tuple[str, dict[str, Value]]:
        """A source, and metadata of its passages."""
        source, metadata = self._line("facts", number, self._fact_rows)
        return source, {key: tuple(said) if isinstance(said, list) else said for key, said in metadata.items()}

    def document(self, number: int) -> tuple[str, Known]:
        """A document's source, and what else is known of it."""
        source, digest, root = self._line("documents", number, self._documents)
        first = int(self.firsts[number])
        last = int(self.firsts[number + 1]) if number + 1 < self.record.documents else self.record.rows
        return source, Known(digest, root, last - first)

    def documents(self) -> Iterator[tuple[str, Known]]:
        """All of its documents, in order."""
        passages = (self.ends - self.firsts).tolist()
        lines = self._lines["documents"].tobytes().splitlines(keepends=True)
        if len(lines) != len(passages):
            raise damaged(self._index, self.folder / "documents.jsonl")
        for line, crc, count in zip(lines, self._documents["crc"].tolist(), passages, strict=True):
            source, digest, root = self._parsed("documents", line, crc)
            yield source, Known(digest, root, count)

    def documents_called(self, source: str) -> list[int]:
        """The documents of this source."""
        hashed = source_hash(source)
        first = int(np.searchsorted(self.hashes, hashed, sorter=self._by_hash))
        last = int(np.searchsorted(self.hashes, hashed, side="right", sorter=self._by_hash))
        candidates = (int(number) for number in self._by_hash[first:last])
        return [number for number in candidates if self.document(number)[0] == source]

    def rows_of(self, documents: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The rows of these documents, as a mask: [rows]."""
        return np.repeat(documents, self.ends - self.firsts)

    def raw(self, kind: str) -> tuple[NDArray[np.uint8], NDArray[np.void]]:
        """The lines of `passages`, `facts` or `documents` as bytes, and where they are."""
        return self._lines[kind], {"passages": self.rows, "facts": self._fact_rows, "documents": self._documents}[kind]

    @cached_property
    def _by_hash(self) -> NDArray[np.int64]:
        return np.argsort(self.hashes, kind="stable")

    def _line(self, kind: str, number: int, rows: NDArray[np.void]) -> Any:  # Any: a JSON value that we wrote
        first = int(rows["at"][number])
        last = int(rows["at"][number + 1]) if number + 1 < len(rows) else len(self._lines[kind])
        return self._parsed(kind, self._lines[kind][first:last].tobytes(), int(rows["crc"][number]))

    def _parsed(self, kind: str, line: bytes, crc: int) -> Any:
        if zlib.crc32(line) != crc:
            raise damaged(self._index, self.folder / f"{kind}.jsonl")
        return json.loads(line)

    # Any: of what is in the file
    def _map(self, name: str, kind: Any, count: int | None = None) -> NDArray[Any]:
        file = self.folder / name
        size = self.record.files[name].bytes if name in self.record.files else -1
        kind = np.dtype(kind)
        if file.stat().st_size != size or size % kind.itemsize or count not in (None, size // kind.itemsize):
            raise damaged(self._index, file)
        if not size:
            return np.empty(0, dtype=kind)
        # As a plain array: slices of a memmap are memmaps, which cost much more to make.
        return np.asarray(np.memmap(file, dtype=kind, mode="r"))

    def _open_lists(self) -> Any:
        import faiss

        file = self.folder / LISTS
        # What FAISS reads it trusts, so a damaged file could end the process.
        if LISTS not in self.record.files or sha256(file) != self.record.files[LISTS].sha256:
            raise damaged(self._index, file)
        try:
            lists = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise damaged(self._index, file) from error
        if (lists.d, lists.ntotal) != (self.vectors.shape[1], self.record.rows):
            raise damaged(self._index, file)
        return lists


def sha256(file: Path) -> str:
    """The digest of a file. Raises OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def source_hash(source: str) -> np.uint64:
    """Eight bytes of a source's digest."""
    digest = hashlib.blake2b(source.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))
