"""The figures of what tells answers that their passages support from those that they do not: `trackbed eval grounding`.

A row is an answer, the text that it was written from, and what somebody found: grounded or hallucinated. What is looked
for is the hallucinated, so F1 is theirs. This file knows rows and figures. It knows no rail.
"""

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trackbed.apps.evals.judging import Judged, Report, judged
from trackbed.apps.evals.measures import Booleans, Figure, Floats, auroc, balanced_accuracy, curve, f1, measured, spread
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.types import Turn
from trackbed.retrieval.types import Passage

LABELS = ("grounded", "hallucinated")
MEASURES = {"balanced_accuracy": balanced_accuracy, "f1": f1, "auroc": auroc}


class Answered(NamedTuple):
    """An answer to a question, if there was one, by a text."""

    context: str
    question: str
    answer: str
    hallucinated: bool
    source: str


@dataclass(frozen=True, slots=True)
class Grounded:
    """What came of all rows."""

    overall: dict[str, Figure]
    sources: dict[str, dict[str, Figure]]
    means: dict[str, float]  # over the sources that have both labels
    curve: tuple[Floats, Floats, Floats]
    milliseconds: dict[str, float]
    calls: float  # of models, for each answer
    failed: int

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "overall": {name: figure.as_json() for name, figure in self.overall.items()},
            "mean_over_sources": {
                name: None if math.isnan(mean) else round(mean, 4) for name, mean in self.means.items()
            },
            "sources": {
                source: {name: figure.as_json() for name, figure in figures.items()}
                for source, figures in self.sources.items()
            },
            "milliseconds": self.milliseconds,
            "model_calls": round(self.calls, 3),
            "failed": self.failed,
        }


def read_answered(path: Path, joined: Sequence[str] = ()) -> list[Answered]:
    """The rows of a file; sources whose names begin with one of `joined` are one. Raises ValueError with the line."""
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                label, source = row["label"], str(row["source"])
                if label not in LABELS:
                    raise ValueError(f"label is {label!r}; expected is one of: {', '.join(LABELS)}")
                source = next((name for name in joined if source.startswith(name)), source)
                question = str(row.get("question") or "")
                rows.append(Answered(str(row["context"]), question, str(row["answer"]), label == LABELS[1], source))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path}:{number}: a row needs context, answer, label and source: {error!r}"
                ) from error
    return rows


def judge_answers(pipeline: Pipeline, rows: Sequence[Answered], report: Report) -> list[Judged]:
    """What the output rails make of each answer, in turn, with its text as the only passage."""
    return asyncio.run(_judge_answers(pipeline, rows, report))


async def _judge_answers(pipeline: Pipeline, rows: Sequence[Answered], report: Report) -> list[Judged]:
    found = []
    for number, row in enumerate(rows):
        report("judging", number, len(rows))
        passage = Passage(row.context, "row", 0, len(row.context), score=1.0)
        found.append(judged(*await pipeline.check("output", row.answer, Turn(row.question, passages=(passage,)))))
    return found


def ground(rows: Sequence[Answered], found: Sequence[Judged], seed: int = 0) -> Grounded:
    """The figures; `rows` has at least one."""
    truth = np.array([row.hallucinated for row in rows])
    score = np.array([one.score for one in found])
    blocked = np.array([one.blocked for one in found])
    sources = {}
    for source in sorted({row.source for row in rows}):
        own = np.array([row.source == source for row in rows])
        sources[source] = _figures(truth[own], score[own], blocked[own], seed)
    values = {name: [told[name].value for told in sources.values()] for name in MEASURES}
    known = {name: [value for value in of if not math.isnan(value)] for name, of in values.items()}
    return Grounded(
        _figures(truth, score, blocked, seed),
        sources,
        {name: float(np.mean(of)) if of else math.nan for name, of in known.items()},
        curve(truth, score),
        spread([one.milliseconds for one in found]),
        float(np.mean([one.calls for one in found])),
        sum(one.failed for one in found),
    )


def _figures(truth: Booleans, score: Floats, blocked: Booleans, seed: int) -> dict[str, Figure]:
    return {name: measured(measure, truth, score, blocked, seed) for name, measure in MEASURES.items()}
