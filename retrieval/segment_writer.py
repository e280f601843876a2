"""New segments: of documents as they come, or of other segments without what was deleted.

Everything goes to the disk as it comes, and is there for good when `finish` or `merge` returns. What a document needs
in memory until then is its words' numbers, four bytes a word. Nothing here embeds, or decides when to merge.
"""

import contextlib
import hashlib
import json
import os
import zlib
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackbed.retrieval.manifest import FileRecord, SegmentRecord, sync_folder
from trackbed.retrieval.segment import DOCUMENT, FACT, FILES, PASSAGE, TERM, Segment, source_hash
from trackbed.retrieval.types import Known, Passage
from trackbed.retrieval.words import analyzer, posted, split, union

BLOCK = 1 << 24  # bytes, or postings, that are worked on at once
MOST_COUNTED = np.iinfo(np.uint16).max  # of one word in one row; more count as so many


class SegmentWriter:
    """A segment under way."""

    def __init__(self, folder: Path, dimension: int) -> None:
        folder.mkdir()
        self.folder = folder
        self.dimension = dimension
        self.rows = 0
        self.documents = 0
        self._files = _Files(folder)
        self._facts = 0
        self._keys: set[str] = set()
        self._forms = _Forms()
        self._words = array("i")  # the forms of all rows, one after the other
        self._lengths = array("I")  # in words, of each row

    def add(
        self, source: str, known: Known, passages: Sequence[Passage], texts: Sequence[str], vectors: NDArray[np.float32]
    ) -> int:
        """Add a document, whose passages are found by the words of `texts`. Gives its number in the segment."""
        line = _line([source, known.digest, known.root])
        at = self._files.add("documents.jsonl", line)
        entry = np.array([(at, source_hash(source), self.rows, zlib.crc32(line), 0)], dtype=DOCUMENT)
        self._files.add("documents.rows", entry.tobytes())
        entries = np.empty(len(passages), dtype=PASSAGE)
        facts: dict[bytes, int] = {}
        for i, (passage, text) in enumerate(zip(passages, texts, strict=True)):
            line = _line([passage.text, passage.heading, passage.page, passage.gap, passage.pages])
            at = self._files.add("passages.jsonl", line)
            fact = self._fact(facts, passage)
            entries[i] = (at, passage.start, passage.end, fact, zlib.crc32(line))
            words = list(map(self._forms.__getitem__, split(text)))
            self._words.extend(words)
            self._lengths.append(len(words))
        self._files.add("passages.rows", entries.tobytes())
        self._files.add("vectors.f32", np.ascontiguousarray(vectors, dtype="<f4").tobytes())
        self.rows += len(passages)
        self.documents += 1
        return self.documents - 1

    def finish(self) -> SegmentRecord:
        """Write the rest, and wait until all of it is on the disk."""
        names, tokens, lengths = self._counted()
        terms, rows, counts = posted(tokens, lengths)
        self._files.add("words.lengths", lengths.astype("<u4").tobytes())
        _write_terms(self._files, names, np.bincount(terms, minlength=len(names)))
        _write_postings(self._files, rows, counts)
        return SegmentRecord(
            name=self.folder.name,
            documents=self.documents,
            rows=self.rows,
            words=len(tokens),
            terms=len(names),
            keys=tuple(sorted(self._keys)),
            files=self._files.close(),
        )

    def abandon(self) -> None:
        """Close the files of a segment that is not to be."""
        self._files.abandon()

    def _counted(self) -> tuple[list[bytes], NDArray[np.int64], NDArray[np.int64]]:
        """The terms in order, the number of each term of all rows one after the other, and how many each row has."""
        analysed = [analyzer().terms(form) for form in self._forms]
        names = sorted({term.encode() for terms in analysed for term in terms})
        places = {name: place for place, name in enumerate(names)}
        numbers = np.array([places[term.encode()] for terms in analysed for term in terms], dtype=np.int64)
        sizes = np.array([len(terms) for terms in analysed], dtype=np.int64)
        words = np.frombuffer(self._words, dtype=np.int32)
        # Each word of a row gives the terms of its form: none, one, or several.
        each = sizes[words]
        ends = np.cumsum(each)
        within = np.arange(int(each.sum())) - np.repeat(ends - each, each)
        tokens = numbers[np.repeat((np.cumsum(sizes) - sizes)[words], each) + within]
        last = np.cumsum(np.frombuffer(self._lengths, dtype=np.uint32), dtype=np.int64)
        return names, tokens, np.diff(np.append(0, ends)[np.append(0, last)])

    def _fact(self, facts: dict[bytes, int], passage: Passage) -> int:
        line = _line([passage.source, dict(passage.metadata)])
        if line not in facts:
            at = self._files.add("facts.jsonl", line)
            self._files.add("facts.rows", np.array([(at, zlib.crc32(line), 0)], dtype=FACT).tobytes())
            self._keys.update(passage.metadata)
            facts[line] = self._facts
            self._facts += 1
        return facts[line]


def merge(folder: Path, parts: Sequence[tuple[Segment, NDArray[np.bool_]]]) -> SegmentRecord:
    """One segment of several, without the documents that are marked as deleted: each segment with its marks."""
    folder.mkdir()
    files = _Files(folder)
    try:
        kept = [(segment, ~deleted, ~segment.rows_of(deleted)) for segment, deleted in parts]
        rows = facts = 0
        for segment, documents, live in kept:
            renumbered, entries = _numbered(segment.rows["fact"], live, segment.raw("facts")[1], facts)
            _copy_lines(files, "facts", segment, entries)
            own = np.array(segment.rows[live])
            own["fact"] = renumbered
            _copy_lines(files, "passages", segment, live, own)
            sizes = (segment.ends - segment.firsts)[documents]
            listed = np.array(segment.raw("documents")[1][documents])
            listed["first"] = rows + np.cumsum(sizes) - sizes
            _copy_lines(files, "documents", segment, documents, listed)
            _copy(files, "vectors.f32", segment.vectors, live)
            _copy(files, "words.lengths", segment.words.lengths, live)
            rows += len(own)
            facts += int(entries.sum())
        words, terms = _merge_words(files, [(segment, live) for segment, _, live in kept])
        return SegmentRecord(
            name=folder.name,
            documents=sum(int(documents.sum()) for _, documents, _ in kept),
            rows=rows,
            words=words,
            terms=terms,
            keys=tuple(sorted({key for segment, _, _ in kept for key in segment.record.keys})),
            files=files.close(),
        )
    finally:
        files.abandon()


class _Forms(dict[str, int]):
    """Words as they are written, numbered as they come."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number


class _Files:
    """The files of a segment while they are written, each with its length and digest so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Each is closed by `close` or `abandon`.
        self._open = {name: (folder / name).open("xb", buffering=1 << 18) for name in FILES}
        self._sizes = dict.fromkeys(FILES, 0)
        self._digests = {name: hashlib.sha256() for name in FILES}

    def add(self, name: str, data: Any) -> int:  # Any: bytes, or a view of them
        """Write at the end of a file. Gives the place where it begins."""
        at = self._sizes[name]
        self._open[name].write(data)
        self._digests[name].update(data)
        self._sizes[name] = at + len(data)
        return at

    def size(self, name: str) -> int:
        """How long a file is so far."""
        return self._sizes[name]

    def close(self) -> dict[str, FileRecord]:
        """Wait until all is on the disk."""
        for file in self._open.values():
            file.flush()
        # At once: the disk takes hardly longer for all of them than for one.
        with ThreadPoolExecutor(len(self._open)) as pool:
            list(pool.map(os.fsync, (file.fileno() for file in self._open.values())))
        for file in self._open.values():
            file.close()
        sync_folder(self._folder)
        return {name: FileRecord(bytes=self._sizes[name], sha256=self._digests[name].hexdigest()) for name in FILES}

    def abandon(self) -> None:
        """Close what is open, whatever becomes of it."""
        for file in self._open.values():
            with contextlib.suppress(OSError):
                file.close()


def _line(value: list[Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _numbered(
    of: NDArray[np.int32], live: NDArray[np.bool_], facts: NDArray[np.void], first: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The facts of the live rows, numbered from `first` on without those that none of them has; and which these are."""
    used = np.zeros(len(facts), dtype=np.bool_)
    used[of[live]] = True
    return (first - 1 + np.cumsum(used))[of[live]], used


def _copy_lines(
    files: _Files, kind: str, segment: Segment, live: NDArray[np.bool_], entries: NDArray[np.void] | None = None
) -> None:
    """Copy the live lines, and the entries that say where they are; `entries`, where those of the segment change."""
    lines, listed = segment.raw(kind)
    entries = np.array(listed[live]) if entries is None else entries
    at = files.size(f"{kind}.jsonl")
    starts = listed["at"]
    ends = np.append(starts[1:], np.uint64(len(lines)))
    lengths = (ends - starts)[live] if len(listed) else starts[:0]
    for first, last in _runs(live):
        _copy_bytes(files, f"{kind}.jsonl", lines[int(starts[first]) : int(ends[last - 1])])
    entries["at"] = at + np.cumsum(lengths) - lengths
    files.add(f"{kind}.rows", entries.tobytes())


def _copy(files: _Files, name: str, values: NDArray[Any], live: NDArray[np.bool_]) -> None:
    for first, last in _runs(live):
        _copy_bytes(files, name, values[first:last].reshape(-1).view(np.uint8))


def _copy_bytes(files: _Files, name: str, data: NDArray[np.uint8]) -> None:
    for first in range(0, len(data), BLOCK):
        files.add(name, data[first : first + BLOCK].data)


def _runs(live: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """The stretches of rows that are live."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], live, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _merge_words(files: _Files, parts: Sequence[tuple[Segment, NDArray[np.bool_]]]) -> tuple[int, int]:
    """The words of several segments as those of one; a stretch of terms at a time. Gives how many words and terms."""
    names, places = union([segment.words.terms() for segment, _ in parts])
    firsts = np.cumsum([0, *(int(live.sum()) for _, live in parts)])
    numbers = [first - 1 + np.cumsum(live) for first, (_, live) in zip(firsts, parts, strict=False)]
    sizes = np.zeros(len(names), dtype=np.int64)
    for (segment, _), place in zip(parts, places, strict=True):
        sizes[place] += segment.words.sizes
    held = np.zeros(len(names), dtype=np.int64)
    for low, high in _stretches(sizes):
        found: list[tuple[NDArray[np.int64], ...]] = []
        for (segment, live), place, number in zip(parts, places, numbers, strict=True):
            words, starts = segment.words, segment.words.starts
            first, last = np.searchsorted(place, [low, high])
            here = slice(int(starts[first]), int(starts[last]))
            holding = words.rows[here]
            terms = np.repeat(place[first:last], words.sizes[first:last])
            keep = live[holding]
            found.append(
                (terms[keep], number[holding[keep]].astype(np.int64), words.counts[here][keep].astype(np.int64))
            )
        terms, rows, counts = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.argsort(terms, kind="stable")  # each part is in order, and has later rows than the one before
        held[low:high] = np.bincount(terms - low, minlength=high - low)
        _write_postings(files, rows[order], counts[order])
    names = [name for name, rows in zip(names, held.tolist(), strict=True) if rows]
    _write_terms(files, names, held[held > 0])
    return sum(int(segment.words.lengths[live].sum()) for segment, live in parts), len(names)


def _stretches(sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of terms that have together about as many postings as are worked on at once."""
    ends = np.cumsum(sizes)
    low = 0
    while low < len(sizes):
        before = int(ends[low - 1]) if low else 0
        high = max(low + 1, int(np.searchsorted(ends, before + BLOCK // 4, side="right")))
        yield low, high
        low = high


def _write_terms(files: _Files, names: Sequence[bytes], held: NDArray[np.int64]) -> None:
    entries = np.empty(len(names), dtype=TERM)
    entries["end"] = np.cumsum([len(name) for name in names]) if names else []
    entries["last"] = np.cumsum(held)
    files.add("words.text", b"".join(names))
    files.add("words.terms", entries.tobytes())


def _write_postings(files: _Files, rows: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
    files.add("words.rows", rows.astype("<i4").tobytes())
    files.add("words.counts", np.minimum(counts, MOST_COUNTED).astype("<u2").tobytes())
