"""What an index costs from a thousand passages to a million: beside FAISS without any index, and beside bm25s.

Ours is built, searched and added to as `trackbed ingest` does it, save that nothing is embedded; the rivals get the
same vectors and words, in memory, and one thread as ours. The corpus is nobody's: see `corpus`. This file knows what
is compared and what ours is held to, and nothing of how an index is made.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trackbed.apps.bench.corpus import Block, Corpus, documents
from trackbed.apps.bench.report import Comparison, Row, installed
from trackbed.apps.bench.searching import FOUND, QUESTIONS
from trackbed.apps.terminal import Report
from trackbed.retrieval.manifest import EmbedderRecord, read_manifest
from trackbed.retrieval.types import Known
from trackbed.retrieval.words import analyzer, split
from trackbed.retrieval.writer import IndexWriter

SIZES = (1_000, 10_000, 100_000, 1_000_000)
MADE_BY = EmbedderRecord(name="nobody", sha256="0" * 64, dimension=384)
LONGEST_BM25S = 100_000  # passages; its building holds every word as an object
SEARCH_MS = 5.0  # of a million passages
RECALL = 0.95
ADDED = 0.01  # of the passages, in a second ingestion
TITLE = "An index from 1,000 to 1,000,000 passages"


class Cost(NamedTuple):
    """What one size costs; seconds and bytes."""

    passages: int
    kind: str
    built: float
    added: float
    disk: int
    opened: float
    meaning: float
    filtered: float
    words: float
    own: int
    mapped: int
    recall: float
    flat: float  # FAISS compares the question with every vector
    bm25s: float | None


def measure(sizes: Sequence[int], folder: Path, report: Report) -> list[Cost]:
    """Build and search an index of each size."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        return [_cost(size, folder / str(size), report) for size in sizes]
    finally:
        faiss.omp_set_num_threads(threads)


def compare(costs: Sequence[Cost]) -> Comparison:
    """The costs as rows."""
    rows = []
    for cost in costs:
        name = f"{cost.passages:,} passages ({cost.kind})"
        large = cost.passages == max(SIZES)
        exact, model = "FAISS, every vector", "bm25s, in memory"
        rows += [
            Row(
                f"{name}: search by meaning, ms", [1000 * cost.meaning], [1000 * cost.flat], exact,
                bar=SEARCH_MS if large else None,
            ),
            Row(f"{name}: recall of the ten best", [cost.recall], more=True, bar=RECALL),
            Row(f"{name}: search in a tenth by a filter, ms", [1000 * cost.filtered]),
            Row(
                f"{name}: search by words, ms", [1000 * cost.words],
                [1000 * cost.bm25s] if cost.bm25s else [], model if cost.bm25s else "",
            ),
            Row(f"{name}: memory beside mapped files, MB", [cost.own / 1e6]),
            Row(f"{name}: mapped files in memory, MB", [cost.mapped / 1e6]),
            Row(f"{name}: files, MB", [cost.disk / 1e6]),
            Row(f"{name}: open, ms", [1000 * cost.opened]),
            Row(f"{name}: build, s of one core", [cost.built]),
            Row(f"{name}: add 1%, share of building it", [cost.added / cost.built]),
        ]  # fmt: skip
    versions = {"trackbed": installed(), "faiss": version("faiss-cpu"), "bm25s": version("bm25s")}
    remarks = (
        "One thread, one question at a time, medians of "
        f"{QUESTIONS} questions; nothing is embedded, so building is counting words, writing and training; its "
        "seconds are the processor's.",
        "The corpus is synthetic: Zipf-distributed words, and vectors in topics and subjects with falling directions. "
        "Questions are passages of the same subjects that the index does not hold.",
        "bm25s is given our terms; it holds its scores in memory, and cannot be added to.",
    )
    return Comparison(TITLE, versions, rows, remarks)


def plot(costs: Sequence[Cost], file: Path) -> None:
    """The costs as a picture. Raises ImportError where there is no matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    times, sizes, recalls = figure.subplots(1, 3)
    n = [cost.passages for cost in costs]

    def line(panel: Any, label: str, value: Callable[[Cost], float | None]) -> None:  # Any: an axes of matplotlib
        told = [(cost.passages, found) for cost in costs if (found := value(cost)) is not None]
        panel.plot(*zip(*told, strict=True), marker="o", label=label)

    line(times, "by meaning", lambda cost: 1000 * cost.meaning)
    line(times, "by meaning, in a tenth", lambda cost: 1000 * cost.filtered)
    line(times, "by words", lambda cost: 1000 * cost.words)
    line(times, "FAISS, every vector", lambda cost: 1000 * cost.flat)
    line(times, "bm25s", lambda cost: 1000 * cost.bm25s if cost.bm25s else None)
    times.set(title="a search, ms", xscale="log", yscale="log", xlabel="passages")
    line(sizes, "files", lambda cost: cost.disk / 1e6)
    line(sizes, "mapped in memory", lambda cost: cost.mapped / 1e6)
    line(sizes, "memory beside", lambda cost: max(cost.own, 1) / 1e6)
    sizes.set(title="MB", xscale="log", yscale="log", xlabel="passages")
    recalls.plot(n, [cost.recall for cost in costs], marker="o", label="recall of the ten best")
    recalls.set(title="recall", xscale="log", ylim=(0.8, 1.01), xlabel="passages")
    for panel in (times, sizes, recalls):
        panel.grid(alpha=0.3)
        panel.legend()
    figure.savefig(file, dpi=120)


def _cost(size: int, folder: Path, report: Report) -> Cost:
    """Build an index of this size, search it, and add to it."""
    shutil.rmtree(folder, ignore_errors=True)
    corpus = Corpus(size)
    report(f"building {size:,} passages", 0, size)
    built = _written(folder, _reported(corpus.blocks(), size, report))
    report(f"searching {size:,} passages", 0, 0)
    found = _searched(folder, size)
    _, queries = corpus.questions(QUESTIONS)
    exact, flat = _exact(corpus, queries)
    recall = float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found["found"], exact, strict=True)]))
    disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    kinds = [segment.lists.kind if segment.lists else "Flat" for segment in read_manifest(folder).segments]
    bm25s = _bm25s(corpus) if size <= LONGEST_BM25S else None
    report(f"adding to {size:,} passages", 0, 0)
    more = Corpus(max(10, int(size * ADDED)))
    added = _written(folder, more.blocks(), prefix="more/")
    shutil.rmtree(folder)
    return Cost(
        passages=size,
        kind=", ".join(kinds),
        built=built,
        added=added,
        disk=disk,
        opened=found["opened"],
        meaning=found["meaning"],
        filtered=found["filtered"],
        words=found["words"],
        own=found["own"],
        mapped=found["mapped"],
        recall=recall,
        flat=flat,
        bm25s=bm25s,
    )


def _written(folder: Path, blocks: Iterator[Block], prefix: str = "") -> float:
    """The processor's seconds that writing takes, without those that making the corpus takes."""
    made = documents(blocks)
    started = time.process_time()
    with IndexWriter(folder, MADE_BY, {}) as writer:
        spent = time.process_time() - started
        for source, passages, vectors in made:
            started = time.process_time()
            writer.put(prefix + source, Known("", "", len(passages)), passages, vectors)
            spent += time.process_time() - started
        started = time.process_time()
        writer.commit()
        return spent + time.process_time() - started


def _reported(blocks: Iterator[Block], size: int, report: Report) -> Iterator[Block]:
    done = 0
    for block in blocks:
        yield block
        done += len(block.passages)
        report(f"building {size:,} passages", done, size)


def _searched(folder: Path, size: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "trackbed.apps.bench.searching", str(folder), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  our own program
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _exact(corpus: Corpus, queries: NDArray[np.float32]) -> tuple[list[list[str]], float]:
    """The best passages by comparing with every one, and the seconds that FAISS takes for one question."""
    import faiss

    names: list[str] = []
    flat = faiss.IndexFlatIP(corpus.dimension)
    for block in corpus.blocks():
        names += [f"{passage.source}#{passage.start}" for passage in block.passages]
        flat.add(block.vectors)
    _, rows = flat.search(queries, FOUND)
    times = []
    for query in queries[:20]:
        started = time.perf_counter()
        flat.search(query[None], FOUND)
        times.append(time.perf_counter() - started)
    return [[names[row] for row in found] for found in rows], median(times)


def _bm25s(corpus: Corpus) -> float:
    """The seconds that bm25s takes for one question."""
    import bm25s

    def terms(text: str) -> list[str]:
        return [term for word in split(text) for term in analyzer().terms(word)]

    model = bm25s.BM25()
    model.index([terms(passage.text) for block in corpus.blocks() for passage in block.passages], show_progress=False)
    texts, _ = corpus.questions(QUESTIONS)
    times = []
    for text in texts:
        sought = [terms(text)]
        started = time.perf_counter()
        model.retrieve(sought, k=FOUND, show_progress=False)
        times.append(time.perf_counter() - started)
    return median(times)
