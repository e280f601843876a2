"""Search by meaning and by words at once."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import WordEmbedder
from trackbed.retrieval.allowed import allowed
from trackbed.retrieval.bm25 import Bm25Retriever
from trackbed.retrieval.current import Current
from trackbed.retrieval.faiss_index import FaissRetriever
from trackbed.retrieval.hybrid import Fusion, HybridRetriever
from trackbed.retrieval.ingest import ingest_documents
from trackbed.retrieval.searchable import searchable
from trackbed.retrieval.types import AnyOf, Between, Condition, Document, Query, Value

NOBODY = frozenset[str]()
ANIMALS = ("cat", "dog", "owl", "fox", "hen")
GROUPS = ("staff", "board")
Open = Callable[..., HybridRetriever]


def document(n: int) -> Document:
    """Forty of them, about animals; some are for groups alone."""
    metadata: dict[str, Value] = {"year": 2000 + n % 7, "kind": ANIMALS[n % 5]}
    if n % 3 == 0:
        metadata["allow"] = (GROUPS[n % 2],)
    text = f"The {ANIMALS[n % 5]} number {n} sleeps {'very ' * (n % 4)}well beside the {ANIMALS[n % 4]}."
    return Document(f"{n}.md", text, metadata=metadata)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hybrid") / "index"
    ingest_documents([document(n) for n in range(40)], folder, WordEmbedder())
    return folder


@pytest.fixture(scope="module")
def opened(path: Path) -> Open:
    def make(fusion: Fusion = "weighted", **options: float | int) -> HybridRetriever:
        return HybridRetriever(Current(path, WordEmbedder()), WordEmbedder(), fusion, **options)  # type: ignore[arg-type]

    return make


class Blind(WordEmbedder):
    """Sees no meaning at all: every text is the same to it."""

    def embed(self, texts):  # type: ignore[no-untyped-def]
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        vectors[:, 0] = 1
        return vectors


async def test_words_decide_where_meaning_is_blind(tmp_path: Path) -> None:
    ingest_documents([document(n) for n in range(10)], tmp_path / "index", Blind())
    retriever = HybridRetriever(Current(tmp_path / "index", Blind()), Blind(), smooth=0)
    assert (await retriever.search(Query("owl number 2", NOBODY), 1))[0].source == "2.md"


async def test_all_weight_on_one_side_is_that_side_alone(opened: Open, path: Path) -> None:
    query = Query("a fox that sleeps very well", NOBODY)
    for weight, single in ((1.0, FaissRetriever), (0.0, Bm25Retriever)):
        ours = await opened(weight=weight, smooth=0).search(query, 10)
        theirs = await single.open(path, WordEmbedder()).search(query, 10)
        assert [p.score for p in ours] == pytest.approx([p.score for p in theirs], abs=1e-5)


@pytest.mark.parametrize("fusion", ["weighted", "ranks"])
async def test_another_wording_finds_what_the_question_does_not(opened: Open, fusion: Fusion) -> None:
    retriever = opened(fusion)
    alone = await retriever.search(Query("zebra", NOBODY), 3)
    helped = await retriever.search(Query("zebra", NOBODY, also=("owl number 22",)), 3)
    assert "22.md" not in {p.source for p in alone}
    assert "22.md" in {p.source for p in helped}


async def test_more_than_the_candidates_are_found_where_more_are_asked_for(opened: Open) -> None:
    found = await opened(candidates=3).search(Query("owl", NOBODY), 20)
    assert len(found) == 20
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)


async def test_neighbours_change_the_order_and_leave_the_best_score(opened: Open) -> None:
    query = Query("an owl that sleeps well beside the fox", NOBODY)
    alone, shared = await opened(smooth=0).search(query, 40), await opened(smooth=0.6).search(query, 40)
    assert [p.source for p in alone] != [p.source for p in shared]
    assert shared[0].score == alone[0].score
    assert {p.source for p in alone} == {p.source for p in shared}


@pytest.mark.parametrize("options", [{"weight": 1.5}, {"smooth": 1.0}, {"candidates": 0}])
def test_options_out_of_range_are_refused(opened: Open, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="which are 0 to 1"):
        opened(**options)


Filters = st.fixed_dictionaries(
    {},
    optional={
        "year": st.builds(Between, st.integers(1999, 2004), st.integers(2003, 2008)),
        "kind": st.builds(AnyOf, st.lists(st.sampled_from(ANIMALS), min_size=1).map(tuple)),
        "source": st.builds(AnyOf, st.lists(st.integers(0, 45).map(lambda n: f"{n}.md"), min_size=1).map(tuple)),
    },
)


@settings(deadline=None, max_examples=40)
@given(
    principals=st.frozensets(st.sampled_from(GROUPS)),
    conditions=Filters,
    k=st.integers(0, 50),
    fusion=st.sampled_from(["weighted", "ranks"]),
    smooth=st.sampled_from([0.0, 0.4]),
    also=st.lists(st.sampled_from(["cat", "very well", "", "unheard"]), max_size=2),
)
def test_all_that_may_be_read_and_nothing_else_is_found(
    opened: Open,
    principals: frozenset[str],
    conditions: dict[str, Condition],
    k: int,
    fusion: Fusion,
    smooth: float,
    also: list[str],
) -> None:
    query = Query("which owl sleeps?", principals, conditions, tuple(also))
    found = asyncio.run(opened(fusion, smooth=smooth, candidates=10).search(query, k))
    readable = asyncio.run(opened().search(Query("", frozenset(GROUPS)), 99))
    assert len(readable) == 40
    assert all(allowed(passage, query) for passage in found)
    assert len(found) == min(k, sum(allowed(passage, query) for passage in readable))
    assert len({passage.source for passage in found}) == len(found)
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)
    assert all(-1 <= p.score <= 1 for p in found)


async def test_an_index_knows_what_stands_around_a_hit_and_its_vector(tmp_path: Path) -> None:
    text = " ".join(f"Sentence {n} is about owls and their many feathers." for n in range(80))
    ingest_documents([Document("owls.md", text), document(1)], tmp_path / "index", WordEmbedder())
    retriever = HybridRetriever.open(tmp_path / "index", WordEmbedder())
    every = sorted(
        await retriever.search(Query("owls", NOBODY, {"source": AnyOf(("owls.md",))}), 9), key=lambda p: p.start
    )
    assert len(every) >= 4
    index = retriever.index
    assert [one.start for one in index.around(every[1], 1, 2)] == [one.start for one in every[:4]]
    assert index.around(every[0], 5, 0) == (every[0],)
    gone = replace(every[0], text="other")
    assert index.around(gone, 1, 1) == ()
    vectors = index.vectors_of([*every, gone])
    np.testing.assert_allclose(vectors[:-1], WordEmbedder().embed([searchable(one) for one in every]), atol=1e-6)
    assert not vectors[-1].any()
