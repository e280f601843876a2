import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes import WordEmbedder
from trackbed.retrieval.chunk import Chunking
from trackbed.retrieval.errors import DocumentUnreadable, IndexMismatch, IndexMissing, RetrievalError
from trackbed.retrieval.faiss_index import FaissRetriever
from trackbed.retrieval.index import Hits, Index
from trackbed.retrieval.ingest import WINDOW, IngestReport, ingest, ingest_documents
from trackbed.retrieval.manifest import read_manifest
from trackbed.retrieval.searchable import searchable
from trackbed.retrieval.types import Document, Passage, Query

OLD = "Trains run on rails."
NO_HITS = Hits(np.empty(0, np.int64), np.empty(0, np.float32))
NEW = "Boats float on water."


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text(OLD)
    return folder


@pytest.fixture
def index(docs: Path, tmp_path: Path) -> Path:
    """An index of the old text, with the new one waiting to be ingested."""
    ingest([docs], tmp_path / "index", WordEmbedder())
    (docs / "a.md").write_text(NEW)
    return tmp_path / "index"


async def found(index: Path) -> str:
    [passage] = await FaissRetriever.open(index, WordEmbedder()).search(Query("rails", frozenset()), 9)
    return passage.text


def texts(index: Index) -> list[str]:
    """All that can be found."""
    return [passage.text for passage in index.passages(index.filled(NO_HITS, 999, None))]


def test_an_ingestion_reports_what_it_read_and_what_it_could_not(docs: Path, tmp_path: Path) -> None:
    (docs / "b.txt").write_text("One. " * 400)
    (docs / "c.pdf").write_bytes(b"broken")
    steps: list[tuple[str, int, int]] = []
    report = ingest([docs], tmp_path / "index", WordEmbedder(), lambda *step: steps.append(step))
    assert (report.documents, report.passages) == (2, 4)
    [skipped] = report.skipped
    assert skipped.startswith(f"{docs / 'c.pdf'}: cannot be read as PDF")
    assert steps == [("reading", 1, 0), ("reading", 2, 0), ("embedding", 0, 0), ("embedding", 4, 0), ("writing", 0, 0)]


async def test_an_index_gives_back_whole_passages(docs: Path, tmp_path: Path) -> None:
    (docs / "a.md").write_text("# Trains\n\n## Rails\n\nThey run \u2013 on rails.")
    ingest([docs], tmp_path / "index", WordEmbedder())
    [passage] = await FaissRetriever.open(tmp_path / "index", WordEmbedder()).search(
        Query("trains rails", frozenset()), 1
    )
    assert passage.text == (docs / "a.md").read_text()[passage.start : passage.end]
    assert (passage.source, passage.heading, passage.metadata) == ("a.md", "Trains > Rails", {"title": "Trains"})
    assert 0 < passage.score <= 1


def test_a_manifest_says_what_the_index_was_made_of(index: Path) -> None:
    manifest = read_manifest(index)
    assert (manifest.documents, manifest.passages) == (1, 1)
    assert (manifest.embedder.name, manifest.embedder.sha256) == ("words", WordEmbedder.sha256)
    assert manifest.chunking == Chunking()._asdict()
    [segment] = manifest.segments
    assert set(segment.files) == {file.name for file in (index / segment.name).iterdir()}


async def test_a_new_ingestion_takes_the_place_of_the_old_one(docs: Path, index: Path) -> None:
    before = Index.open(index)
    ingest([docs], index, WordEmbedder())
    assert await found(index) == NEW
    assert len(list(index.glob("segment-*"))) == 1
    assert texts(before) == [OLD]  # who has it open keeps what was there


async def test_an_embedder_that_fails_midway_leaves_the_old_index(docs: Path, index: Path) -> None:
    class Failing(WordEmbedder):
        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            raise MemoryError

    with pytest.raises(MemoryError):
        ingest([docs], index, Failing())
    assert await found(index) == OLD


@pytest.mark.parametrize("value", [np.nan, np.inf])
async def test_vectors_that_are_no_numbers_are_not_indexed(docs: Path, index: Path, value: float) -> None:
    class Broken(WordEmbedder):
        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return super().embed(texts) * np.float32(value)

    with pytest.raises(RetrievalError, match="the embedder words gave"), np.errstate(invalid="ignore"):
        ingest([docs], index, Broken())
    assert await found(index) == OLD


def test_an_index_that_cannot_be_written_is_named(docs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RetrievalError, match=f"the index at {tmp_path}/file/index could not be written"):
        ingest([docs], tmp_path / "file" / "index", WordEmbedder())


def test_an_index_is_not_written_among_other_things(docs: Path) -> None:
    with pytest.raises(RetrievalError, match=r"holds other things than an index, such as 'a\.md'"):
        ingest([docs], docs, WordEmbedder())


def test_nothing_to_ingest_is_an_error(docs: Path, index: Path, tmp_path: Path) -> None:
    (docs / "a.md").write_text("")
    with pytest.raises(RetrievalError, match=r"there is no document to ingest; .*a\.md: holds no text"):
        ingest([docs], index, WordEmbedder())
    with pytest.raises(DocumentUnreadable, match="no such file or folder"):
        ingest([tmp_path / "typo"], index, WordEmbedder())


def test_a_missing_index_names_the_command_that_makes_it(tmp_path: Path) -> None:
    for path in (tmp_path / "no", tmp_path):
        with pytest.raises(IndexMissing, match=f"no index at {path}; .*`trackbed ingest PATHS --to {path}`"):
            FaissRetriever.open(path, WordEmbedder())


def test_another_embedder_is_a_mismatch_that_names_both(index: Path) -> None:
    class Other(WordEmbedder):
        name = "letters"
        sha256 = "0" * 64

    class Narrow(WordEmbedder):
        dimension = 8

    with pytest.raises(IndexMismatch, match=r"embedder words \(sha256 .*256 dimensions\), and letters \(sha256 0000"):
        FaissRetriever.open(index, Other())
    with pytest.raises(IndexMismatch, match=r"256 dimensions\), and words \(sha256 \w+, 8 dimensions\)"):
        FaissRetriever.open(index, Narrow())


def test_the_same_weights_under_another_name_are_no_mismatch(index: Path) -> None:
    class Renamed(WordEmbedder):
        name = "renamed"

    assert FaissRetriever.open(index, Renamed()).index


def test_a_newer_format_is_a_mismatch(index: Path) -> None:
    manifest = json.loads((index / "manifest.json").read_text())
    (index / "manifest.json").write_text(json.dumps(manifest | {"format": 3, "news": True}))
    with pytest.raises(IndexMismatch, match="format 3, and this trackbed reads format 2"):
        FaissRetriever.open(index, WordEmbedder())


def test_a_passage_is_searched_under_its_headings() -> None:
    assert searchable(Passage("text", "a.md", 0, 4, heading="A > B", metadata={"title": "A"})) == "A > B\ntext"
    assert searchable(Passage("text", "a.txt", 0, 4, metadata={"title": "Manual"})) == "Manual\ntext"
    assert searchable(Passage("text", "a.txt", 0, 4)) == "text"


def changes(report: IngestReport) -> tuple[int, int, int, int]:
    return report.added, report.updated, report.unchanged, report.deleted


class CountingEmbedder(WordEmbedder):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += texts
        return super().embed(texts)


def test_only_what_changed_is_embedded(docs: Path, tmp_path: Path) -> None:
    for n in range(20):
        (docs / f"{n}.txt").write_text(f"text {n}")
    embedder = CountingEmbedder()
    assert changes(ingest([docs], tmp_path / "index", embedder)) == (21, 0, 0, 0)
    embedder.texts.clear()
    (docs / "3.txt").write_text("new text")
    (docs / "4.txt").unlink()
    (docs / "new.txt").write_text("one more")
    assert changes(ingest([docs], tmp_path / "index", embedder)) == (1, 1, 19, 1)
    assert sorted(embedder.texts) == ["3\nnew text", "new\none more"]
    generation = read_manifest(tmp_path / "index").generation
    assert changes(ingest([docs], tmp_path / "index", embedder)) == (0, 0, 21, 0)
    assert read_manifest(tmp_path / "index").generation == generation


def test_a_sidecar_that_changes_is_a_change_of_its_document(docs: Path, index: Path) -> None:
    ingest([docs], index, WordEmbedder())
    (docs / "a.meta.yaml").write_text("allow: [staff]\n")
    assert changes(ingest([docs], index, WordEmbedder())) == (0, 1, 0, 0)
    opened = Index.open(index)
    assert opened.allowed(Query("", frozenset({"staff"}))) is not None
    assert len(opened.by_vector(np.ones((1, 256), np.float32), 9, opened.allowed(Query("", frozenset())))[0]) == 0


def test_documents_of_other_folders_stay(docs: Path, index: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.md").write_text("More text.")
    ingest([tmp_path / "more"], index, WordEmbedder())
    assert sorted(texts(Index.open(index))) == ["More text.", OLD]
    (docs / "a.md").rename(docs / "c.md")
    assert changes(ingest([docs], index, WordEmbedder())) == (1, 0, 0, 1)
    assert sorted(texts(Index.open(index))) == [NEW, "More text."]


def test_a_name_that_another_folder_has_is_left_out_and_both_are_named(docs: Path, index: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.md").write_text("Other text.")
    (tmp_path / "more" / "b.md").write_text("More text.")
    report = ingest([tmp_path / "more"], index, WordEmbedder())
    [why] = report.skipped
    assert f"{tmp_path / 'more' / 'a.md'}: another document is called 'a.md', that of {docs}" in why
    assert sorted(texts(Index.open(index))) == ["More text.", OLD]


def test_the_documents_of_a_folder_that_was_moved_move_with_it(docs: Path, tmp_path: Path) -> None:
    ingest([docs], tmp_path / "index", WordEmbedder())
    moved = docs.rename(tmp_path / "moved")
    embedder = CountingEmbedder()
    assert changes(ingest([moved], tmp_path / "index", embedder)) == (0, 0, 1, 0)
    assert embedder.texts == []
    assert texts(Index.open(tmp_path / "index")) == [OLD]
    (moved / "a.md").rename(moved / "b.md")
    assert changes(ingest([moved], tmp_path / "index", WordEmbedder())) == (1, 0, 0, 1)


def test_a_file_that_cannot_be_read_any_more_stays_as_it_was(docs: Path, tmp_path: Path) -> None:
    (docs / "b.csv").write_text("name,place\nAnn,Oslo\n")
    ingest([docs], tmp_path / "index", WordEmbedder())
    (docs / "b.csv").write_bytes(b"\0\1")
    report = ingest([docs], tmp_path / "index", WordEmbedder())
    assert len(report.skipped) == 1
    assert report.documents == 2


def test_a_document_is_taken_out_when_who_may_read_it_is_not_certain_any_more(docs: Path, tmp_path: Path) -> None:
    (docs / "b.txt").write_text("Kept.")
    ingest([docs], tmp_path / "index", WordEmbedder())
    (docs / "a.meta.yaml").write_text("allow: staff\n")  # not a list
    report = ingest([docs], tmp_path / "index", WordEmbedder())
    assert "so who may read it is not certain, and it is found no more" in report.skipped[0]
    assert texts(Index.open(tmp_path / "index")) == ["Kept."]


def test_another_way_of_splitting_is_a_mismatch_until_the_index_is_made_anew(docs: Path, index: Path) -> None:
    with pytest.raises(
        IndexMismatch, match=r"split with size 900, overlap 150, and size 90, overlap 0 is asked for.*--re"
    ):
        ingest([docs], index, WordEmbedder(), chunking=Chunking(90, 0))
    ingest([docs], index, WordEmbedder(), chunking=Chunking(90, 0), anew=True)
    assert texts(Index.open(index)) == [NEW]


def test_documents_that_are_no_files_are_added_and_replaced(tmp_path: Path) -> None:
    first = [Document("x", "one"), Document("y", "two", metadata={"kind": "a"})]
    assert changes(ingest_documents(first, tmp_path / "index", WordEmbedder())) == (2, 0, 0, 0)
    second = [Document("y", "two", metadata={"kind": "b"}), Document("z", "three")]
    assert changes(ingest_documents(second, tmp_path / "index", WordEmbedder())) == (1, 1, 0, 0)
    assert sorted(texts(Index.open(tmp_path / "index"))) == ["one", "three", "two"]


def test_many_documents_are_put_a_window_at_a_time_and_none_is_lost(tmp_path: Path) -> None:
    documents = [Document(str(n), f"text number {n}") for n in range(2 * WINDOW + 5)]
    report = ingest_documents(documents, tmp_path / "index", WordEmbedder())
    assert (report.documents, report.passages) == (2 * WINDOW + 5, 2 * WINDOW + 5)
    index = Index.open(tmp_path / "index")
    [passage] = index.passages(index.by_words([f"{WINDOW + 1}"], 1, None))
    assert passage.source == str(WINDOW + 1)
