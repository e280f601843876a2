"""The benchmark of an index: a small one is built, searched in a process of its own, and told."""

from pathlib import Path

import numpy as np

from trackbed.apps.bench.corpus import OF_DOCUMENT, Corpus, documents
from trackbed.apps.bench.retrieval import compare, measure, plot


def test_a_small_index_is_measured_and_drawn(tmp_path: Path) -> None:
    [cost] = measure([300], tmp_path / "bench", lambda step, done, total: None)
    assert (cost.passages, cost.kind, cost.recall) == (300, "Flat", 1.0)
    assert min(cost.built, cost.added, cost.meaning, cost.words, cost.flat, cost.disk) > 0
    rows = {row.name: row.met for row in compare([cost]).rows}
    assert rows["300 passages (Flat): recall of the ten best"] is True
    plot([cost], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "bench").iterdir())


def test_a_corpus_is_the_same_every_time_and_has_as_many_passages_as_asked_for() -> None:
    first, second = (list(documents(Corpus(250, 16).blocks(100))) for _ in range(2))
    assert sum(len(passages) for _, passages, _ in first) == 250
    assert len(first) == 250 // OF_DOCUMENT
    for (source, passages, vectors), (other, again, same) in zip(first, second, strict=True):
        assert (source, passages) == (other, again)
        assert np.array_equal(vectors, same)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
