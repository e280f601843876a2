"""Teach the adapter that answers from passages: `python -m trackbed.llm.tuning.course --data FOLDER --models FOLDER`.

Which questions it is taught, and how many of each kind. The paragraphs of folds that are held out are never seen, as
passages beside others neither. `--processes 2` shares every batch among two processes.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from trackbed.llm.catalogue import locate
from trackbed.llm.tokenizer import Tokenizer
from trackbed.llm.tuning.answering import ALONE, Lesson, Line, Prompter, Share, teach
from trackbed.llm.tuning.invented import Case, invented, procedures
from trackbed.llm.tuning.pages import page_cases
from trackbed.llm.tuning.questions import (
    HELD_OUT,
    Asked,
    Paragraphs,
    answered,
    read_asked,
    unanswered,
    with_history,
)

POLICIES = Path(__file__).parents[2] / "policies"
SYSTEM = "Answer from the passages, or say: I don't know."
COUNTS = {"answered": 800, "unanswered": 440, "invented": 170, "procedures": 60}
PAGES = 6  # of the questions about the shipped pages, each so many-th
EARLIER = 0.03  # the share of questions that come after another one
CUT, BEGINNING = 0.65, 8  # the share of answers that are taught as far as so many tokens


def course(data: Path, seed: int = 1) -> list[Case]:
    """The questions, the same for the same seed."""
    rows = [row for row in read_asked(data / "qa_xquad_en.jsonl") if row.fold < HELD_OUT]
    others = Paragraphs(rows)

    def some(kind: str) -> list[Asked]:
        chance = random.Random(f"{kind} {seed}")  # noqa: S311  draws, no secrets
        return chance.sample(rows, min(COUNTS[kind], len(rows)))

    pages = page_cases(POLICIES / "knowledge", "trackbed-pages", "MIT", seed)
    cases = [
        *answered(some("answered"), others, seed),
        *unanswered(some("unanswered"), others, seed + 1),
        *invented(COUNTS["invented"], seed),
        *procedures(COUNTS["procedures"], seed),
        *pages[1::PAGES],
    ]
    return with_history(cases, EARLIER, seed)


def written(cases: Sequence[Case], tokenizer: Tokenizer, seed: int = 1) -> list[Line]:
    """As tokens, in the words of the shipped prompt."""
    prompt = (POLICIES / "prompts" / "grounded_answer.j2").read_text(encoding="utf-8")
    prompter, chance = Prompter(tokenizer, SYSTEM, prompt), random.Random(seed)  # noqa: S311
    return [prompter.line(case, BEGINNING if chance.random() < CUT else None) for case in cases]


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m trackbed.llm.tuning.course", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder with qa_xquad_en.jsonl")
    parser.add_argument("--models", type=Path, required=True, help="the folder of `trackbed models`")
    parser.add_argument("--out", type=Path, required=True, help="the adapter's folder")
    parser.add_argument("--start", type=Path, help="an adapter's file to go on from")
    parser.add_argument("--processes", type=int, default=1)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.processes == 1:
        _teach(0, asked, "")
        return
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        others = [context.Process(target=_teach, args=(n, asked, f"{folder}/meet")) for n in range(1, asked.processes)]
        for other in others:
            other.start()
        _teach(0, asked, f"{folder}/meet")
        for other in others:
            other.join()


def _teach(number: int, asked: argparse.Namespace, meet: str) -> None:
    """What one process does."""
    share, lesson = ALONE, Lesson()
    if meet:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // asked.processes))
        share = Share(number, asked.processes)
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{meet}", rank=number, world_size=asked.processes
        )
    base = locate(lesson.base, asked.models)
    lines = written(course(asked.data), Tokenizer.load(base))
    report = _say if number == 0 else lambda words: None
    teach(lines, base, lesson, asked.out / "adapter.safetensors", report, share, asked.start)
    if number == 0:
        described = {"format": 1, "base": lesson.base, "file": "adapter.safetensors"}
        told = json.dumps({**described, "rank": lesson.rank, "alpha": lesson.alpha}, indent=2)
        (asked.out / "adapter.json").write_text(told + "\n", encoding="utf-8")


def _say(words: str) -> None:
    sys.stderr.write(words + "\n")


if __name__ == "__main__":
    main()
