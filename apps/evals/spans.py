"""The figures of what finds spans of texts, kind by kind: `trackbed eval pii`.

A span is found exactly where its first and last character are, and roughly where it shares a character with one of its
kind. Kinds are those that both the data and the rail know; what a rail finds of others is not counted.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trackbed.apps.evals.judging import Judged
from trackbed.apps.evals.measures import DRAWS, Figure, spread
from trackbed.llm.tuning.rows import Row

SAME = {"GPE": "LOCATION"}  # what data call a kind that rails call otherwise


class Marked(NamedTuple):
    """A text and the spans in it that somebody marked."""

    text: str
    spans: tuple[tuple[str, int, int], ...]  # kind, start, end

    @property
    def row(self) -> Row:
        """The text as a row that rails judge."""
        return Row(self.text, "", bool(self.spans), (), "", "", False, 0)


class Counts(NamedTuple):
    """Spans of a kind in a text."""

    found: int  # of those marked
    marked: int
    right: int  # of those that the rail gave
    given: int


@dataclass(frozen=True, slots=True)
class Spotted:
    """What came of all texts."""

    exact: dict[str, dict[str, Figure]]  # by kind, and over all kinds as "all": precision, recall, f1
    rough: dict[str, dict[str, Figure]]
    texts: int
    milliseconds: dict[str, float]
    failed: int

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        told = {
            how: {kind: {name: figure.as_json() for name, figure in figures.items()} for kind, figures in kinds.items()}
            for how, kinds in (("exact", self.exact), ("overlap", self.rough))
        }
        return {**told, "texts": self.texts, "milliseconds": self.milliseconds, "failed": self.failed}


def read_marked(path: Path) -> list[Marked]:
    """The rows of a file with `text` and `spans`. Raises ValueError, which names the line."""
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                spans = tuple(
                    (SAME.get(label := str(s["label"]), label), int(s["start"]), int(s["end"])) for s in row["spans"]
                )
                text = str(row["text"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}:{number}: a row needs text and spans with label, start, end: {error!r}"
                ) from error
            if wrong := [span for span in spans if not 0 <= span[1] < span[2] <= len(text)]:
                raise ValueError(f"{path}:{number}: a span is outside of its text: {wrong[0]}")
            rows.append(Marked(text, spans))
    return rows


def spot(rows: Sequence[Marked], judged: Sequence[Judged], kinds: Sequence[str], seed: int = 0) -> Spotted:
    """The figures of these kinds."""

    def told(*, exact: bool) -> dict[str, dict[str, Figure]]:
        counts = {
            kind: [_count(row, one, kind, exact=exact) for row, one in zip(rows, judged, strict=True)] for kind in kinds
        }
        every = [Counts(*map(sum, zip(*parts, strict=True))) for parts in zip(*counts.values(), strict=True)]
        return {kind: _figures(parts, seed) for kind, parts in {"all": every, **counts}.items()}

    return Spotted(
        told(exact=True),
        told(exact=False),
        len(rows),
        spread([one.milliseconds for one in judged]),
        sum(one.failed for one in judged),
    )


def _count(row: Marked, judged: Judged, kind: str, *, exact: bool) -> Counts:
    marked = [span[1:] for span in row.spans if span[0] == kind]
    given = [(finding.start, finding.end) for finding in judged.findings if finding.label == kind]

    def meets(one: tuple[int, int], other: tuple[int, int]) -> bool:
        return one == other if exact else one[0] < other[1] and other[0] < one[1]

    found = sum(any(meets(span, other) for other in given) for span in marked)
    right = sum(any(meets(span, other) for other in marked) for span in given)
    return Counts(found, len(marked), right, len(given))


def _figures(counts: Sequence[Counts], seed: int) -> dict[str, Figure]:
    table = np.array(counts, dtype=float).reshape(-1, 4)
    chance = np.random.default_rng(seed)
    draws = [table[chance.integers(0, len(table), len(table))].sum(0) for _ in range(DRAWS)] if len(table) else []
    found = {}
    for name in ("precision", "recall", "f1"):
        value = _rate(name, table.sum(0))
        values = [rate for rate in (_rate(name, draw) for draw in draws) if not math.isnan(rate)]
        low, high = np.percentile(values, [2.5, 97.5]) if values else (math.nan, math.nan)
        found[name] = Figure(value, float(low), float(high))
    return found


def _rate(name: str, sums: "np.ndarray[Any, np.dtype[np.float64]]") -> float:
    found, marked, right, given = sums.tolist()
    recall, precision = found / marked if marked else math.nan, right / given if given else math.nan
    if name == "recall":
        return recall
    if name == "precision":
        return precision
    if math.isnan(recall):
        return math.nan
    return 2 * precision * recall / (precision + recall) if found and right else 0.0
