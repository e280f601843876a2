"""From candidates to what a reader is given."""

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.fakes import ListRetriever, WordEmbedder
from trackbed.retrieval.allowed import allowed
from trackbed.retrieval.hybrid import HybridRetriever
from trackbed.retrieval.ingest import ingest_documents
from trackbed.retrieval.refine import MOST, Refined
from trackbed.retrieval.rerank import rerank
from trackbed.retrieval.types import AnyOf, Document, Passage, Query
from trackbed.retrieval.widen import Widening

NOBODY = frozenset[str]()
QUERY = Query("which?", NOBODY)
FOUND = tuple(Passage(f"text {n}", f"{n}.md", 0, 6, 0.9 - n / 100) for n in range(20))


class Backwards:
    """Likes late numbers best; may be slow, or fail."""

    def __init__(self, delay: float = 0.0, fails: Exception | None = None) -> None:
        self.delay = delay
        self.fails = fails
        self.read: list[str] = []

    def score(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
        time.sleep(self.delay)
        if self.fails:
            raise self.fails
        self.read += texts
        return np.array([int(text.split()[-1]) / 100 for text in texts], dtype=np.float32)


async def test_a_scorer_puts_candidates_in_its_order_with_its_scores() -> None:
    found = await rerank("which?", FOUND, Backwards())
    assert [passage.source for passage in found] == [f"{n}.md" for n in range(19, -1, -1)]
    assert found[0].score == pytest.approx(0.19)


async def test_of_equal_scores_the_order_stays() -> None:
    class Even(Backwards):
        def score(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.full(len(texts), 0.5, dtype=np.float32)

    assert [p.source for p in await rerank("which?", FOUND, Even())] == [p.source for p in FOUND]


async def test_a_reranked_search_finds_what_the_search_has_further_down() -> None:
    retriever = ListRetriever(*FOUND)
    found = await Refined(retriever, scorer=Backwards(), candidates=10).find(QUERY, 2)
    assert [passage.source for passage in found.passages] == ["9.md", "8.md"]
    assert found.notes == {"candidates": 10, "rerank": 10}


async def test_more_than_the_candidates_follow_in_their_order() -> None:
    found = await Refined(ListRetriever(*FOUND), scorer=Backwards(), candidates=3).search(QUERY, 6)
    assert [passage.source for passage in found] == ["2.md", "1.md", "0.md", "3.md", "4.md", "5.md"]
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)


@pytest.mark.parametrize(
    ("scorer", "kind"),
    [
        (Backwards(delay=0.3), "TimeoutError"),
        (Backwards(fails=OSError("secret")), "OSError"),
    ],
)
async def test_a_scorer_that_is_late_or_fails_leaves_the_order_of_the_search_and_it_is_said(
    scorer: Backwards, kind: str
) -> None:
    found = await Refined(ListRetriever(*FOUND), scorer=scorer, seconds=0.1).find(QUERY, 3)
    assert found.passages == FOUND[:3]
    assert found.notes["rerank"] == f"left out: {kind}"


async def test_scores_that_are_no_numbers_are_a_failure() -> None:
    class Odd(Backwards):
        def score(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.full(len(texts), np.nan, dtype=np.float32)

    found = await Refined(ListRetriever(*FOUND), scorer=Odd()).find(QUERY, 3)
    assert found.notes["rerank"] == "left out: ValueError"


async def test_a_late_scorer_reads_no_more_batches() -> None:
    scorer = Backwards(delay=0.1)
    await Refined(ListRetriever(*FOUND), scorer=scorer, seconds=0.05).find(QUERY, 3)
    await asyncio.sleep(0.4)
    assert len(scorer.read) <= 8


async def test_steps_hold_up_no_loop() -> None:
    threads: set[int] = set()

    class Where(Backwards):
        def score(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
            threads.add(threading.get_ident())
            return super().score(question, texts)

    await Refined(ListRetriever(*FOUND), scorer=Where()).search(QUERY, 3)
    assert threads
    assert threading.get_ident() not in threads


async def test_passages_that_say_the_same_give_way() -> None:
    found = (FOUND[0], replace(FOUND[0], source="copy.md", score=0.89), *FOUND[5:])
    chosen = await Refined(ListRetriever(*found), embedder=WordEmbedder(), diversity=1.0).search(QUERY, 2)
    assert [passage.source for passage in chosen] == ["0.md", "5.md"]


async def test_without_any_step_the_search_is_asked_for_what_is_wanted() -> None:
    retriever = ListRetriever(*FOUND)
    assert await Refined(retriever).search(QUERY, 4) == FOUND[:4]
    assert await Refined(retriever, scorer=Backwards()).search(QUERY, 0) == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"diversity": 0.5}, "diversity needs an embedder"),
        ({"diversity": 2.0, "embedder": WordEmbedder()}, "it is 0 to 1"),
        ({"widening": Widening(1)}, "need a retriever that has an index"),
        ({"candidates": MOST + 1}, "they are 1 to 200"),
        ({"candidates": 0}, "they are 1 to 200"),
    ],
)
def test_what_cannot_be_done_is_said_when_it_is_made(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Refined(ListRetriever(), **options)  # type: ignore[arg-type]


GROUPS = ("staff", "board")
TEXTS = {
    f"{n}.md": f"# Page {n}\n\n" + " ".join(f"Animal {n} does thing {m} with care and joy." for m in range(30))
    for n in range(8)
}


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> HybridRetriever:
    path: Path = tmp_path_factory.mktemp("refine") / "index"
    documents = [
        Document(source, text, metadata={"allow": (GROUPS[n % 2],)} if n % 3 else {})
        for n, (source, text) in enumerate(TEXTS.items())
    ]
    ingest_documents(documents, path, WordEmbedder())
    return HybridRetriever.open(path, WordEmbedder())


@settings(deadline=None, max_examples=25)
@given(
    principals=st.frozensets(st.sampled_from(GROUPS)),
    sources=st.lists(st.sampled_from(list(TEXTS)), min_size=1, unique=True),
    scorer=st.sampled_from([None, Backwards(), Backwards(fails=OSError())]),
    diversity=st.sampled_from([None, 0.0, 0.5]),
    widening=st.sampled_from([Widening(), Widening(1), Widening(parent=True), Widening(2, parent=True)]),
    k=st.integers(0, 12),
)
def test_however_it_is_refined_nothing_more_may_be_read_and_offsets_hold(
    retriever: HybridRetriever,
    principals: frozenset[str],
    sources: list[str],
    scorer: Backwards | None,
    diversity: float | None,
    widening: Widening,
    k: int,
) -> None:
    query = Query("animal 3 with care", principals, {"source": AnyOf(tuple(sources))})
    refined = Refined(retriever, scorer=scorer, diversity=diversity, widening=widening, candidates=6)
    found = asyncio.run(refined.search(query, k))
    readable = asyncio.run(retriever.search(query, 99))
    assert len(found) <= min(k, len(readable))
    assert bool(found) == bool(k and readable)
    if not widening:
        assert len(found) == min(k, len(readable))
    assert all(allowed(passage, query) for passage in found)
    assert all(passage.text == TEXTS[passage.source][passage.start : passage.end] for passage in found)
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)
