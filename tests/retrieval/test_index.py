"""An index that is searched: whatever its segments and deletions, it finds what a plain look at every passage finds."""

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import bm25s
import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.fakes import WordEmbedder
from trackbed.retrieval.allowed import allowed
from trackbed.retrieval.index import Hits, Index
from trackbed.retrieval.nearest import Mask, make_lists, nearest
from trackbed.retrieval.searchable import searchable
from trackbed.retrieval.types import AnyOf, Between, Condition, Known, Passage, Query, Value
from trackbed.retrieval.upkeep import compact
from trackbed.retrieval.words import K1, B, analyzer, split
from trackbed.retrieval.writer import IndexWriter

EMBEDDER = WordEmbedder()
WORDS = [
    "rail",
    "boat",
    "steel",
    "water",
    "door",
    "cat",
    "dog",
    "train",
    "the",
    "of",
    "naïve",
    "仮名漢字",
    "snake_case",
]
NOBODY = frozenset[str]()
NO_HITS = Hits(np.empty(0, np.int64), np.empty(0, np.float32))
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
KEYS = st.sampled_from(["a", "b", "allow"])
SCALARS = st.one_of(st.sampled_from(["x", "y", "1"]), st.integers(0, 2), st.floats(0, 2), st.booleans())
VALUES = st.one_of(SCALARS, st.lists(st.sampled_from(["x", "staff"]), max_size=2).map(tuple))
METADATA = st.dictionaries(KEYS, VALUES, max_size=3)
CONDITIONS: st.SearchStrategy[Condition] = st.one_of(
    st.lists(SCALARS, max_size=2).map(tuple).map(AnyOf),
    st.builds(Between, st.none() | st.integers(0, 2), st.none() | st.floats(0, 2)),
    st.builds(Between, st.none() | st.sampled_from(["x", "y"])),
)
FILTERS = st.dictionaries(st.one_of(KEYS, st.just("source")), CONDITIONS, max_size=2)
PRINCIPALS = st.frozensets(st.sampled_from(["staff", "x"]))
Put = tuple[str, str, Mapping[str, Value]]  # source, text, metadata
# What is done to an index in turn, each with a commit of its own: documents that are put, and sources deleted.
CHANGES = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from("abcdefgh"), TEXTS, METADATA), max_size=4),
        st.lists(st.sampled_from("abcdefgh"), max_size=2),
    ),
    min_size=1,
    max_size=5,
)


def put(writer: IndexWriter, source: str, text: str, metadata: Mapping[str, Value] | None = None) -> list[Passage]:
    """A passage for each sentence of the text."""
    passages: list[Passage] = []
    start = 0
    for sentence in text.split(". "):
        passages.append(Passage(sentence, source, start, start + len(sentence), metadata=metadata or {}))
        start += len(sentence) + 2
    vectors = EMBEDDER.embed([searchable(passage) for passage in passages])
    digest = hashlib.sha256(text.encode()).hexdigest()
    writer.put(source, Known(digest, "/docs", len(passages)), passages, vectors)
    return passages


@contextmanager
def changing(path: Path) -> Iterator[IndexWriter]:
    with IndexWriter(path, EMBEDDER, {"size": 9}) as writer:
        yield writer
        writer.commit()


@contextmanager
def folder() -> Iterator[Path]:
    """Where there is one, in memory: every change waits for the disk several times."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path) / "index"


def made(path: Path, changes: Sequence[tuple[Sequence[Put], Sequence[str]]]) -> tuple[Index, list[Passage]]:
    """The index after these changes, and what it should hold."""
    held: dict[str, list[Passage]] = {}
    for puts, deleted in changes:
        with changing(path) as writer:
            for source, text, metadata in puts:
                held.pop(source, None)
                held[source] = put(writer, source, text, metadata)
            for source in deleted:
                writer.delete(source)
                held.pop(source, None)
    return Index.open(path), [passage for passages in held.values() for passage in passages]


def told(passages: Sequence[Passage]) -> list[tuple[Any, ...]]:
    """What passages are, without their scores, in an order of no meaning."""
    return sorted((p.source, p.start, p.text, sorted(map(repr, p.metadata.items()))) for p in passages)


def everything(index: Index, query: Query) -> tuple[Passage, ...]:
    return index.passages(index.filled(NO_HITS, 999, index.allowed(query)))


@settings(deadline=None, max_examples=40)
@given(CHANGES, FILTERS, PRINCIPALS, TEXTS, st.integers(1, 9))
def test_a_search_finds_the_best_of_what_may_be_found_and_as_many_as_there_are(
    changes: Sequence[tuple[Sequence[Put], Sequence[str]]],
    conditions: Mapping[str, Condition],
    principals: frozenset[str],
    text: str,
    k: int,
) -> None:
    with folder() as path:
        index, held = made(path, changes)
    query = Query(text, principals, conditions)
    may = [passage for passage in held if allowed(passage, query)]
    assert told(everything(index, query)) == told(may)
    assert len(index) == len(held)

    vectors = EMBEDDER.embed(query.texts)
    hits = index.by_vector(vectors, k, index.allowed(query))
    likeness = [float(score) for score in EMBEDDER.embed([searchable(p) for p in may]) @ vectors[0]] if may else []
    assert len(set(hits.rows.tolist())) == len(hits.rows) == min(k, len(may))
    assert hits.scores.tolist() == pytest.approx(sorted(likeness, reverse=True)[:k], abs=1e-5)
    assert index.similarity(vectors, hits.rows).tolist() == pytest.approx(hits.scores.tolist(), abs=1e-6)

    words = index.by_words([text], k, index.allowed(query))
    assert words.scores.tolist() == sorted(words.scores.tolist(), reverse=True)
    assert set(words.rows.tolist()) <= set(index.filled(NO_HITS, 999, index.allowed(query)).rows.tolist())
    assert index.word_scores([text], words.rows).tolist() == pytest.approx(words.scores.tolist(), rel=1e-5)
    assert all(0 < score < index.word_limit([text]) for score in words.scores.tolist())
    assert len(index.filled(words, k, index.allowed(query)).rows) == min(k, len(may))


def scores_of_bm25s(held: Sequence[Passage], text: str) -> NDArray[np.float32]:
    """The library's own scores for these passages, given our terms."""
    terms = [[t for word in split(searchable(p)) for t in analyzer().terms(word)] for p in held]
    model = bm25s.BM25(k1=K1, b=B, method="lucene")
    model.index(terms, show_progress=False)
    sought = [t for word in split(text) for t in analyzer().terms(word)]
    known = [term for term in sought if term in model.vocab_dict]
    return np.asarray(model.get_scores(known) if known else np.zeros(len(held)), dtype=np.float32)


@settings(deadline=None, max_examples=30)
@given(CHANGES, TEXTS)
def test_words_score_as_in_one_index_of_bm25s_whatever_the_segments_and_deletions(
    changes: Sequence[tuple[Sequence[Put], Sequence[str]]], text: str
) -> None:
    with folder() as path:
        index, held = made(path, changes)
    if not any(analyzer().terms(word) for passage in held for word in split(passage.text)):
        return  # bm25s takes no corpus without words
    expected = {(p.source, p.start): score for p, score in zip(held, scores_of_bm25s(held, text), strict=True)}
    found = index.passages(index.by_words([text], 999, None))
    assert {(p.source, p.start): p.score for p in found} == pytest.approx(
        {place: score for place, score in expected.items() if score > 0}, rel=1e-4
    )


@settings(deadline=None, max_examples=15)
@given(CHANGES, TEXTS)
def test_an_index_that_is_compacted_answers_as_before(
    changes: Sequence[tuple[Sequence[Put], Sequence[str]]], text: str
) -> None:
    with folder() as path:
        before, held = made(path, changes)
        compact(path)
        after = Index.open(path)
    assert len(after.segments) == min(1, len(before.segments))
    assert sum(segment.record.rows for segment in after.segments) == len(held)
    assert told(everything(after, Query(text, NOBODY))) == told(everything(before, Query(text, NOBODY)))
    for search in ("by_words", "by_vector"):
        sought: Any = [text] if search == "by_words" else EMBEDDER.embed([text])
        old, new = (getattr(index, search)(sought, 99, None) for index in (before, after))
        assert new.scores.tolist() == pytest.approx(old.scores.tolist(), abs=1e-5)
        assert told(after.passages(new)) == told(before.passages(old))


def test_a_question_in_other_words_finds_what_any_of_them_finds(tmp_path: Path) -> None:
    index, _ = made(tmp_path / "i", [([("a", "steel rail", {}), ("b", "water boat", {}), ("c", "dog door", {})], [])])
    texts = ("steel rail", "water boat")
    for hits in (index.by_vector(EMBEDDER.embed(texts), 2, None), index.by_words(texts, 2, None)):
        assert {passage.source for passage in index.passages(hits)} == {"a", "b"}
        assert hits.scores[0] == pytest.approx(hits.scores[1])


def test_neighbours_are_those_of_the_same_document_in_order(tmp_path: Path) -> None:
    index, held = made(tmp_path / "i", [([("a", "one. two. three. four", {}), ("b", "five. six", {})], [])])
    [two] = [passage for passage in held if passage.text == "two"]
    assert [p.text for p in index.around(two, 1, 1)] == ["one", "two", "three"]
    assert [p.text for p in index.around(two, 9, 0)] == ["one", "two"]
    assert [p.text for p in index.around(two, 0, 9)] == ["two", "three", "four"]
    with changing(tmp_path / "i") as writer:
        writer.delete("a")
    assert Index.open(tmp_path / "i").around(two, 9, 9) == ()


def test_what_was_replaced_or_deleted_in_one_writing_is_not_found(tmp_path: Path) -> None:
    with changing(tmp_path / "i") as writer:
        put(writer, "a", "first")
        put(writer, "a", "second")
        put(writer, "b", "third")
        writer.delete("b")
        writer.delete("none")
    index = Index.open(tmp_path / "i")
    assert [p.text for p in everything(index, Query("", NOBODY))] == ["second"]
    assert len(index.by_words(["first third"], 9, None).rows) == 0


def test_there_are_never_many_segments_and_little_is_written_again() -> None:
    written = 0
    folders: set[str] = set()
    with folder() as path:
        for n in range(120):
            with changing(path) as writer:
                put(writer, str(n), "a rail")
            segments = Index.open(path).manifest.segments
            written += sum(segment.rows for segment in segments if segment.name not in folders)
            folders |= {segment.name for segment in segments}
            assert len(segments) <= 10
        assert len(Index.open(path)) == 120
    assert written <= 120 * 8  # and not 120 * 60, as where all is written each time


def test_a_document_without_passages_is_known_all_the_same(tmp_path: Path) -> None:
    with changing(tmp_path / "i") as writer:
        writer.put("a", Known("d", "", 0), [], np.empty((0, EMBEDDER.dimension), np.float32))
    with IndexWriter(tmp_path / "i", EMBEDDER, {"size": 9}) as writer:
        assert writer.known() == {"a": Known("d", "", 0)}
    index = Index.open(tmp_path / "i")
    assert (index.manifest.documents, len(index)) == (1, 0)
    assert len(index.by_vector(EMBEDDER.embed(["a"]), 3, None).rows) == 0
    assert len(index.by_words(["a"], 3, None).rows) == 0


@pytest.mark.parametrize("share", [1.0, 0.5, 0.01, 0.0])
@pytest.mark.parametrize("k", [1, 10, 300])
def test_lists_find_nearly_all_of_the_best_and_always_as_many_as_there_are(share: float, k: int) -> None:
    chance = np.random.default_rng(0)
    centres = chance.standard_normal((50, 32))
    vectors = centres[chance.integers(0, 50, 3000)] + 0.7 * chance.standard_normal((3000, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    lists, record = make_lists(vectors)
    assert record.recall >= 0.97
    rows = chance.random(3000) < share
    mask = None if share == 1 else Mask.of(rows)
    recalls = []
    for query in vectors[:20]:
        exact = np.argsort(-(vectors @ query) + 9 * ~rows)[: min(k, int(rows.sum()))]
        hits = nearest(query[None], k, vectors, mask, lists, record.probes)
        assert len(set(hits.rows.tolist())) == len(exact)
        assert rows[hits.rows].all()
        assert hits.scores.tolist() == pytest.approx((vectors[hits.rows] @ query).tolist(), abs=1e-5)
        recalls.append(len(np.intersect1d(exact, hits.rows)) / max(1, len(exact)))
    if rows.any():
        assert np.mean(recalls) >= 0.9


def test_lists_are_made_with_the_centres_that_there_were() -> None:
    vectors = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    before = make_lists(vectors[:1500])
    lists, record = make_lists(vectors, before)
    assert (lists.ntotal, record.trained, record.lists) == (2000, 1500, before[1].lists)
    assert lists.nlist == 4 * math.isqrt(1500)


def test_lists_keep_their_centres_when_a_mapped_file_gives_them(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    vectors = chance.standard_normal((3000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    former, record = make_lists(vectors[:2500])
    faiss.write_index(former, str(tmp_path / "lists"))
    mapped = faiss.read_index(str(tmp_path / "lists"), faiss.IO_FLAG_MMAP_IFC)
    lists, made = make_lists(vectors, (mapped, record))
    assert (lists.ntotal, mapped.ntotal, made.trained) == (3000, 2500, record.trained)
    assert made.recall >= 0.9
    hits = nearest(vectors[2900:2901], 10, vectors, None, lists, lists.nlist)
    assert hits.rows[0] == 2900
    assert sorted(hits.rows) == sorted(np.argsort(-(vectors @ vectors[2900]))[:10])


def test_a_large_segment_gets_lists_that_deletion_filters_and_merging_keep_right(tmp_path: Path) -> None:
    class Narrow(WordEmbedder):
        dimension = 16

    chance = np.random.default_rng(0)
    vectors = chance.standard_normal((52_000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def add(first: int, last: int, delete: int | None = None) -> Index:
        with IndexWriter(tmp_path / "i", Narrow(), {}) as writer:
            for n in range(first, last, 10):
                passages = [Passage(f"w{i}", str(n), i, i + 1, metadata={"part": n % 7}) for i in range(10)]
                writer.put(str(n), Known("", "", 10), passages, vectors[n : n + 10])
            if delete is not None:
                writer.delete(str(delete))
            writer.commit()
        return Index.open(tmp_path / "i")

    index = add(0, 51_000)
    assert [bool(segment.lists) for segment in index.segments] == [True]
    index = add(51_000, 51_500, delete=0)
    assert [bool(segment.lists) for segment in index.segments] == [True, False]
    compact(tmp_path / "i")
    whole = Index.open(tmp_path / "i")
    for opened in (index, whole):
        for conditions in ({}, {"part": AnyOf((3,))}, {"source": AnyOf(("70",))}):
            rows = opened.allowed(Query("", NOBODY, conditions))
            for query in vectors[5:200:20]:
                hits = opened.by_vector(query[None], 10, rows)
                assert len(hits.rows) == 10
                assert "0" not in {passage.source for passage in opened.passages(hits)}
    assert len(whole.segments) == 1
    assert whole.segments[0].lists.ntotal == 51_490
