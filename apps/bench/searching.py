"""Searches an index in a process of its own and prints what that took: times, memory, and the rows that were found.

python -m trackbed.apps.bench.searching INDEX PASSAGES
"""

import json
import sys
import time
from pathlib import Path
from statistics import median

from trackbed.apps.bench.corpus import Corpus
from trackbed.retrieval.index import Index
from trackbed.retrieval.types import AnyOf, Query

QUESTIONS = 100
FOUND = 10
MARK = "0"  # of the tenth of all documents that a filter lets through


def main(path: Path, passages: int) -> None:
    """Search, one question after the other, on one thread."""
    import faiss

    faiss.omp_set_num_threads(1)
    texts, vectors = Corpus(passages).questions(QUESTIONS)
    before = _memory()
    started = time.perf_counter()
    index = Index.open(path)
    opened = time.perf_counter() - started
    query = Query("", frozenset(), {"mark": AnyOf((MARK,))})
    allowed = index.allowed(query)
    index.by_vector(vectors[:1], FOUND, None)
    index.by_words(texts[:1], FOUND, None)
    times: dict[str, list[float]] = {"meaning": [], "filtered": [], "words": []}
    found = []
    for text, vector in zip(texts, vectors, strict=True):
        started = time.perf_counter()
        hits = index.by_vector(vector[None], FOUND, None)
        times["meaning"].append(time.perf_counter() - started)
        found.append([passage.source + f"#{passage.start}" for passage in index.passages(hits)])
        started = time.perf_counter()
        index.by_vector(vector[None], FOUND, allowed)
        times["filtered"].append(time.perf_counter() - started)
        started = time.perf_counter()
        index.by_words([text], FOUND, None)
        times["words"].append(time.perf_counter() - started)
    after = _memory()
    print(  # noqa: T201  what this process is for
        json.dumps(
            {
                "opened": opened,
                **{name: median(values) for name, values in times.items()},
                "own": after[0] - before[0],
                "mapped": after[1] - before[1],
                "found": found,
            }
        )
    )


def _memory() -> tuple[int, int]:
    """What this process has for itself, and what it has of files; in bytes. Linux says so."""
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines())
    own, mapped = (int(told[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile"))
    return own, mapped


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
