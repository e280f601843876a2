"""An index in a folder, one generation of it, opened for reading.

It is a handful of segments and, for each, the documents that were deleted since. What is found is a row: a number that
means a passage as long as this generation is open. It goes on answering when a writer has made the next generation.
Nothing here embeds, reads files of documents or writes.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from trackbed.retrieval.errors import RetrievalError
from trackbed.retrieval.manifest import Manifest, SegmentRecord, command, damaged, read_manifest
from trackbed.retrieval.nearest import Hits, Mask, best, nearest, similarity
from trackbed.retrieval.segment import Segment, sha256
from trackbed.retrieval.types import ALLOW, Passage, Query
from trackbed.retrieval.words import analyzer, idf, norms, split

REMEMBERED = 32  # answers to who may read what, for a generation
TRIES = 20  # at opening an index that a writer changes all the time

Allowed = tuple[Mask | None, ...]  # for each segment the rows that may be found; None: all of them
Deleted = tuple[NDArray[np.bool_] | None, ...]  # for each segment the documents that are in it no more; None: none

__all__ = ["Allowed", "Hits", "Index"]


class Index:
    """A generation of an index. It may be used from any thread."""

    def __init__(self, path: Path, manifest: Manifest, segments: Sequence[Segment], deleted: Deleted) -> None:
        self.path = path
        self.manifest = manifest
        self.segments = tuple(segments)
        self.deleted = deleted
        self._live: Allowed = tuple(
            None if marks is None else Mask.of(~segment.rows_of(marks))
            for segment, marks in zip(segments, deleted, strict=True)
        )
        self._firsts = np.cumsum([0, *(segment.record.rows for segment in segments)])
        self._answers: OrderedDict[object, Allowed] = OrderedDict()
        self._lock = Lock()
        words = sum(self._live_words(n) for n in range(len(segments)))
        mean = words / max(1, manifest.passages)
        self._norms = [norms(segment.words.lengths, mean) for segment in segments]

    @classmethod
    def open(cls, path: Path, before: "Index | None" = None) -> "Index":
        """The index at `path` as it is now; segments that are open in `before` are not opened again.

        Raises IndexMissing, IndexMismatch when it is of another format, and RetrievalError when a file is missing
        or is seen to be damaged. `verify` reads all.
        """
        opened = {segment.record.name: segment for segment in before.segments} if before else {}
        manifest = read_manifest(path)
        for _ in range(TRIES):
            try:
                return cls._open(path, manifest, opened)
            except FileNotFoundError as error:
                # A writer may have taken away what the manifest named; then there is a new one.
                former, manifest = manifest, read_manifest(path)
                if former.generation == manifest.generation:
                    raise RetrievalError(
                        f"{error.filename} is missing; make the index anew: {command(path, anew=True)}"
                    ) from None
        raise RetrievalError(f"the index at {path} was changed {TRIES} times while it was being opened; try again")

    @classmethod
    def _open(cls, path: Path, manifest: Manifest, opened: dict[str, Segment]) -> "Index":
        segments = []
        deleted = []
        for record in manifest.segments:
            segment = opened.get(record.name) or Segment(path, record, manifest.embedder.dimension)
            segments.append(segment)
            deleted.append(read_deleted(path, record))
        return cls(path, manifest, segments, tuple(deleted))

    def __len__(self) -> int:
        """How many passages can be found."""
        return self.manifest.passages

    def allowed(self, query: Query) -> Allowed | None:
        """The rows that may be found for a query; None where these are all."""
        held = [
            ALLOW in segment.record.keys or bool(query.filter)  # without either, all may be found
            for segment in self.segments
        ]
        if not any(held):
            return None
        asked = (query.principals, tuple(sorted((key, _mark(said)) for key, said in query.filter.items())))
        with self._lock:
            if asked in self._answers:
                self._answers.move_to_end(asked)
                return self._answers[asked]
        answer = tuple(
            _both(live, segment.facts.allowed(query)) if needed else live
            for segment, live, needed in zip(self.segments, self._live, held, strict=True)
        )
        with self._lock:
            self._answers[asked] = answer
            while len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        return answer

    def by_vector(self, vectors: NDArray[np.float32], k: int, allowed: Allowed | None) -> Hits:
        """The `k` rows nearest to one of these vectors, by cosine: [vectors, dimension]."""
        found = [
            nearest(
                np.ascontiguousarray(vectors, dtype=np.float32),
                k,
                segment.vectors,
                mask,
                segment.lists,
                segment.record.lists.probes if segment.record.lists else 0,
            )
            for segment, mask in zip(self.segments, allowed or self._live, strict=True)
        ]
        return self._merged(found, k)

    def by_words(self, texts: Sequence[str], k: int, allowed: Allowed | None) -> Hits:
        """The `k` rows with the most BM25 for one of these texts; only such as hold one of their words."""
        weighed = [self._weights(text) for text in texts]
        found = []
        for n, mask in enumerate(allowed or self._live):
            scores = self._scored(n, weighed[0] if weighed else {})
            for weights in weighed[1:]:
                np.maximum(scores, self._scored(n, weights), out=scores)
            if mask is not None:
                scores *= mask.rows
            found.append(_top(scores, k))
        return self._merged(found, k)

    def similarity(self, vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The cosine of each of these rows to the vector that it is most like: [rows]."""
        scores = np.empty(len(rows), dtype=np.float32)
        for n, places, own in self._by_segment(rows):
            scores[places] = similarity(np.asarray(vectors, dtype=np.float32), self.segments[n].vectors, own)
        return scores

    def word_scores(self, texts: Sequence[str], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The BM25 of each of these rows for the text that it suits best: [rows]."""
        scores = np.zeros(len(rows), dtype=np.float32)
        for text in texts:
            weights = self._weights(text)
            for n, places, own in self._by_segment(rows):
                scores[places] = np.maximum(scores[places], self._scored_rows(n, weights, own))
        return scores

    def word_limit(self, texts: Sequence[str]) -> float:
        """The BM25 that no row can reach for any of these texts."""
        return max((sum(self._weights(text).values()) for text in texts), default=0.0)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of these rows: [rows, dimension]."""
        found = np.empty((len(rows), self.manifest.embedder.dimension), dtype=np.float32)
        for n, places, own in self._by_segment(rows):
            found[places] = self.segments[n].vectors[own]
        return found

    def passages(self, hits: Hits) -> tuple[Passage, ...]:
        """The passages of these rows, in their order, with their scores. Raises RetrievalError where one is damaged."""
        found: list[Passage] = []
        for row, score in zip(hits.rows.tolist(), hits.scores.tolist(), strict=True):
            n = self._segment_of(row)
            found.append(self.segments[n].passage(row - int(self._firsts[n]), score))
        return tuple(found)

    def filled(self, hits: Hits, k: int, allowed: Allowed | None) -> Hits:
        """The same hits and, where these are fewer than `k`, other rows that may be found, with the score 0."""
        missing = k - len(hits.rows)
        others: list[NDArray[np.int64]] = []
        for n, mask in enumerate(allowed or self._live):
            if missing < 1:
                break
            rows = np.arange(self.segments[n].record.rows) if mask is None else np.flatnonzero(mask.rows)
            rows = rows[: missing + len(hits.rows)] + self._firsts[n]
            others.append(rows[~np.isin(rows, hits.rows)][:missing])
            missing -= len(others[-1])
        rows = np.concatenate([hits.rows, *others]).astype(np.int64)
        return Hits(rows, np.append(hits.scores, np.zeros(len(rows) - len(hits.rows))).astype(np.float32))

    def around(self, passage: Passage, before: int, after: int) -> tuple[Passage, ...]:
        """A passage with those before and after it in its document, in order; nothing where it is there no more."""
        if (place := self._place(passage)) is None:
            return ()
        n, document, row = place
        segment = self.segments[n]
        first, end = int(segment.firsts[document]), int(segment.ends[document])
        rows = range(max(first, row - before), min(end, row + after + 1))
        return tuple(segment.passage(one, passage.score if one == row else 0.0) for one in rows)

    def vectors_of(self, passages: Sequence[Passage]) -> NDArray[np.float32]:
        """The vectors of passages that were found: [passages, dimension]; zeros for one that is there no more."""
        found = np.zeros((len(passages), self.manifest.embedder.dimension), dtype=np.float32)
        for number, passage in enumerate(passages):
            if (place := self._place(passage)) is not None:
                found[number] = self.segments[place[0]].vectors[place[2]]
        return found

    def _place(self, passage: Passage) -> tuple[int, int, int] | None:
        """Segment, document and row in the segment of a passage; None where it is there no more."""
        for n, segment in enumerate(self.segments):
            for document in segment.documents_called(passage.source):
                first, end = int(segment.firsts[document]), int(segment.ends[document])
                live = self._live[n]
                if first == end or (live is not None and not live.rows[first]):
                    continue
                spans = segment.rows[first:end]
                for place in np.flatnonzero((spans["start"] == passage.start) & (spans["end"] == passage.end)).tolist():
                    if segment.passage(first + place, 0).text == passage.text:
                        return n, document, first + place
        return None

    def _live_words(self, n: int) -> int:
        live = self._live[n]
        if live is None:
            return self.segments[n].record.words
        return int(self.segments[n].words.lengths[live.rows].sum())

    def _weights(self, text: str) -> dict[str, float]:
        """What each of the text's terms that the index holds counts, for all the times that it is in the text."""
        weights: dict[str, float] = {}
        for term in (term for word in split(text) for term in analyzer().terms(word)):
            weights[term] = weights.get(term, 0) + 1
        for term in list(weights):
            if not (holding := self._holding(term)):
                del weights[term]
                continue
            weights[term] *= idf(self.manifest.passages, holding)
        return weights

    def _holding(self, term: str) -> int:
        """How many passages hold a term."""
        held = 0
        for segment, live in zip(self.segments, self._live, strict=True):
            rows, _ = segment.words.postings(term)
            held += len(rows) if live is None else int(np.count_nonzero(live.rows[rows]))
        return held

    def _scored(self, n: int, weights: dict[str, float]) -> NDArray[np.float32]:
        """The BM25 of every row of a segment: [rows]."""
        scores = np.zeros(self.segments[n].record.rows, dtype=np.float32)
        for term, weight in weights.items():
            rows, counts = self.segments[n].words.postings(term)
            counted = counts.astype(np.float32)
            scores[rows] += np.float32(weight) * (counted / (counted + self._norms[n][rows]))
        return scores

    def _scored_rows(self, n: int, weights: dict[str, float], own: NDArray[np.int64]) -> NDArray[np.float32]:
        """The BM25 of some rows of a segment: [rows]."""
        scores = np.zeros(len(own), dtype=np.float32)
        for term, weight in weights.items():
            rows, counts = self.segments[n].words.postings(term)
            if not len(rows):
                continue
            places = np.minimum(np.searchsorted(rows, own), len(rows) - 1)
            counted = np.where(rows[places] == own, counts[places], 0).astype(np.float32)
            scores += np.float32(weight) * (counted / (counted + self._norms[n][own]))
        return scores

    def _merged(self, found: Sequence[Hits], k: int) -> Hits:
        """The best of what each segment found."""
        rows = [hits.rows + first for hits, first in zip(found, self._firsts.tolist(), strict=False)]
        scores = [hits.scores for hits in found]
        return best(np.concatenate([np.empty(0, np.int64), *rows]), np.concatenate([_NONE, *scores]), k)

    def _segment_of(self, row: int) -> int:
        if not 0 <= row < int(self._firsts[-1]):
            raise IndexError(f"row {row} of an index of {int(self._firsts[-1])}")
        return int(np.searchsorted(self._firsts, row, side="right")) - 1

    def _by_segment(self, rows: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """For each segment that has some of these rows: which of them, and their numbers in it."""
        rows = np.asarray(rows, dtype=np.int64)
        of = np.searchsorted(self._firsts, rows, side="right") - 1
        return [(n, places := np.flatnonzero(of == n), rows[places] - self._firsts[n]) for n in np.unique(of).tolist()]


_NONE = np.empty(0, dtype=np.float32)


def read_deleted(path: Path, record: SegmentRecord) -> NDArray[np.bool_] | None:
    """Which of a segment's documents were deleted: [documents]; None where none was."""
    if record.deleted is None:
        return None
    file = path / record.name / record.deleted.name
    if sha256(file) != record.deleted.file.sha256:
        raise damaged(path, file)
    bits = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    return np.unpackbits(bits, count=record.documents, bitorder="little").astype(np.bool_)


def _both(live: Mask | None, rows: NDArray[np.bool_]) -> Mask:
    return Mask.of(rows if live is None else rows & live.rows)


def _mark(condition: tuple[object, ...]) -> str:
    """Tells conditions apart, also those that are equal as Python has it, such as 1 and True."""
    return f"{type(condition).__name__}{tuple(condition)!r}"


def _top(scores: NDArray[np.float32], k: int) -> Hits:
    """The `k` best rows with any score. First a bound, from the best of each stretch, so that few rows are sorted."""
    stretch = 256
    k = min(k, len(scores))
    if k < 1:
        return best(np.empty(0, np.int64), _NONE, 0)
    whole = len(scores) - len(scores) % stretch
    tops = scores[:whole].reshape(-1, stretch).max(axis=1) if whole else _NONE
    least = np.partition(tops, len(tops) - k)[len(tops) - k] if k < len(tops) else np.float32(0)
    rows = np.flatnonzero(scores >= least) if least > 0 else np.flatnonzero(scores > 0)
    return best(rows, scores[rows], k)
