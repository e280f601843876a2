"""Several rankings as one."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackbed.retrieval.fuse import reciprocal_ranks, weighted

Rankings = st.lists(st.lists(st.integers(0, 20), unique=True, max_size=15), min_size=1, max_size=5)


def test_what_both_rankings_have_comes_before_what_one_has_further_up() -> None:
    fused = reciprocal_ranks([["a", "b", "c"], ["d", "b", "e"]])
    assert max(fused, key=lambda thing: fused[thing]) == "b"


def test_the_first_of_all_rankings_has_the_score_1() -> None:
    assert reciprocal_ranks([["a", "b"], ["a"]])["a"] == pytest.approx(1)


@given(Rankings, st.randoms())
def test_fusion_does_not_depend_on_the_order_of_rankings(rankings: list[list[int]], chance: random.Random) -> None:
    shuffled = list(rankings)
    chance.shuffle(shuffled)
    assert reciprocal_ranks(shuffled) == reciprocal_ranks(rankings)


@given(Rankings)
def test_nothing_is_lost_or_made_up_and_scores_are_shares(rankings: list[list[int]]) -> None:
    fused = reciprocal_ranks(rankings)
    assert set(fused) == {thing for ranking in rankings for thing in ranking}
    assert all(0 < score <= 1 + 1e-12 for score in fused.values())


def test_one_ranking_keeps_its_order() -> None:
    fused = reciprocal_ranks([[3, 1, 2]])
    assert sorted(fused, key=lambda thing: -fused[thing]) == [3, 1, 2]


def test_both_scores_are_shares_of_their_highest_before_they_are_added() -> None:
    fused = weighted(np.array([0.8, 0.2], dtype=np.float32), np.array([5, 10], dtype=np.float32), 10.0, 0.5)
    assert fused.tolist() == pytest.approx([0.65, 0.6])


def test_without_a_known_word_meaning_decides_alone() -> None:
    assert weighted(
        np.array([0.8, -0.2], dtype=np.float32), np.array([0, 0], dtype=np.float32), 0.0
    ).tolist() == pytest.approx([0.8, -0.2])


@given(
    st.lists(st.tuples(st.floats(-2, 2, width=32), st.floats(0, 50, width=32)), min_size=1),
    st.floats(0, 40),
    st.floats(0, 1),
)
def test_a_fused_score_is_a_score(pairs: list[tuple[float, float]], limit: float, weight: float) -> None:
    cosines, words = (np.array(side, dtype=np.float32) for side in zip(*pairs, strict=True))
    fused = weighted(cosines, words, limit, weight)
    assert np.isfinite(fused).all()
    assert (np.abs(fused) <= 1 + 1e-6).all()
