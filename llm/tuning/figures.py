"""What a judge's logits on sources that it has not seen are worth: per source, and calibrated."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from trackbed.llm.tuning.rows import Row
from trackbed.llm.tuning.ship import balance, calibrate

Floats = npt.NDArray[np.float32]
FEW = 5  # rows of a source and label, below which nothing is said of it
BINS = 15


class Tried(NamedTuple):
    """Rows that a network has not seen, none of their sources' either, and its logits."""

    rows: list[Row]
    logits: Floats


def per_source(tried: Sequence[Tried]) -> dict[str, dict[str, float]]:
    """Of each source: the AUROC of its positives against all harmless rows that were held out with it, hard ones apart;
    how many of its positives are found from a probability of 0.5 on; and how many of its harmless rows.
    """
    scale, shift = calibration(tried)
    found: dict[str, dict[str, float]] = {}
    for rows, logits in tried:
        easy = [logit for row, logit in zip(rows, logits, strict=True) if not row.positive and not row.hard]
        for source in dict.fromkeys(row.source for row in rows):
            own = [(row, logit) for row, logit in zip(rows, logits, strict=True) if row.source == source]
            positive, harmless = ([logit for row, logit in own if row.positive is which] for which in (True, False))
            told: dict[str, float] = {"rows": len(own)}
            if len(positive) > FEW and easy:
                told["auroc"] = auroc(positive, easy)
                told["recall"] = _share(positive, scale, shift)
            if len(positive) > FEW and len(harmless) > FEW:
                told["auroc_own"] = auroc(positive, harmless)
            if len(harmless) > FEW:
                told["false_positives"] = _share(harmless, scale, shift)
            found[source] = {key: round(value, 4) for key, value in told.items()}
    return found


def summary(tried: Sequence[Tried]) -> dict[str, float]:
    """Means over sources; hard rows' false positives; the calibration, and its error where it was not fitted."""
    sources = per_source(tried)
    scale, shift = calibration(tried)
    hard = [logit for rows, logits in tried for row, logit in zip(rows, logits, strict=True) if row.hard]
    aurocs = [told["auroc"] for told in sources.values() if "auroc" in told]
    return {
        "mean_auroc": round(float(np.mean(aurocs)), 4),
        "sources": len(aurocs),
        "false_positives_hard": round(_share(hard, scale, shift), 4) if hard else float("nan"),
        "calibration_error": round(calibration_error(tried), 4),
        "scale": round(scale, 4),
        "shift": round(shift, 4),
    }


def calibration(tried: Sequence[Tried]) -> tuple[float, float]:
    """A scale and a shift of all logits."""
    rows = [row for part in tried for row in part.rows]
    return calibrate(np.concatenate([part.logits for part in tried]), rows)


class Bin(NamedTuple):
    """Rows whose probabilities are near each other: their weight, mean probability, and share of positives."""

    weight: float
    probability: float
    positive: float


def reliability(tried: Sequence[Tried]) -> list[Bin]:
    """Bins of equal width, each part under the others' calibration, and each source and label as heavy in its part."""
    every: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]] = []
    for i, part in enumerate(tried):
        scale, shift = calibration([*tried[:i], *tried[i + 1 :]] or tried)
        probabilities = 1 / (1 + np.exp(-(scale * part.logits.astype(np.float64) + shift)))
        positive = np.array([row.positive for row in part.rows], float)
        every.append((balance(part.rows) / len(tried), probabilities, positive))
    weights, probabilities, positive = (np.concatenate(columns) for columns in zip(*every, strict=True))
    at = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    found = []
    for n in range(BINS):
        inside = at == n
        if total := float(weights[inside].sum()):
            means = [float((weights[inside] * values[inside]).sum() / total) for values in (probabilities, positive)]
            found.append(Bin(total, *means))
    return found


def calibration_error(tried: Sequence[Tried]) -> float:
    """The expected calibration error (Guo et al. 2017, arXiv:1706.04599) of these bins."""
    return sum(one.weight * abs(one.probability - one.positive) for one in reliability(tried))


def draw_reliability(tried: Sequence[Tried], title: str, file: Path) -> None:
    """A picture of the bins."""
    from matplotlib.figure import Figure

    bins = reliability(tried)
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color="grey", linewidth=1)
    panel.scatter([one.probability for one in bins], [one.positive for one in bins], [900 * one.weight for one in bins])
    panel.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability", ylabel="share of positives", title=title)
    figure.savefig(file, dpi=100)


def auroc(positive: Sequence[float], harmless: Sequence[float]) -> float:
    """The probability that a positive's logit is higher than a harmless row's."""
    return float(roc_auc_score([1] * len(positive) + [0] * len(harmless), [*positive, *harmless]))


def _share(logits: Sequence[float], scale: float, shift: float) -> float:
    """How many are positive at a probability of 0.5."""
    return float(np.mean([scale * logit + shift >= 0 for logit in logits]))
