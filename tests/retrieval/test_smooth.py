"""Scores that neighbours share."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trackbed.retrieval.smooth import NEAREST, smoothed


def unit(seed: int, rows: int, dimension: int = 8) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_what_is_like_the_best_passes_what_is_like_nothing() -> None:
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    best, alike, alone = smoothed(np.array([0.9, 0.4, 0.5], dtype=np.float32), vectors)
    assert best > alike > alone == pytest.approx(0.5)


def test_only_the_nearest_count() -> None:
    vectors = np.concatenate(
        [np.eye(2, dtype=np.float32)[[0] * (NEAREST + 1)], np.array([[0.8, 0.6]], dtype=np.float32)]
    )
    without = smoothed(np.array([0.5] * (NEAREST + 1) + [-1.0], dtype=np.float32), vectors)
    assert without[: NEAREST + 1].tolist() == pytest.approx([0.5] * (NEAREST + 1))


def test_a_share_of_nothing_changes_nothing() -> None:
    scores = np.array([0.3, 0.9, -0.2], dtype=np.float32)
    assert smoothed(scores, unit(0, 3), 0.0).tolist() == scores.tolist()


@given(st.lists(st.floats(-1, 1, width=32), max_size=30), st.integers(0, 50), st.floats(0, 1))
def test_no_score_leaves_the_range_of_all(scores: list[float], seed: int, share: float) -> None:
    found = smoothed(np.array(scores, dtype=np.float32), unit(seed, len(scores)), share)
    assert len(found) == len(scores)
    if scores:
        assert min(scores) - 1e-5 <= found.min() <= found.max() <= max(scores) + 1e-5


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=20, unique=True), st.integers(0, 50))
def test_the_order_of_passages_does_not_show(scores: list[float], seed: int) -> None:
    vectors, given = unit(seed, len(scores)), np.array(scores, dtype=np.float32)
    order = np.random.default_rng(seed).permutation(len(scores))
    np.testing.assert_allclose(smoothed(given, vectors)[order], smoothed(given[order], vectors[order]), atol=1e-5)
