"""How far quantised arithmetic leads a model astray: ours, and llama.cpp's on the same file.

Both are compared, token by token of a fixed text, with a float32 run of the very same weights, unpacked. What is told
is the mean Kullback-Leibler divergence from it, and how often the most probable token is the same. Neither depends
on how fast the machine is.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from trackbed.apps.bench.checkpoints import derive
from trackbed.apps.bench.report import Comparison, Row, installed
from trackbed.apps.bench.rival import LLAMA_CPP, Rival, open_rival
from trackbed.apps.terminal import Report
from trackbed.llm.config import EngineConfig
from trackbed.llm.stored import DType

QUANTS = ["Q4_1", "Q4_0", "Q5_0", "Q5_1", "Q8_0"]  # the first is that of the shipped file
TOKENS = 1024
PAGES = Path(__file__).parents[2] / "policies" / "knowledge"
CONTEXT = 2048
ROWS = 64  # logits that are compared at once

Floats = npt.NDArray[np.float32]


def compare(
    shipped: Path, folder: Path, python: Path | None, report: Report, tell: Callable[[str], None]
) -> Comparison:
    """A pair of rows for each format. Raises RivalFailed, NoRoom, ModelLoadError."""
    from trackbed.llm.tokenizer import Tokenizer

    text = "\n\n".join(page.read_text(encoding="utf-8") for page in sorted(PAGES.glob("*.md")))
    ids = Tokenizer.load(shipped).encode(text)[:TOKENS]
    rows: list[Row] = []
    versions, remarks = {"trackbed": installed()}, []
    with ExitStack() as stack:
        rival = None
        if python:
            rival = stack.enter_context(open_rival(python, LLAMA_CPP.program))
            versions |= rival.versions
        else:
            remarks.append(LLAMA_CPP.missing)
        for n, quant in enumerate(QUANTS):
            report(quant, n, len(QUANTS))
            path = derive(folder, shipped, quant, report, tell) if n else shipped
            exact, ours = (run(path, ids, dtype) for dtype in ("float32", "auto"))
            theirs = run_rival(rival, path, ids) if rival else None
            rows += tell_rows(f"SmolLM2-135M {quant}", exact, ours, theirs)
    title = f"Quantised logits against float32 ones of the same weights, {len(ids)} tokens of the pages"
    return Comparison(title, versions, rows, remarks)


def run(path: Path, ids: list[int], dtype: DType) -> Floats:
    """Our logits after each token: float32 [tokens, vocab]."""
    from trackbed.apps.bench.engine import Endless, Runtime

    runtime = Runtime(path, Endless.load(path), EngineConfig(dtype=dtype))
    with runtime.passes(CONTEXT) as passes:
        return passes.logits(ids)


def run_rival(rival: Rival, path: Path, ids: Sequence[int]) -> Floats:
    """Theirs."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "logits"
        rival.figures(case="open", path=str(path), threads=2, context=CONTEXT, sequences=1)
        rival.figures(case="logits", tokens=list(ids), file=str(file))
        rival.figures(case="close")
        return np.fromfile(file, np.float32).reshape(len(ids), -1)


def tell_rows(name: str, exact: Floats, ours: Floats, theirs: Floats | None) -> list[Row]:
    """The two rows of a file."""
    here = divergence(exact, ours)
    there = divergence(exact, theirs) if theirs is not None else None
    rival = "llama.cpp" if there else ""
    return [
        Row(f"{name}: mean divergence, nats", [here[0]], [there[0]] if there else (), rival, floor=1.0),
        Row(f"{name}: same first choice, %", [here[1]], [there[1]] if there else (), rival, more=True),
    ]


def divergence(exact: Floats, found: Floats) -> tuple[float, float]:
    """The mean KL divergence of the second from the first in nats, and the share of equal first choices in percent."""
    total, same = 0.0, 0
    for begin in range(0, len(exact), ROWS):
        p, q = (log_softmax(rows[begin : begin + ROWS]) for rows in (exact, found))
        total += float((np.exp(p) * (p - q)).sum())
        same += int((p.argmax(-1) == q.argmax(-1)).sum())
    return total / len(exact), 100 * same / len(exact)


def log_softmax(logits: Floats) -> npt.NDArray[np.float64]:
    """In float64: [rows, vocab]."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    logs: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return logs
