"""The runtime beside llama.cpp, and beside transformers: the same file, threads and prompt, in turns.

A figure of this machine alone says little; the ratio of neighbouring rounds does, and so does the share of what the
machine can do at most. This file knows what is compared and what ours is held to. It knows no rival's calls.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from time import monotonic
from typing import Self

from trackbed.apps.bench.case import SHIPPED, Case, Source
from trackbed.apps.bench.checkpoints import derive, make_random
from trackbed.apps.bench.contenders import Contender, Impossible, InProcess, LlamaCpp, Ours, Taken
from trackbed.apps.bench.limits import Weights, measure_limits
from trackbed.apps.bench.report import Comparison, Row, describe_machine, installed
from trackbed.apps.bench.rival import LLAMA_CPP, Rival, open_rival
from trackbed.apps.terminal import Report

OURS, LLAMA, TRANSFORMERS = "trackbed", "llama.cpp", "transformers, float32"


@dataclass(frozen=True, slots=True)
class Setting:
    """What all rows have in common."""

    threads: int
    rounds: int
    shipped: Path  # the model that others are derived from
    folder: Path  # where files are kept that are made for this
    python: Path | None  # the one that has llama.cpp
    quick: bool = False  # without the rivals that take long to begin
    seconds: float = math.inf  # after which each row gets no more than one round


def compare(chosen: Sequence[Case], setting: Setting, report: Report, tell: Callable[[str], None]) -> Comparison:
    """Measure the cases in turns; the first time of each warms up and does not count.

    Raises RivalFailed where llama.cpp's Python does not run it, and NoRoom where a file has none.
    """
    import torch

    limits = measure_limits(setting.threads)
    torch.set_num_threads(setting.threads)
    machine, until = describe_machine(), monotonic() + setting.seconds
    versions, remarks = {"trackbed": installed(), "torch": version("torch")}, []
    if any(case.source.transformers and not case.is_cold for case in chosen) and not setting.quick:
        versions["transformers"] = version("transformers")
    rows: list[tuple[Row, Case, Weights | None]] = []
    with ExitStack() as stack:
        rival = None
        if setting.python:
            rival = stack.enter_context(open_rival(setting.python, LLAMA_CPP.program))
            versions |= rival.versions
        else:
            remarks.append(LLAMA_CPP.missing)
        for source, group in groupby(chosen, key=lambda case: case.source):
            path = _file(source, setting, report, tell)
            weights = Weights.read(path)
            with Field(source, path, setting, rival) as at_work:
                for case in group:
                    report(case.name, len(rows), 0)
                    rows += [(row, case, weights) for row in at_work.rows(case, until)]
                remarks += at_work.remarks
            # Again, with everybody else's work in between: what the machine can do at most is the best that was seen.
            limits = limits.or_more(measure_limits(setting.threads))
    remarks.append(f"the machine's load when it was done: {os.getloadavg()[0]:.1f}, on {os.cpu_count()} cores")
    title = f"The runtime beside llama.cpp, {setting.threads} threads, {setting.rounds} rounds"
    told = [
        replace(row, limit=weights.limit(case, limits) if weights and row.more else None) for row, case, weights in rows
    ]
    return Comparison(title, versions, told, remarks, limits.as_told(), machine)


def _file(source: Source, setting: Setting, report: Report, tell: Callable[[str], None]) -> Path:
    if source.path:
        return source.path
    if source == SHIPPED:
        return setting.shipped
    if source.random:
        return make_random(setting.folder, source.random, source.quant, report, tell)
    return derive(setting.folder, setting.shipped, source.quant, report, tell)


class Field:
    """One file, and those that have it open."""

    def __init__(self, source: Source, path: Path, setting: Setting, rival: Rival | None) -> None:
        from trackbed.apps.bench.engine import Endless, Prompts

        self.remarks: list[str] = []
        self._setting = setting
        tokenizer = Endless.load(path)
        self._prompts = Prompts(tokenizer)
        self._ours = Ours(path, tokenizer, setting.threads)
        self._theirs: dict[str, Contender] = {}
        if setting.python and rival and path.is_file():
            self._theirs[LLAMA] = LlamaCpp(rival, setting.python, path, setting.threads)
        if source.transformers and not setting.quick:
            self._theirs[TRANSFORMERS] = InProcess(path)
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        for contender in self._theirs.values():
            contender.close()

    def rows(self, case: Case, until: float) -> Iterator[Row]:
        """A row for each rival that does this, or one of ours alone."""
        contenders: dict[str, Contender] = {OURS: self._ours, **self._theirs}
        if case.work not in ("prefill", "decode"):
            contenders.pop(TRANSFORMERS, None)
        taken: dict[str, list[Taken]] = {name: [] for name in contenders}
        # A process that begins afresh is as cold the first time, once its files are in memory.
        warm = 0 if case.is_cold and self._setting.quick else 1
        for n in range(warm + min(self._setting.rounds, case.most_rounds)):
            if n > warm and monotonic() > until:
                break
            step = case.warm() if n < warm else case
            prompts = self._take_prompts(step)
            for name, contender in list(contenders.items()):
                try:
                    found = contender.measure(step, prompts)
                except Impossible as error:
                    self.remarks.append(f"{case.name}, {name}: {error}")
                    del contenders[name]
                    taken[name].clear()
                else:
                    taken[name] += [found] if n >= warm else []
        ours = taken.pop(OURS)
        for name, theirs in {name: figures for name, figures in taken.items() if figures}.items() or [("", [])]:
            yield from self._rows_of(case, name, ours, theirs)

    def _rows_of(self, case: Case, name: str, ours: list[Taken], theirs: list[Taken]) -> Iterator[Row]:
        asked = case if name == LLAMA else replace(case, floor=None, aim=None)
        if case.is_cold:
            here, there = list(zip(*ours, strict=True)), list(zip(*theirs, strict=True))
            titles, floors = (case.name, f"{case.name}, without the imports"), ((asked.floor, asked.aim), (None, None))
            for n, (title, (floor, aim)) in enumerate(zip(titles, floors, strict=True)):
                yield Row(title, here[n] if here else (), there[n] if there else (), name, floor=floor, aim=aim)
            return
        yield Row(
            case.name,
            [case.made / seconds for seconds, _ in ours],
            [case.made / seconds for seconds, _ in theirs],
            name,
            more=True,
            floor=asked.floor,
            aim=asked.aim,
            ours_cpu=[case.made / spent for _, spent in ours],
            theirs_cpu=[case.made / spent for _, spent in theirs],
        )

    def _take_prompts(self, case: Case) -> list[tuple[str, list[int]]]:
        """Prompts that nobody has seen."""
        sequences = case.tokens if case.work == "batch" else 1
        length = 1 if case.work in ("batch", "decode") else case.depth + case.tokens
        self._number += sequences
        return [self._prompts.make(length, self._number - n) for n in range(sequences)]
