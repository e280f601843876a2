"""Passages that do not repeat each other."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trackbed.retrieval.diversity import diverse
from trackbed.retrieval.types import Passage


def passage(n: int, score: float, start: int = 0, source: str = "") -> Passage:
    return Passage(f"text {n}", source or f"{n}.md", start, start + 100, score)


def unit(*rows: tuple[float, ...]) -> NDArray[np.float32]:
    vectors = np.array(rows, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


FOUND = (passage(0, 0.9), passage(1, 0.88), passage(2, 0.6))
ALIKE = unit((1, 0), (1, 0.3), (0, 1))


def test_the_second_of_two_alike_gives_way_to_another() -> None:
    assert diverse(FOUND, ALIKE, 2, 0.5) == (FOUND[0], FOUND[2])


def test_with_all_the_weight_on_scores_the_best_are_taken() -> None:
    assert diverse(FOUND, ALIKE, 2, 1.0) == FOUND[:2]


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_what_says_the_same_comes_last_whatever_its_score(weight: float) -> None:
    copy = replace(FOUND[0], source="copy.md", score=0.899)
    shifted = replace(FOUND[0], start=2, end=100, text="part", score=0.898)
    other = passage(9, -0.5)
    found = (FOUND[0], copy, shifted, other)
    assert diverse(found, unit((1, 0), (0, 1), (0, 1), (-1, 0.1)), 2, weight) == (FOUND[0], other)


def test_passages_that_share_most_of_their_words_count_as_alike() -> None:
    found = (passage(0, 0.9, 0, "a.md"), passage(1, 0.8, 20, "a.md"), passage(2, 0.7, 500, "a.md"))
    orthogonal = unit((1, 0, 0), (0, 1, 0), (0, 0, 1))
    assert diverse(found, orthogonal, 2, 0.5) == (found[0], found[2])


@pytest.mark.parametrize("weight", [-0.1, 1.1])
def test_a_weight_is_a_share(weight: float) -> None:
    with pytest.raises(ValueError, match="it is 0 to 1"):
        diverse(FOUND, ALIKE, 2, weight)


@given(
    scores=st.lists(st.floats(-1, 1, width=32), max_size=12),
    k=st.integers(0, 14),
    weight=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_it_gives_the_best_and_others_of_what_it_was_given_in_their_order(
    scores: list[float], k: int, weight: float, seed: int
) -> None:
    found = tuple(passage(n, score) for n, score in enumerate(sorted(scores, reverse=True)))
    vectors = unit(*np.random.default_rng(seed).normal(size=(len(found), 4))) if found else np.empty((0, 4), np.float32)
    chosen = diverse(found, vectors, k, weight)
    rows = [found.index(one) for one in chosen]
    assert len(rows) == min(k, len(found))
    assert rows == sorted(set(rows))
    if rows and weight > 0:
        assert chosen[0].score == found[0].score
