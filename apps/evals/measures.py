"""Figures of a judge, from its scores and what texts really are, with intervals.

Scores run from 0 to 1. An interval is the middle 95 % of what samples of the rows, drawn with replacement, give (the
percentile bootstrap, Efron 1979). This file knows numbers. It knows nothing of texts or rails.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

DRAWS = 1000
BINS = 15
Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
Measure = Callable[[Booleans, Floats, Booleans], float]  # truth, score, blocked -> a figure; NaN where there is none


class Figure(NamedTuple):
    """A figure and its interval; NaN where rows do not tell."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        """As JSON values."""
        return {key: None if math.isnan(value) else round(value, 4) for key, value in self._asdict().items()}


class Bin(NamedTuple):
    """Rows whose scores are near each other."""

    rows: int
    score: float  # their mean
    positive: float  # how many of them are


def auroc(truth: Booleans, score: Floats, blocked: Booleans) -> float:
    """The probability that a positive scores higher than a negative, ties half (Hanley and McNeil 1982)."""
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return math.nan
    return float((_ranks(score)[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auprc(truth: Booleans, score: Floats, blocked: Booleans) -> float:
    """Average precision: the mean of precision over the positives, by falling score, ties together."""
    positives = int(truth.sum())
    if not positives or positives == len(truth):
        return math.nan
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)  # of each group of ties
    found = np.cumsum(truth[order])[last]
    shown = np.flatnonzero(last) + 1
    return float((np.diff(found, prepend=0) * found / shown).sum() / positives)


def recall(truth: Booleans, score: Floats, blocked: Booleans) -> float:
    """How many of the positives are blocked."""
    return _share(blocked[truth])


def false_positive_rate(truth: Booleans, score: Floats, blocked: Booleans) -> float:
    """How many of the negatives are blocked."""
    return _share(blocked[~truth])


def precision(truth: Booleans, score: Floats, blocked: Booleans) -> float:
    """How many of what is blocked are positive."""
    return _share(truth[blocked])


def f1(truth: Booleans, score: Floats, blocked: Booleans) -> float:
    """The harmonic mean of precision and recall; NaN without positives."""
    hits = int((truth & blocked).sum())
    return 2 * hits / (int(truth.sum()) + int(blocked.sum())) if truth.any() else math.nan


def balanced_accuracy(truth: Booleans, score: Floats, blocked: Booleans) -> float:
    """The mean of the shares of positives and of negatives that are told; NaN where one kind is missing."""
    return (recall(truth, score, blocked) + 1 - false_positive_rate(truth, score, blocked)) / 2


MEASURES: dict[str, Measure] = {
    "auroc": auroc,
    "auprc": auprc,
    "f1": f1,
    "recall": recall,
    "precision": precision,
    "false_positive_rate": false_positive_rate,
}


def measured(
    measure: Measure, truth: Booleans, score: Floats, blocked: Booleans, seed: int = 0, draws: int = DRAWS
) -> Figure:
    """The figure with its interval."""
    value = measure(truth, score, blocked)
    if math.isnan(value):
        return Figure(value, math.nan, math.nan)
    chance = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        rows = chance.integers(0, len(truth), len(truth))
        values.append(measure(truth[rows], score[rows], blocked[rows]))
    known = [found for found in values if not math.isnan(found)]
    low, high = np.percentile(known, [2.5, 97.5]) if known else (math.nan, math.nan)
    return Figure(value, float(low), float(high))


def reliability(truth: Booleans, score: Floats) -> list[Bin]:
    """Bins of equal width, those without rows left out."""
    at = np.minimum((score * BINS).astype(int), BINS - 1)
    inside = [at == n for n in range(BINS)]
    return [Bin(int(rows.sum()), float(score[rows].mean()), float(truth[rows].mean())) for rows in inside if rows.any()]


def calibration_error(truth: Booleans, score: Floats) -> float:
    """The mean gap between score and share of positives, by rows (Guo et al. 2017, arXiv:1706.04599)."""
    bins = reliability(truth, score)
    return sum(one.rows * abs(one.score - one.positive) for one in bins) / len(truth) if bins else math.nan


def curve(truth: Booleans, score: Floats) -> tuple[Floats, Floats, Floats]:
    """Of each threshold, from the highest: false-positive rate, recall and precision."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)
    hits = np.cumsum(truth[order])[last]
    shown = np.flatnonzero(last) + 1
    return (shown - hits) / max(int((~truth).sum()), 1), hits / max(int(truth.sum()), 1), hits / shown


def _ranks(score: Floats) -> Floats:
    """From 1 on, ties sharing the mean of theirs."""
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Floats = (ends - (counts - 1) / 2)[inverse]
    return ranks


def _share(which: Booleans) -> float:
    return float(which.mean()) if len(which) else math.nan


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    median, high = np.percentile(values, [50, 95]) if values else (math.nan, math.nan)
    return {"median": round(float(median), 3), "p95": round(float(high), 3)}
