"""The rail engine beside NeMo Guardrails and its two engines: the same work, the same instant model, in turns.

Each row is a pair that was measured one after the other in every round; the ratio is taken pair by pair. This file
knows what is compared and what ours is held to. It knows neither engine.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from trackbed.apps.bench.ours import Ours
from trackbed.apps.bench.report import Comparison, Row, installed
from trackbed.apps.bench.rival import NEMO, Rival, import_seconds, open_rival
from trackbed.apps.bench.work import Work, leaked
from trackbed.apps.terminal import Report
from trackbed.rails.errors import UnknownRail

OUR_IMPORT = "from trackbed.rails import Models, Pipeline, Turn, load_policy"
THEIR_IMPORT = "from nemoguardrails import LLMRails, RailsConfig"
THEIR_FIRST = (
    "LLMRails(RailsConfig.from_content(yaml_content='{models: [], rails: {input: {flows: [regex check input]}, "
    "config: {regex_detection: {input: {patterns: [secret]}}}}}'))"
)
WORK = Work()
HTTP = (
    "IORails asks its model by HTTP: one bare call of the instant one takes {milliseconds:.2f} ms, which each of its "
    "turns holds at least once, and a self check three times"
)


Measure = Callable[[Ours, int], Coroutine[None, None, list[float]]]  # so many figures, or one for so many


@dataclass(frozen=True, slots=True)
class Contender:
    """One of the rival's engines, and which of its cases is set against ours."""

    name: str
    engine: str
    case: str
    count: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A row for each contender: what is measured, how often in a round, and what ours is held to."""

    name: str
    measure: Measure
    count: int
    bar: float
    contenders: tuple[Contender, ...]
    more: bool = False
    limit: float | None = None  # what the waiting alone takes
    once: bool = False  # one round is enough, or as much as anyone waits for


def cases(*, quick: bool) -> list[Case]:
    """What is compared."""
    work = WORK
    few, last = (8, 10) if quick else (30, 98)
    regex_alone = "regex alone; it takes no Python rails"
    return [
        Case(
            "regex + two Python rails in and out, a turn, ms", Ours.turn, 20 * few, 0.15,
            (
                Contender("LLMRails", "LLMRails", "turn", few),
                Contender("IORails", "IORails", "turn", 5 * few, regex_alone),
            ),
        ),
        Case(
            f"the same, {work.crowd} at once, turns/s", Ours.crowd, 1000, 4000,
            (
                Contender("LLMRails", "LLMRails", "crowd", 3 * few),
                Contender("IORails", "IORails", "crowd", 10 * few, regex_alone),
            ),
            more=True,
        ),
        Case(
            "self check in and out, ms", Ours.self_check, 10 * few, 0.5,
            (
                Contender("LLMRails", "LLMRails", "self_check", few),
                Contender("IORails", "IORails", "self_check", 5 * few),
            ),
        ),
        Case(
            "dialog turn, confident intent, ms", Ours.dialog, 10 * few, 0.5,
            (
                Contender("LLMRails", "LLMRails", "dialog", few),
                Contender("LLMRails, embeddings_only", "LLMRails", "dialog_by_embedding", few),
            ),
        ),
        Case(
            "the same, model calls", Ours.dialog_calls, 1, 0,
            (
                Contender("LLMRails", "LLMRails", "dialog_calls", 1),
                Contender("LLMRails, embeddings_only", "LLMRails", "dialog_by_embedding_calls", 1),
            ),
            once=True,
        ),
        Case(
            "turn 1,000 of a conversation, times turn 2", Ours.growth, 1000, 1.2,
            (Contender("LLMRails", "LLMRails", "growth", last, f"its turn {last}, self check rails"),),
            once=True,
        ),
        Case(
            "five 50 ms judges, a turn, ms", Ours.judges, 5, 1000 * work.wait + 3,
            (Contender("LLMRails", "LLMRails", "judges", 5, "parallel: true"),),
            limit=1000 * work.wait,
        ),
        Case(
            "first token at 2 ms a token, hold-back 24, ms", Ours.first_token, 2, 1000 * work.hold_back * work.pace + 4,
            (
                Contender("LLMRails", "LLMRails", "first_token", 1, "as it comes: 200 tokens"),
                Contender("LLMRails, held back", "LLMRails", "first_token_held", 1, "24 tokens, stream_first: false"),
                Contender("IORails", "IORails", "first_token", 1, "as it comes: 200 tokens"),
            ),
            limit=1000 * work.hold_back * work.pace,
        ),
        Case(
            "characters leaked of two forbidden stretches", Ours.leak, 1, 0,
            (
                Contender("LLMRails", "LLMRails", "leak", 1, "as it comes"),
                Contender("LLMRails, held back", "LLMRails", "leak_held", 1, "stream_first: false"),
                Contender("IORails", "IORails", "leak", 1, "as it comes"),
            ),
            once=True,
        ),
        Case(
            f"load a policy with {work.rails} rails, ms", Ours.load, 10, 10,
            (
                Contender("LLMRails", "LLMRails", "load", 1),
                Contender("IORails", "IORails", "load", 2, f"two rails with {work.rails} patterns"),
            ),
        ),
    ]  # fmt: skip


def compare(python: Path | None, every: Sequence[Case], rounds: int, report: Report) -> Comparison:
    """Measure the cases in turns. `python` is the one that has the rival; without it its column is empty, and said so.

    Raises RivalFailed where that Python does not run it.
    """
    versions, remarks = {"trackbed": installed()}, []
    with TemporaryDirectory() as folder, ExitStack() as stack:
        ours, rival = Ours(WORK, Path(folder)), None
        if python:
            rival = stack.enter_context(open_rival(python, NEMO.program, WORK.as_json()))
            versions |= rival.versions
            call = median(rival.figures(engine="IORails", case="http", count=50))
            remarks.append(HTTP.format(milliseconds=call))
        else:
            remarks.append(NEMO.missing)
        rows: list[Row] = []
        with asyncio.Runner() as loop:
            for done, case in enumerate(every):
                report(case.name, done, len(every))
                rows += _rows(loop, ours, rival, case, 1 if case.once else rounds)
        report("importing", len(every), len(every) + 1)
        rows += _imports(ours, python, rounds)
    remarks.append(f"the machine's load when it was done: {os.getloadavg()[0]:.1f}, on {os.cpu_count()} cores")
    return Comparison("The rail engine beside NeMo Guardrails", versions, rows, remarks)


def _rows(loop: asyncio.Runner, ours: Ours, rival: Rival | None, case: Case, rounds: int) -> Iterator[Row]:
    """A row for each contender, or one of ours alone."""
    if rival is None:
        yield _row(case, None, [_ours(loop, ours, case) for _ in range(rounds)], [])
        return
    for contender in case.contenders:
        pairs = [(_ours(loop, ours, case), _theirs(rival, contender)) for _ in range(rounds)]
        yield _row(case, contender, [a for a, _ in pairs], [b for _, b in pairs])


def _row(case: Case, contender: Contender | None, ours: list[float | None], theirs: list[float]) -> Row:
    here = [figure for figure in ours if figure is not None]
    name, note = (contender.name, contender.note) if contender else ("", "")
    return Row(case.name, here, theirs, name, case.more, bar=case.bar, limit=case.limit, note=note)


def _ours(loop: asyncio.Runner, ours: Ours, case: Case) -> float | None:
    try:
        return median(loop.run(case.measure(ours, case.count)))
    except UnknownRail:
        return None


def _theirs(rival: Rival, contender: Contender) -> float:
    if contender.case.startswith("leak"):
        pairs = zip(rival.texts(engine=contender.engine, case=contender.case, count=1), WORK.leaky, strict=True)
        return float(sum(leaked(text, answer, forbidden) for text, (answer, forbidden) in pairs))
    return median(rival.figures(engine=contender.engine, case=contender.case, count=contender.count))


def _imports(ours: Ours, python: Path | None, rounds: int) -> Iterator[Row]:
    """What an import takes in fresh processes, and the first policy after it, for what an import puts off comes then.

    The first round fills the disk's cache and does not count.
    """
    first = f"Pipeline(load_policy({str(ours.smallest())!r}), Models({{'chat': object()}}))"
    here, there = [], []
    for _ in range(rounds + 1):
        here.append(import_seconds(Path(sys.executable), OUR_IMPORT, first))
        there += [import_seconds(python, THEIR_IMPORT, THEIR_FIRST)] if python else []
    rival = "both engines" if python else ""
    yield Row("import, s", [i for i, _ in here[1:]], [i for i, _ in there[1:]], rival, bar=0.15)
    yield Row("import and a first policy, s", [i + p for i, p in here[1:]], [i + p for i, p in there[1:]], rival)
