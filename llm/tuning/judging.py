"""Teach and try the judge of claims: `python -m trackbed.llm.tuning.judging --data DATA --work WORK --models MODELS`.

Each source is tried by a judge that was taught nothing of it, nor of the others of its group; what has no licence to
train is tried by the judge that was taught all the rest, which is the one that --out writes. An answer is worth what
the sentence of it is that is supported least. A trial leaves what it found in the work folder, so that one that was
broken off goes on where it was.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from trackbed.llm.catalogue import locate
from trackbed.llm.claims import is_sentence
from trackbed.llm.tuning.claimed import Labelled, packs, read_claims
from trackbed.llm.tuning.figures import Tried, auroc, calibration, calibration_error, draw_reliability
from trackbed.llm.tuning.questions import sentences_of
from trackbed.llm.tuning.rows import Row
from trackbed.llm.tuning.ship import lora_tensors
from trackbed.llm.tuning.supporting import Lesson, logits_of, teach

GROUPS: tuple[tuple[str, ...], ...] = (
    ("fool-me-twice", "halueval-qa-200"),
    ("xquad", "begin-wow"),
    ("begin-topicalchat-dev", "alexa-factual-dialog-expert"),
    (),  # nothing: all that may train does
)
TOKENS = 256  # of a text that is judged by
FILE = "claims.safetensors"


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m trackbed.llm.tuning.judging", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="the folder with grounding.jsonl and qa_xquad_en.jsonl"
    )
    parser.add_argument("--work", type=Path, required=True, help="where trials leave what they found")
    parser.add_argument("--models", type=Path, required=True, help="the folder of `trackbed models`")
    parser.add_argument("--out", type=Path, help="the judge's folder; without it, trials alone")
    parser.add_argument("--only", type=int, action="append", help="try these groups alone, and write nothing")
    parser.add_argument("--threads", type=int, help="of one training; several may run beside each other")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    asked.work.mkdir(parents=True, exist_ok=True)
    base, rows = locate(Lesson().base, asked.models), read_claims(asked.data / "grounding.jsonl")
    numbers = asked.only or list(range(len(GROUPS)))
    for number in numbers:
        if not (asked.work / f"{number}.json").exists():
            _try(asked.data, asked.work, base, rows, number)
    tried = [_tried(asked.work, rows, number) for number in numbers]
    _say(json.dumps(figures(tried), indent=2))
    if asked.out and not asked.only:
        write_judge(asked.out, asked.work / FILE, Lesson(), tried)


def held_out(rows: list[Labelled], number: int) -> list[Labelled]:
    """The rows that a group tries: of its sources, or, where it has none, those that may not train."""
    return [row for row in rows if (row.claim.source in GROUPS[number] if GROUPS[number] else not row.licensed)]


def figures(tried: list[Tried]) -> dict[str, dict[str, float]]:
    """Of each source the AUROC, and the balanced accuracy at 0.5 under the calibration of all the others."""
    every = [(row, float(logit)) for rows, logits in tried for row, logit in zip(rows, logits, strict=True)]
    found = {}
    for source in dict.fromkeys(row.source for row, _ in every):
        others = [(row, logit) for row, logit in every if row.source != source]
        scale, shift = calibration([Tried([row for row, _ in others], np.array([x for _, x in others], np.float32))])
        yes, no = ([x for row, x in every if row.source == source and row.positive is which] for which in (True, False))
        right = np.mean([scale * x + shift >= 0 for x in yes]), np.mean([scale * x + shift < 0 for x in no])
        told = {"rows": len(yes) + len(no), "auroc": auroc(yes, no), "balanced_accuracy": float(np.mean(right))}
        found[source] = {key: round(value, 4) for key, value in told.items()}
    means = {key: float(np.mean([told[key] for told in found.values()])) for key in ("auroc", "balanced_accuracy")}
    return {**found, "mean": {**means, "calibration_error": calibration_error(tried)}}


def write_judge(folder: Path, adapter: Path, lesson: Lesson, tried: list[Tried]) -> None:
    """The judge's folder: what its file is, and what its figures mean."""
    folder.mkdir(parents=True, exist_ok=True)
    scale, shift = calibration(tried)
    (folder / FILE).write_bytes(adapter.read_bytes())
    described = {
        "format": 1,
        "base": lesson.base,
        "file": FILE,
        "labels": ["supported"],
        "layers": lesson.layers,
        "rank": lesson.rank,
        "alpha": lesson.alpha,
        "tokens": TOKENS,
        "scale": round(scale, 4),
        "shift": round(shift, 4),
    }
    (folder / "claims.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    draw_reliability(tried, "claims", folder / "claims.png")


def _try(data: Path, work: Path, base: Path, rows: list[Labelled], number: int) -> None:
    """Teach a judge and leave, for each row that it is tried on, the logits of the answer and of its sentences."""
    network = teach(packs(data, GROUPS[number]), base, Lesson(), _say)
    if not GROUPS[number]:
        save_file(lora_tensors(network.head, network.changed), work / FILE)
    claims = [row.claim for row in held_out(rows, number)]
    every = [[claim, *(claim._replace(text=text) for text in sentences_of(claim.text))] for claim in claims]
    # As the judge reads them.
    said = [[one._replace(question="") if is_sentence(one.text) else one for one in each] for each in every]
    found = logits_of(network, said, base, TOKENS)
    (work / f"{number}.json").write_text(json.dumps([each.tolist() for each in found]) + "\n", encoding="utf-8")


def _tried(work: Path, rows: list[Labelled], number: int) -> Tried:
    """What a trial found, one logit for each row."""
    found = json.loads((work / f"{number}.json").read_bytes())
    claims = [row.claim for row in held_out(rows, number)]
    judged = [Row(c.text, c.question, c.supported, (), c.source, c.licence, False, 0) for c in claims]
    return Tried(judged, np.array([min(each[1:] or each) for each in found], np.float32))


def _say(words: str) -> None:
    sys.stderr.write(words + "\n")


if __name__ == "__main__":
    main()
