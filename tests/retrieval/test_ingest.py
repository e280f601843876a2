import json
import os
import subprocess
import sys
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
from trackbed.retrieval.ingest import ingest
from trackbed.retrieval.manifest import read_manifest
from trackbed.retrieval.searchable import searchable
from trackbed.retrieval.types import Passage, Query

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


# Ingests in another process, which can be killed or starved for real.
PRELUDE = """
import os, resource, shutil, signal, sys
from pathlib import Path
from tests.fakes import WordEmbedder
from tests.retrieval.test_ingest import texts
from trackbed.retrieval.index import Index
from trackbed.retrieval.ingest import ingest
from trackbed.retrieval.words import analyzer
docs, index = map(Path, sys.argv[1:])
"""


def elsewhere(docs: Path, index: Path, program: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", PRELUDE + program, str(docs), str(index)]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)


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


# The process forks a child for each step, kills it there, and says what the index then holds. A step is a file
# or folder below the index that is opened, made, renamed, listed or removed.
KILLING = """
STEPS = {"open", "os.mkdir", "os.rename", "os.listdir", "os.scandir", "os.remove", "os.rmdir"}

def ingest_until(step):
    seen = 0
    def count(event, args):
        nonlocal seen
        # Files of a folder that is removed are named without it.
        if event in STEPS and (str(index) in str(args[0]) or event in ("os.remove", "os.rmdir")):
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    ingest([docs], index, WordEmbedder())
    os._exit(0)

analyzer()  # loads what the children need, once
old = shutil.copytree(index, index.with_name("old"))
step, status = 0, None
while status != 0:
    step += 1
    shutil.rmtree(index)
    shutil.copytree(old, index)
    if (child := os.fork()) == 0:
        ingest_until(step)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    print(*texts(Index.open(index)))
"""


def test_a_process_killed_at_any_step_leaves_the_old_index_or_the_new_one(docs: Path, index: Path) -> None:
    done = elsewhere(docs, index, KILLING)
    held = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert held == [OLD] * held.count(OLD) + [NEW] * held.count(NEW)
    assert held.count(OLD) > 8
    assert held.count(NEW) > 3  # killed while it removed what was old
    assert len(list(index.glob("segment-*"))) == 1


@pytest.mark.parametrize("limit", [0, 100, 400])
async def test_a_disk_that_takes_no_more_leaves_the_old_index(docs: Path, index: Path, limit: int) -> None:
    # A limit on the length of files makes writing fail in the passages, the vectors or the manifest.
    done = elsewhere(
        docs,
        index,
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "ingest([docs], index, WordEmbedder())",
    )
    assert f"RetrievalError: the index at {index} could not be written" in done.stderr
    assert await found(index) == OLD
    assert len(list(index.glob("segment-*"))) == 1


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


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b'{"format": 2}', b"\xff"])
def test_a_damaged_manifest_is_named(index: Path, damage: bytes) -> None:
    (index / "manifest.json").write_bytes(damage)
    with pytest.raises(RetrievalError, match=r"manifest\.json is damaged; make the index anew: `trackbed ingest"):
        FaissRetriever.open(index, WordEmbedder())


@pytest.mark.parametrize("name", ["passages.jsonl", "vectors.f32", "words.rows"])
def test_damaged_data_is_named(index: Path, name: str) -> None:
    [file] = index.glob(f"*/{name}")
    os.truncate(file, 10)
    with pytest.raises(RetrievalError, match=f"{file} is damaged"):
        FaissRetriever.open(index, WordEmbedder())
    file.unlink()
    with pytest.raises(RetrievalError, match=f"{file} is missing"):
        FaissRetriever.open(index, WordEmbedder())


def test_a_passage_is_searched_under_its_headings() -> None:
    assert searchable(Passage("text", "a.md", 0, 4, heading="A > B", metadata={"title": "A"})) == "A > B\ntext"
    assert searchable(Passage("text", "a.txt", 0, 4, metadata={"title": "Manual"})) == "Manual\ntext"
    assert searchable(Passage("text", "a.txt", 0, 4)) == "text"
