"""Figures in a picture, with intervals: curves and bars. It needs matplotlib, which the extra `eval` brings."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trackbed.apps.evals.classes import Classified
from trackbed.apps.evals.grounding import Grounded
from trackbed.apps.evals.measures import Figure as Measured
from trackbed.apps.evals.spans import Spotted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trackbed.apps.evals.rag import Rated

SIZE = (13, 4)  # inches


class NoMatplotlib(Exception):
    """There is nothing to draw with."""


def draw_classified(found: Classified, title: str, file: Path) -> None:
    """How recall costs false positives and precision, and how far scores are probabilities. Raises NoMatplotlib."""
    figure, (roc, precision, reliability) = _figure(3)
    false_positives, recalls, precisions = found.curve
    _panel(roc, f"AUROC {found.overall['auroc'].value:.3f}", "false-positive rate", "recall")
    roc.plot([0, *false_positives], [0, *recalls])
    _panel(precision, f"AUPRC {found.overall['auprc'].value:.3f}", "recall", "precision")
    precision.plot(recalls, precisions)
    _panel(reliability, f"calibration error {found.calibration_error:.3f}", "score", "share of positives")
    reliability.plot([0, 1], [0, 1], color="grey", linewidth=1)
    most = max(one.rows for one in found.bins)
    reliability.scatter(
        [one.score for one in found.bins],
        [one.positive for one in found.bins],
        [10 + 150 * one.rows / most for one in found.bins],
    )
    _save(figure, title, file)


def draw_spotted(found: Spotted, title: str, file: Path) -> None:
    """F1 of each kind, exact and roughly, with intervals. Raises NoMatplotlib."""
    figure, panels = _figure(2)
    for panel, (how, kinds) in zip(panels, (("exact", found.exact), ("overlap", found.rough)), strict=True):
        _panel(panel, f"F1, {how}", "", "")
        shown = {kind: figures["f1"] for kind, figures in kinds.items() if figures["f1"].value >= 0}
        values = [one.value for one in shown.values()]
        low = [max(one.value - one.low, 0) for one in shown.values()]
        high = [max(one.high - one.value, 0) for one in shown.values()]
        panel.barh(list(shown), values, xerr=(low, high))
    _save(figure, title, file)


def draw_retrieved(found: Mapping[str, Mapping[str, Measured]], title: str, file: Path) -> None:
    """Each measure of each retriever, with intervals. Raises NoMatplotlib."""
    measures = list(next(iter(found.values())))
    figure, panels = _figure(len(measures))
    for panel, measure in zip(panels, measures, strict=True):
        _panel(panel, measure, "", "")
        _bars(panel, {name: told[measure] for name, told in found.items()})
        panel.invert_yaxis()  # the first on top
    _save(figure, title, file)


def draw_grounded(found: Grounded, title: str, file: Path) -> None:
    """Balanced accuracy and AUROC of each source, with intervals, and the curve over all. Raises NoMatplotlib."""
    figure, panels = _figure(3)
    for panel, name in zip(panels, ("balanced_accuracy", "auroc"), strict=False):
        _panel(panel, f"{name.replace('_', ' ')}, mean {found.means[name]:.3f}", "", "")
        _bars(panel, {source: told[name] for source, told in found.sources.items()})
        panel.axvline(0.5, color="grey", linewidth=1)
    _panel(panels[2], f"AUROC {found.overall['auroc'].value:.3f}, over all", "false-positive rate", "recall")
    false_positives, recalls, _ = found.curve
    panels[2].plot([0, *false_positives], [0, *recalls])
    _save(figure, title, file)


def draw_answered(found: "Rated", title: str, file: Path) -> None:
    """What leaves and what was drafted, figure by figure, with intervals. Raises NoMatplotlib."""
    figure, panels = _figure(2)
    for panel, (how, figures) in zip(panels, (("what leaves", found.shipped), ("draft", found.draft)), strict=True):
        _panel(panel, how, "", "")
        _bars(panel, {name.replace("_", " "): one for name, one in reversed(figures.items())})
    _save(figure, title, file)


def _figure(panels: int) -> tuple[Any, Any]:  # Any: matplotlib may not be there
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NoMatplotlib("--plot needs matplotlib: pip install 'trackbed[eval]'") from error
    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.subplots(1, panels)


def _panel(panel: "Axes", title: str, x: str, y: str) -> None:
    panel.set(title=title, xlabel=x, ylabel=y, xlim=(0, 1.02))
    if y:
        panel.set_ylim(0, 1.02)


def _bars(panel: "Axes", figures: Mapping[str, Measured]) -> None:
    """A bar with its interval for each figure that there is."""
    shown = {name: one for name, one in figures.items() if one.value >= 0}
    low = [max(one.value - one.low, 0) for one in shown.values()]
    high = [max(one.high - one.value, 0) for one in shown.values()]
    panel.barh(list(shown), [one.value for one in shown.values()], xerr=(low, high))


def _save(figure: Any, title: str, file: Path) -> None:
    figure.suptitle(title)
    figure.savefig(file, dpi=120)
