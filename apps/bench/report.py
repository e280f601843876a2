"""What a benchmark found: rows of pairs, each pair measured one after the other, and how they are told.

A row knows which of two figures is the better one. It knows nothing of what was measured.
"""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

WIDEST = 240
# The instruction sets that decide how fast products are, by Linux's names for them.
FEATURES = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of ours beside one of a rival's, from every round.

    `bar` is asked of our figure; `floor` and `aim` are asked of the ratio. All three are optional.
    """

    name: str  # with its unit
    ours: Sequence[float]
    theirs: Sequence[float] = ()  # of the same rounds; empty where the rival has not run
    rival: str = ""
    more: bool = False  # whether more is better
    bar: float | None = None  # what ours is held to: at most, or at least where more is better
    floor: float | None = None  # the least ratio that is asked
    aim: float | None = None  # the ratio that is aimed at
    limit: float | None = None  # what nobody can beat, in the unit of the figures
    note: str = ""
    ours_cpu: Sequence[float] = ()  # the same figures by the processor's time, of all threads
    theirs_cpu: Sequence[float] = ()

    @property
    def met(self) -> bool | None:
        """Whether ours keeps to what is asked; None where nothing is, or where a figure is missing."""
        if self.bar is not None and self.ours:
            return median(self.ours) >= self.bar if self.more else median(self.ours) <= self.bar
        if self.floor is not None and self.ratios:
            return median(self.ratios) >= self.floor
        return None

    @property
    def ratios(self) -> list[float]:
        """How many times better ours is, pair by pair; none where a figure is zero, which is no rate."""
        return self._ratios(self.ours, self.theirs)

    @property
    def share(self) -> float | None:
        """How much of what is possible ours is: 1 is all of it."""
        ours = _median(self.ours)
        if not ours or not self.limit:
            return None
        return ours / self.limit if self.more else self.limit / ours

    def as_json(self) -> dict[str, Any]:  # Any: a JSON value
        """The row for programs: medians, and the ratio with its extremes."""
        ratios = self.ratios
        return {
            "name": self.name,
            "rival": self.rival,
            "ours": _median(self.ours),
            "theirs": _median(self.theirs),
            "ratio": _median(ratios),
            "lowest": min(ratios, default=None),
            "highest": max(ratios, default=None),
            "floor": self.floor,
            "aim": self.aim,
            "share": self.share,
            "bar": self.bar,
            "met": self.met,
            "note": self.note,
            "ours_cpu": _median(self.ours_cpu),
            "theirs_cpu": _median(self.theirs_cpu),
            "ratio_cpu": _median(self._ratios(self.ours_cpu, self.theirs_cpu)),
        }

    def _ratios(self, ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
        pairs = [pair if self.more else pair[::-1] for pair in zip(ours, theirs, strict=False)]
        return [better / worse for better, worse in pairs if better and worse]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rows of one run, and what they hold for."""

    title: str
    versions: dict[str, str]
    rows: Sequence[Row]
    remarks: Sequence[str] = ()
    limits: Mapping[str, float] = field(default_factory=dict)  # what the machine can do at most, by its unit
    machine: str = field(default_factory=lambda: describe_machine())  # when it began, where load counts

    def as_json(self) -> dict[str, Any]:  # Any: a JSON value
        """The run for programs."""
        return {
            "machine": self.machine,
            "limits": dict(self.limits),
            "versions": self.versions,
            "rows": [row.as_json() for row in self.rows],
            "remarks": list(self.remarks),
        }

    @property
    def heading(self) -> str:
        """What was compared, where, and which versions."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        limits = "".join(f"; {name} {figure(limit)}" for name, limit in self.limits.items())
        return f"{self.title}; {self.machine}{limits}; {versions}"

    def lines(self) -> list[list[str]]:
        """The headings and the rows in words, without the columns in which nothing stands."""
        lines = [list(COLUMNS), *([column(row) for column in COLUMNS.values()] for row in self.rows)]
        told = [n for n, heading in enumerate(COLUMNS) if heading in ALWAYS or any(line[n] for line in lines[1:])]
        return [[line[n] for n in told] for line in lines]

    def table(self) -> Table:
        """The rows for people."""
        headings, *rows = self.lines()
        table = Table(*headings, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        # As wide as its words: a narrow terminal breaks the lines, which is better than words cut off.
        table.width = Console(width=WIDEST).measure(table).maximum
        return table

    def write(self, path: Path) -> None:
        """Keep the run in a file: JSON for .json, else Markdown."""
        if path.suffix == ".json":
            text = json.dumps(self.as_json(), indent=2)
        else:
            headings, *rows = self.lines()
            told = [f"| {' | '.join(line)} |" for line in (headings, ["---"] * len(headings), *rows)]
            text = "\n".join([f"# {self.title}", "", self.heading + ".", "", *told, *_bullets(self.remarks)])
        path.write_text(text + "\n", encoding="utf-8")


def _bar(row: Row) -> str:
    bar = "" if row.bar is None else f"{'≥' if row.more else '≤'} {figure(row.bar)}"
    return bar + _met(row) if bar else ""


def _asked(row: Row) -> str:
    if row.floor is None:
        return ""
    return f"≥ {figure(row.floor)}{_met(row)}" + (f", aim {figure(row.aim)}" if row.aim else "")


def _met(row: Row) -> str:
    return {None: "", True: ", met", False: ", missed"}[row.met]


def _rival(row: Row) -> str:
    return f"{row.rival} ({row.note})" if row.rival and row.note else row.rival or row.note


def _spread(row: Row) -> str:
    if not (ratios := row.ratios):
        return ""
    return f"{figure(median(ratios))} ({figure(min(ratios))} to {figure(max(ratios))})"


COLUMNS: dict[str, Callable[[Row], str]] = {
    "": lambda row: row.name,
    "trackbed": lambda row: figure(_median(row.ours)) or "not in this version",
    "bar": _bar,
    "rival": _rival,
    "its figure": lambda row: figure(_median(row.theirs)),
    "times better": _spread,
    "asked": _asked,
    "share of the limit": lambda row: "" if row.share is None else f"{row.share:.0%}",
    "by CPU time": lambda row: figure(_median(row.ours_cpu)),
    "the rival's": lambda row: figure(_median(row.theirs_cpu)),
}
ALWAYS = {"", "trackbed", "rival", "its figure", "times better"}


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


def describe_machine() -> str:
    """This machine in a few words, and how busy it is."""
    cores, load = f"{os.cpu_count()} cores", f"load {os.getloadavg()[0]:.1f}"
    processor, features = _processor()
    wide = " ".join(name for name in FEATURES if name in features)
    words = (processor or platform.machine(), wide, cores, load, f"Python {platform.python_version()}")
    return ", ".join(word for word in words if word)


def _processor() -> tuple[str, set[str]]:
    """What Linux says of the processor; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return "", set()
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return told.get("model name", ""), set(told.get("flags", told.get("Features", "")).split())


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
