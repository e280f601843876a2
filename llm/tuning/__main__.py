"""Train and try the judges that ship: `python -m trackbed.llm.tuning TASK --data FOLDER --work FOLDER`.

A trial leaves the logits of what it held out in the work folder, so that one that was broken off goes on where it was.
Then the adapter is trained on all rows whose licence allows that, calibrated on the trial, and written with --out.

With `--design smollm2` another design is tried on the same rows, and set beside the one that ships; it ships nothing.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import numpy as np
import torch

from trackbed.llm.catalogue import locate
from trackbed.llm.tuning import causal
from trackbed.llm.tuning.figures import Tried, calibration, cascade, draw_reliability, per_source, summary
from trackbed.llm.tuning.recipes import TASKS, Task, drawn
from trackbed.llm.tuning.rows import Row
from trackbed.llm.tuning.ship import write_adapter
from trackbed.llm.tuning.train import fit, logits_of

BASES = {"minilm": "all-minilm-l6-v2", "smollm2": "smollm2-135m-instruct"}  # of each design; the first one ships


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m trackbed.llm.tuning", description=__doc__.split("\n\n")[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True, help="the folder with safety.jsonl and the others")
    parser.add_argument("--work", type=Path, required=True, help="where trials leave what they found")
    parser.add_argument("--models", type=Path, required=True, help="the folder of `trackbed models`")
    parser.add_argument("--out", type=Path, help="the judge's folder; without it, trials alone")
    parser.add_argument("--only", type=int, action="append", help="try these groups alone, and ship nothing")
    parser.add_argument("--design", choices=BASES, default="minilm", help="what is trained; minilm alone ships")
    asked = parser.parse_args()
    if asked.out and asked.design != "minilm":
        parser.error(f"--design {asked.design} is only tried: leave --out away, or train minilm")
    task, base = TASKS[asked.task], locate(BASES[asked.design], asked.models)
    rows = task.rows(asked.data)
    asked.work.mkdir(parents=True, exist_ok=True)
    numbers = asked.only or list(range(task.tries))
    for number in numbers:
        file = _file(asked.work, asked.task, asked.design, number)
        if not file.exists():
            np.save(file, _try(task, rows, asked.data, base, asked.design, number))
    if asked.design != "minilm":
        _compare(task, rows, asked.work, asked.task, asked.design, numbers)
        return
    if asked.only:
        return
    tried = _tried(task, rows, asked.work, asked.task, asked.design, numbers)
    figures = {
        "summary": summary(tried),
        "sources": per_source(tried),
        "torch": torch.__version__,
        "processor": platform.machine(),
    }
    (asked.work / f"{asked.task}.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    _say(json.dumps(figures["summary"]))
    if asked.out:
        licensed = [row for row in rows if row.licensed]
        asked.out.mkdir(parents=True, exist_ok=True)
        network = fit([*licensed, *task.more(asked.data)], base, task.recipe, _say)
        draw_reliability(tried, f"{task.judge}, {asked.task}", asked.out / f"{task.role}.png")
        write_adapter(asked.out, task.role, network, task.recipe, BASES["minilm"], calibration(tried))


def _try(
    task: Task, rows: list[Row], data: Path, base: Path, design: str, number: int
) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    """The first label's logits of what is held out."""
    seen, unseen = task.held_out(rows, number)
    training = [*(row for row in seen if row.licensed), *task.more(data)]
    if design == "smollm2":
        recipe = causal.lowered(task.recipe)
        decoder = causal.fit(training, base, recipe, _say)
        return causal.logits_of(decoder, drawn(unseen), base, recipe)[:, 0]
    network = fit(training, base, task.recipe, _say)
    return logits_of(network, drawn(unseen), base, task.recipe)[:, 0]


def _compare(task: Task, rows: list[Row], work: Path, name: str, design: str, numbers: list[int]) -> None:
    """Write the figures of these groups: of this design, of the one that ships, and of both in a row."""
    tried = {design: _tried(task, rows, work, name, design, numbers)}
    if all(_file(work, name, "minilm", number).exists() for number in numbers):
        tried["minilm"] = _tried(task, rows, work, name, "minilm", numbers)
        tried["cascade"] = cascade(tried["minilm"], tried[design])
    figures = {which: {"summary": summary(parts), "sources": per_source(parts)} for which, parts in tried.items()}
    (work / f"{name}-{design}.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    _say(json.dumps({which: told["summary"] for which, told in figures.items()}))


def _tried(task: Task, rows: list[Row], work: Path, name: str, design: str, numbers: list[int]) -> list[Tried]:
    """What trials of these groups left."""
    return [
        Tried(drawn(task.held_out(rows, number)[1]), np.load(_file(work, name, design, number))) for number in numbers
    ]


def _file(work: Path, name: str, design: str, number: int) -> Path:
    return work / (f"{name}-{number}.npy" if design == "minilm" else f"{name}-{design}-{number}.npy")


def _say(words: str) -> None:
    sys.stderr.write(words + "\n")


if __name__ == "__main__":
    main()
