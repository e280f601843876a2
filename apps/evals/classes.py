"""The figures of a judge of texts, over all rows, by source and by hazard: `trackbed eval guard` and `injection`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trackbed.apps.evals.judging import Judged
from trackbed.apps.evals.measures import (
    MEASURES,
    Bin,
    Booleans,
    Figure,
    Floats,
    auroc,
    calibration_error,
    curve,
    false_positive_rate,
    measured,
    recall,
    reliability,
    spread,
)
from trackbed.llm.tuning.rows import Row


@dataclass(frozen=True, slots=True)
class Classified:
    """What came of all rows."""

    overall: dict[str, Figure]
    hard: Figure  # the false-positive rate of harmless rows that are easily mistaken
    mean_auroc: float  # over sources
    sources: dict[str, dict[str, Figure]]
    hazards: dict[str, Figure]  # the recall of each
    calibration_error: float
    bins: list[Bin]
    curve: tuple[Floats, Floats, Floats]
    milliseconds: dict[str, float]
    calls: float  # of models, for each text
    failed: int

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "overall": {name: figure.as_json() for name, figure in self.overall.items()},
            "hard_false_positive_rate": self.hard.as_json(),
            "mean_auroc_over_sources": None if math.isnan(self.mean_auroc) else round(self.mean_auroc, 4),
            "sources": {
                source: {name: figure.as_json() for name, figure in figures.items()}
                for source, figures in self.sources.items()
            },
            "hazards": {hazard: figure.as_json() for hazard, figure in self.hazards.items()},
            "calibration_error": round(self.calibration_error, 4),
            "reliability": [one._asdict() for one in self.bins],
            "milliseconds": self.milliseconds,
            "model_calls": round(self.calls, 3),
            "failed": self.failed,
        }


def classify(rows: Sequence[Row], judged: Sequence[Judged], seed: int = 0) -> Classified:
    """The figures; `rows` has at least one."""
    truth = np.array([row.positive for row in rows])
    score = np.array([one.score for one in judged])
    blocked = np.array([one.blocked for one in judged])
    hard = np.array([row.hard for row in rows])
    sources = {source: _of_source(rows, source, truth, score, blocked, seed) for source in _in_order(rows)}
    aurocs = [figures["auroc"].value for figures in sources.values() if "auroc" in figures]
    return Classified(
        overall={name: measured(measure, truth, score, blocked, seed) for name, measure in MEASURES.items()},
        hard=measured(false_positive_rate, truth[hard], score[hard], blocked[hard], seed),
        mean_auroc=float(np.mean(aurocs)) if aurocs else math.nan,
        sources=sources,
        hazards=_hazards(rows, truth, score, blocked, seed),
        calibration_error=calibration_error(truth, score),
        bins=reliability(truth, score),
        curve=curve(truth, score),
        milliseconds=spread([one.milliseconds for one in judged]),
        calls=float(np.mean([one.calls for one in judged])),
        failed=sum(one.failed for one in judged),
    )


def _of_source(
    rows: Sequence[Row], source: str, truth: Booleans, score: Floats, blocked: Booleans, seed: int
) -> dict[str, Figure]:
    """A source of positives is told from its own negatives where it has any, else from those of all others."""
    own = np.array([row.source == source for row in rows])
    found = {}
    if (own & truth).any():
        beside = own if (own & ~truth).any() else own | ~truth
        if (beside & ~truth).any():
            found["auroc"] = measured(auroc, truth[beside], score[beside], blocked[beside], seed)
        found["recall"] = measured(recall, truth[own], score[own], blocked[own], seed)
    if (own & ~truth).any():
        found["false_positive_rate"] = measured(false_positive_rate, truth[own], score[own], blocked[own], seed)
    return found


def _hazards(rows: Sequence[Row], truth: Booleans, score: Floats, blocked: Booleans, seed: int) -> dict[str, Figure]:
    found = {}
    for hazard in sorted({name for row in rows for name in row.categories}, key=lambda name: (len(name), name)):
        own = np.array([hazard in row.categories for row in rows])
        found[hazard] = measured(recall, truth[own], score[own], blocked[own], seed)
    return found


def _in_order(rows: Sequence[Row]) -> list[str]:
    return sorted({row.source for row in rows})
