"""Fit and try the weights of the rail `answerable`: `python -m trackbed.apps.evals.answerable --data FILE`.

A row is a question with its own paragraph, which answers it. Beside each stand other paragraphs of the same article
without the answer: the one that is most similar to the question, and two that are drawn. Each fifth of the paragraphs
is tried with weights that were fitted on the others (logistic regression, with scikit-learn).
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trackbed.llm.tuning.questions import Asked, Paragraphs, read_asked
from trackbed.rails.library.answerable import BIAS, WEIGHTS, Answerable, signals

PARTS = 5
DRAWN = 2
THRESHOLD = Answerable.Config().threshold

Floats = npt.NDArray[np.float64]


class Pairs(NamedTuple):
    """Questions beside paragraphs: [pairs] each, signals [pairs, signals]."""

    signals: Floats
    answered: npt.NDArray[np.bool_]
    nearest: npt.NDArray[np.bool_]  # whether it is the most similar one of those without the answer
    part: npt.NDArray[np.int64]


def pairs(rows: Sequence[Asked], seed: int = 0) -> Pairs:
    """Each question beside its paragraph and others; one of no words of its own is left out. Raises ValueError."""
    chance, others, found = random.Random(seed), Paragraphs(rows), list[tuple[tuple[float, ...], bool, bool, int]]()  # noqa: S311
    for row in rows:
        like = [
            one for one in others.like(row.question, row.title, row.answer, row.context) if one.heading == row.title
        ]
        shown = [(row.context, True, False), *((one.text, False, True) for one in like[:1])]
        shown += [(one.text, False, False) for one in chance.sample(like[1:], min(DRAWN, len(like[1:])))]
        for text, answered, nearest in shown:
            if told := signals(row.question, text):
                found.append((told, answered, nearest, row.fold % PARTS))
    if not found:
        raise ValueError("the data has no questions")
    each = [np.array(column) for column in zip(*found, strict=True)]
    return Pairs(*each)


def fitted(told: Floats, answered: npt.NDArray[np.bool_]) -> tuple[tuple[float, ...], float]:
    """Weights and a bias, both labels as heavy."""
    from sklearn.linear_model import LogisticRegression

    model: Any = LogisticRegression(class_weight="balanced", max_iter=1000).fit(told, answered)
    return tuple(round(float(weight), 3) for weight in model.coef_[0]), round(float(model.intercept_[0]), 3)


def figures(found: Pairs, weights: Sequence[float] | None = None, bias: float = 0.0) -> dict[str, float]:
    """How well answers are told; with weights that are given, or with those that the other parts' rows give."""
    from sklearn.metrics import roc_auc_score

    logits = np.zeros(len(found.answered))
    for part in np.unique(found.part):
        own = found.part == part
        use = (weights, bias) if weights else fitted(found.signals[~own], found.answered[~own])
        logits[own] = found.signals[own] @ np.array(use[0]) + use[1]
    passed = 1 / (1 + np.exp(-logits)) >= THRESHOLD
    near = found.answered | found.nearest
    return {
        "pairs": len(logits),
        "auroc": round(float(roc_auc_score(found.answered, logits)), 4),
        "auroc against the most similar": round(float(roc_auc_score(found.answered[near], logits[near])), 4),
        "answering ones that pass": round(float(passed[found.answered].mean()), 4),
        "others that do not": round(float((~passed)[~found.answered].mean()), 4),
    }


def main() -> None:
    """Read the command line, and print figures and weights as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m trackbed.apps.evals.answerable", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="JSON lines with question, context, answers, doc_id, fold"
    )
    try:
        found = pairs(read_asked(parser.parse_args().data))
    except ValueError as error:
        parser.error(str(error))
    weights, bias = fitted(found.signals, found.answered)
    told = {
        "parts that trained nothing": figures(found),
        "as the rail has them": figures(found, WEIGHTS, BIAS),
        "weights": weights,
        "bias": bias,
    }
    sys.stdout.write(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
