"""Train and try the judges that ship: `python -m trackbed.llm.tuning TASK --data FOLDER --work FOLDER`.

A trial leaves the logits of what it held out in the work folder, so that one that was broken off goes on where it was.
Then the adapter is trained on all rows whose licence allows that, calibrated on the trial, and written with --out.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import numpy as np
import torch

from trackbed.llm.catalogue import locate
from trackbed.llm.tuning.figures import Tried, calibration, draw_reliability, per_source, summary
from trackbed.llm.tuning.recipes import TASKS, Task, drawn
from trackbed.llm.tuning.rows import Row
from trackbed.llm.tuning.ship import write_adapter
from trackbed.llm.tuning.train import fit, logits_of


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m trackbed.llm.tuning", description=__doc__.split("\n\n")[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True, help="the folder with safety.jsonl and the others")
    parser.add_argument("--work", type=Path, required=True, help="where trials leave what they found")
    parser.add_argument("--models", type=Path, required=True, help="the folder of `trackbed models`")
    parser.add_argument("--out", type=Path, help="the judge's folder; without it, trials alone")
    parser.add_argument("--only", type=int, action="append", help="try these groups alone, and ship nothing")
    asked = parser.parse_args()
    task = TASKS[asked.task]
    base, rows = locate(task.recipe.base, asked.models), task.rows(asked.data)
    asked.work.mkdir(parents=True, exist_ok=True)
    numbers = asked.only or list(range(task.tries))
    for number in numbers:
        file = asked.work / f"{asked.task}-{number}.npy"
        if not file.exists():
            np.save(file, _try(task, rows, asked.data, base, number))
    tried = [
        Tried(drawn(task.held_out(rows, number)[1]), np.load(asked.work / f"{asked.task}-{number}.npy"))
        for number in numbers
    ]
    if asked.only:
        _say(json.dumps({"summary": summary(tried), "sources": per_source(tried)}, indent=2))
        return
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
        write_adapter(asked.out, task.role, network, task.recipe, calibration(tried), task.otherwise)


def _try(
    task: Task, rows: list[Row], data: Path, base: Path, number: int
) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    """The first label's logits of what is held out."""
    seen, unseen = task.held_out(rows, number)
    network = fit([*(row for row in seen if row.licensed), *task.more(data)], base, task.recipe, _say)
    return logits_of(network, drawn(unseen), base, task.recipe)[:, 0]


def _say(words: str) -> None:
    sys.stderr.write(words + "\n")


if __name__ == "__main__":
    main()
