"""An ingestion by many processes comes to what one comes to. It starts a cluster on this machine."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes import WordEmbedder
from trackbed.rails.sync import run_sync
from trackbed.retrieval.chunk import Chunking
from trackbed.retrieval.errors import RetrievalError
from trackbed.retrieval.faiss_index import FaissRetriever
from trackbed.retrieval.ingest import IngestReport, ingest, ingest_into
from trackbed.retrieval.ray_ingest import on_ray
from trackbed.retrieval.types import Passage, Query
from trackbed.retrieval.writer import IndexWriter

pytest.importorskip("ray", reason="ray is not installed; it is in the extra 'dev'")
# Ray warns of itself, and leaves sockets and processes to the end of the interpreter.
pytestmark = pytest.mark.filterwarnings("ignore")


class Breaking(WordEmbedder):
    """Gives no numbers for a text with one word."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        breaks = any("unspeakable" in text for text in texts)
        return super().embed(texts) * np.float32(np.nan if breaks else 1)


def held(index: Path) -> set[tuple[Passage, str]]:
    everything = Query("page", frozenset({"staff"}))
    passages = run_sync(FaissRetriever.open(index, WordEmbedder()).search(everything, 10_000))
    return {(str(passage), passage.gap) for passage in passages}


def test_many_processes_make_the_index_that_one_makes(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(40):
        text = f"# Page {number}\n\n" + f"Sentence {number} of this page. " * (number * 5 + 1)
        (docs / f"{number}.md").write_text(
            f"---\nallow: [staff]\nkind: {number % 3}\n---\n{text}" if number % 2 else text
        )
    (docs / "broken.pdf").write_bytes(b"broken")
    (docs / "table.csv").write_text("name,age\nAda,36\nAlan,41\n")
    plain = ingest([docs], tmp_path / "plain", WordEmbedder())

    def by_many() -> IngestReport:
        with IndexWriter(tmp_path / "many", WordEmbedder(), Chunking()._asdict()) as writer:
            return ingest_into(writer, [docs], WordEmbedder(), make=make)

    with ExitStack() as stack:
        try:
            make = stack.enter_context(on_ray(Breaking, Chunking(), processors=2))
        except RetrievalError as error:
            if "timed out during startup" not in str(error):
                raise
            pytest.skip("Ray gives its processes 15 seconds to start, and this machine is too busy for that")
        assert by_many() == plain
        assert held(tmp_path / "many") == held(tmp_path / "plain")
        (docs / "0.md").write_text("An unspeakable word.")
        (docs / "1.md").unlink()
        with pytest.raises(RetrievalError, match="nothing was written: the embedder words gave"):
            by_many()
        assert held(tmp_path / "many") == held(tmp_path / "plain")
        (docs / "0.md").write_text("Another word.")
        again = by_many()
    assert (again.added, again.updated, again.unchanged, again.deleted) == (0, 1, 39, 1)
    assert again.skipped == plain.skipped
