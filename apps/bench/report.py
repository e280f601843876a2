"""What a benchmark found: rows of pairs, each pair measured one after the other, and how they are told.

A row knows which of two figures is the better one. It knows nothing of what was measured.
"""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

WIDEST = 200


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of ours beside one of a rival's, from every round."""

    name: str  # with its unit
    ours: Sequence[float]
    theirs: Sequence[float] = ()  # of the same rounds; empty where the rival has not run
    rival: str = ""
    more: bool = False  # whether more is better
    aim: float | None = None  # what ours is held to: at most, or at least where more is better
    floor: float | None = None  # what nobody can go below
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether ours keeps to its aim; None without one, or without a figure."""
        if self.aim is None or not self.ours:
            return None
        return median(self.ours) >= self.aim if self.more else median(self.ours) <= self.aim

    @property
    def ratios(self) -> list[float]:
        """How many times better ours is, pair by pair; none where a figure is zero, which is no rate."""
        pairs = [pair if self.more else pair[::-1] for pair in zip(self.ours, self.theirs, strict=False)]
        return [better / worse for better, worse in pairs if better and worse]

    def as_json(self) -> dict[str, Any]:  # Any: a JSON value
        """The row for programs: medians, and the ratio with its extremes."""
        ours, ratios = _median(self.ours), self.ratios
        share = self.floor / ours if self.floor and ours else None
        return {
            "name": self.name,
            "rival": self.rival,
            "ours": ours,
            "theirs": _median(self.theirs),
            "ratio": _median(ratios),
            "lowest": min(ratios, default=None),
            "highest": max(ratios, default=None),
            "floor": self.floor,
            "aim": self.aim,
            "share": share,
            "met": self.met,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rows of one run, and what they hold for."""

    title: str
    versions: dict[str, str]
    rows: Sequence[Row]
    remarks: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:  # Any: a JSON value
        """The run for programs."""
        return {
            "machine": machine(),
            "versions": self.versions,
            "rows": [row.as_json() for row in self.rows],
            "remarks": list(self.remarks),
        }

    @property
    def heading(self) -> str:
        """What was compared, where, and which versions."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.title}; {machine()}; {versions}"

    def table(self) -> Table:
        """The rows for people."""
        table = Table(*HEADINGS, box=None, pad_edge=False)
        for row in self.rows:
            table.add_row(*cells(row))
        # As wide as its words: a narrow terminal breaks the lines, which is better than words cut off.
        table.width = Console(width=WIDEST).measure(table).maximum
        return table

    def write(self, path: Path) -> None:
        """Keep the run in a file: JSON for .json, else Markdown."""
        if path.suffix == ".json":
            text = json.dumps(self.as_json(), indent=2)
        else:
            lines = [HEADINGS, ["---"] * len(HEADINGS), *(cells(row) for row in self.rows)]
            told = [f"| {' | '.join(line)} |" for line in lines]
            text = "\n".join([f"# {self.title}", "", self.heading + ".", "", *told, *_bullets(self.remarks)])
        path.write_text(text + "\n", encoding="utf-8")


HEADINGS = ["", "trackbed", "bar", "rival", "its figure", "times better"]


def cells(row: Row) -> list[str]:
    """A row in words."""
    found = row.as_json()
    bar = "" if row.aim is None else f"{'≥' if row.more else '≤'} {figure(row.aim)}"
    met = {None: "", True: ", met", False: ", missed"}[row.met]
    ratio, lowest, highest = (figure(found[key]) for key in ("ratio", "lowest", "highest"))
    spread = f"{ratio} ({lowest} to {highest})" if ratio else ""
    rival = f"{row.rival} ({row.note})" if row.rival and row.note else row.rival or row.note
    return [row.name, figure(found["ours"]) or "not in this version", bar + met, rival, figure(found["theirs"]), spread]


def figure(value: float | None) -> str:
    """A number with three digits that say something.

    >>> [figure(value) for value in (None, 0, 0.12345, 12.345, 4321.5)]
    ['', '0', '0.123', '12.3', '4,322']
    """
    if value is None:
        return ""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def machine() -> str:
    """This machine in a few words."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def installed() -> str:
    """Our version, with the commit where this is a checkout."""
    here = Path(__file__).resolve().parent
    git = shutil.which("git")
    done = git and subprocess.run(  # noqa: S603  a fixed command
        [git, "-C", str(here), "describe", "--always", "--dirty", "--exclude=*"], capture_output=True, text=True
    )
    commit = done.stdout.strip() if done else ""
    return f"{version('trackbed')} ({commit})" if commit else version("trackbed")


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _bullets(remarks: Sequence[str]) -> list[str]:
    return ["", *(f"* {remark}" for remark in remarks)] if remarks else []
