"""What a crash, a full disk, a second writer or damage does to an index: it is the old or the new one, or says so."""

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import WordEmbedder
from trackbed.retrieval.bm25 import Bm25Retriever
from trackbed.retrieval.errors import IndexMismatch, IndexMissing, RetrievalError
from trackbed.retrieval.faiss_index import FaissRetriever
from trackbed.retrieval.index import Index
from trackbed.retrieval.ingest import ingest
from trackbed.retrieval.manifest import read_manifest
from trackbed.retrieval.types import Query
from trackbed.retrieval.upkeep import verify
from trackbed.retrieval.writer import IndexWriter

QUERY = Query("trains", frozenset())


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("Old trains.")
    (folder / "b.md").write_text("Trains that go.")
    (folder / "c.md").write_text("Trains that stay.")
    return folder


@pytest.fixture
def index(docs: Path, tmp_path: Path) -> Path:
    """An index of the old texts, with changes waiting to be ingested: one new, one changed, one gone."""
    ingest([docs], tmp_path / "index", WordEmbedder())
    (docs / "a.md").write_text("New trains.")
    (docs / "b.md").unlink()
    (docs / "d.md").write_text("Trains that come.")
    return tmp_path / "index"


OLD = ["Old trains.", "Trains that go.", "Trains that stay."]
NEW = ["New trains.", "Trains that come.", "Trains that stay."]

# Ingests in other processes, forks of one that has loaded what they need.
PRELUDE = """
import os, random, resource, shutil, signal, sys, threading, time
from pathlib import Path
import numpy as np
from tests.fakes import WordEmbedder
from trackbed.retrieval.errors import RetrievalError
from trackbed.retrieval.index import Hits, Index
from trackbed.retrieval.ingest import ingest
from trackbed.retrieval.upkeep import verify
from trackbed.retrieval.words import analyzer

docs, index = map(Path, sys.argv[1:3])
NONE = Hits(np.empty(0, np.int64), np.empty(0, np.float32))
old = shutil.copytree(index, index.with_name("old"))
analyzer()

def held():
    opened = Index.open(index)
    assert not verify(index), verify(index)
    return sorted(passage.text for passage in opened.passages(opened.filled(NONE, 99, None)))

def child(work):
    "The status of a process that ingests, with the old index as it was."
    shutil.rmtree(index)
    shutil.copytree(old, index)
    if (number := os.fork()) == 0:
        try:
            work()
        except RetrievalError as error:
            print(error, file=sys.stderr)
            os._exit(9)
        os._exit(0)
    return number
"""
# A step is a file or folder below the index that is opened, made, renamed, listed or removed.
STEPS = """
NAMES = {"open", "os.mkdir", "os.rename", "os.listdir", "os.scandir", "os.remove", "os.rmdir"}
every = int(sys.argv[3])

def until(step):
    seen = 0
    def count(event, args):
        nonlocal seen
        # Files of a folder that is removed are named without it.
        if event in NAMES and (str(index) in str(args[0]) or event in ("os.remove", "os.rmdir")):
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    ingest([docs], index, WordEmbedder())

step, status = 1, None
while status != 0:
    status = os.waitpid(child(lambda: until(step)), 0)[1]
    assert status in (0, signal.SIGKILL), status
    print(held())
    step += every
# What the killed ones left is removed by the next.
ingest([docs], index, WordEmbedder())
assert len(list(index.glob("segment-*"))) == len(Index.open(index).segments)
"""
MOMENTS = """
chance = random.Random(int(sys.argv[3]))
started = time.monotonic()
os.waitpid(child(lambda: ingest([docs], index, WordEmbedder())), 0)
lasts = time.monotonic() - started
for _ in range(int(sys.argv[3])):
    number = child(lambda: ingest([docs], index, WordEmbedder()))
    time.sleep(chance.random() * lasts * 1.2)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    print(held())
"""
FULL = """
def starved(limit):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    ingest([docs], index, WordEmbedder())

for limit in (0, 50, 300, 2200):
    assert os.waitpid(child(lambda: starved(limit)), 0)[1] == 9 << 8, limit
    print(held())
    assert len(list(index.glob("segment-*"))) == 1
"""


def elsewhere(program: str, *words: object) -> tuple[list[str], str]:
    """What another process printed, line by line, and its errors."""
    command = [sys.executable, "-W", "ignore", "-c", PRELUDE + program, *map(str, words)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_a_process_killed_at_any_step_leaves_the_old_index_or_the_new_one(docs: Path, index: Path) -> None:
    held, _ = elsewhere(STEPS, docs, index, 4)
    assert held == [str(OLD)] * held.count(str(OLD)) + [str(NEW)] * held.count(str(NEW))
    assert held.count(str(OLD)) > 4
    assert held.count(str(NEW)) > 2  # killed while it removed what was old


@pytest.mark.many
def test_a_process_killed_at_each_step_and_at_a_thousand_moments_leaves_the_old_index_or_the_new_one(
    docs: Path, index: Path
) -> None:
    held, _ = elsewhere(STEPS, docs, index, 1)
    assert held == [str(OLD)] * held.count(str(OLD)) + [str(NEW)] * held.count(str(NEW))
    held, _ = elsewhere(MOMENTS, docs, index.with_name("old").rename(index.with_name("again")), 1000)
    assert len(held) == 1000
    assert set(held) == {str(OLD), str(NEW)}


def test_a_disk_that_takes_no_more_leaves_the_old_index(docs: Path, index: Path) -> None:
    # A limit on the length of files makes writing fail in the lock, the segment, the marks or the manifest.
    held, errors = elsewhere(FULL, docs, index)
    assert held == [str(OLD)] * 4
    assert errors.count(f"the index at {index} could not be written") == 4


def test_a_second_writer_is_told_of_the_first_and_its_lock(docs: Path, index: Path) -> None:
    busy = pytest.raises(RetrievalError, match=rf"another process, {os.getpid()}; .*lock {index}/\.lock")
    with IndexWriter(index, WordEmbedder(), read_manifest(index).chunking), busy:
        ingest([docs], index, WordEmbedder(), wait=0.1)
    assert ingest([docs], index, WordEmbedder(), wait=0.1).updated == 1


def test_a_second_writer_waits_a_while(docs: Path, index: Path) -> None:
    with (index / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        threading.Timer(0.2, lambda: fcntl.flock(lock, fcntl.LOCK_UN)).start()
        assert ingest([docs], index, WordEmbedder(), wait=30).updated == 1


@pytest.mark.parametrize("kind", [FaissRetriever, Bm25Retriever])
async def test_who_has_an_index_open_sees_the_next_generation_and_outlives_damage(
    docs: Path, index: Path, kind: type[FaissRetriever] | type[Bm25Retriever]
) -> None:
    retriever = kind.open(index, WordEmbedder())

    async def found() -> list[str]:
        return sorted(passage.text for passage in await retriever.search(QUERY, 9))

    before = retriever.index
    assert await found() == OLD
    ingest([docs], index, WordEmbedder())
    assert await found() == NEW
    assert sorted(passage.text for passage in before.passages(before.by_words(["trains"], 9, None))) == OLD
    (index / "manifest.json").write_text("{")
    assert await found() == NEW
    (index / "manifest.json").unlink()
    assert await found() == NEW


async def test_searches_go_on_while_a_writer_writes_again_and_again(docs: Path, index: Path) -> None:
    retriever = FaissRetriever.open(index, WordEmbedder())
    done = threading.Event()

    def write() -> None:
        for n in range(12):
            (docs / "a.md").write_text(f"Trains {n}.")
            ingest([docs], index, WordEmbedder())
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    searches = 0
    while not done.is_set():
        assert len(await retriever.search(QUERY, 3)) == 3
        searches += 1
    writer.join()
    assert searches
    assert "Trains 11." in {passage.text for passage in await retriever.search(QUERY, 3)}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_every_byte_that_changes_is_found(docs: Path, index: Path, data: st.DataObject) -> None:
    files = sorted(file for file in index.rglob("*") if file.is_file() and file.name != ".lock" and file.stat().st_size)
    file = data.draw(st.sampled_from(files))
    whole = file.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    file.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
    try:
        wrong = verify(index)
        assert wrong == (f"{file}: its bytes are not those that were written",)
    except RetrievalError:
        assert file.name == "manifest.json"
    finally:
        file.write_bytes(whole)
    assert verify(index) == ()


def test_a_passage_whose_bytes_changed_is_not_given_out(index: Path) -> None:
    [file] = index.glob("*/passages.jsonl")
    file.write_bytes(file.read_bytes().replace(b"go", b"no"))
    opened = Index.open(index)
    with pytest.raises(RetrievalError, match=rf"{file} is damaged; make the index anew"):
        opened.passages(opened.by_words(["trains"], 9, None))


def test_damaged_lists_of_readers_let_nobody_read(docs: Path, tmp_path: Path) -> None:
    (docs / "a.meta.yaml").write_text("allow: [staff]\n")
    ingest([docs], tmp_path / "index", WordEmbedder())
    [file] = (tmp_path / "index").glob("*/facts.jsonl")
    file.write_bytes(file.read_bytes().replace(b"staff", b"stuff"))
    with pytest.raises(RetrievalError, match=rf"{file} is damaged"):
        Index.open(tmp_path / "index").allowed(Query("", frozenset({"stuff"})))


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b'{"format": 2}', b"\xff"])
def test_a_damaged_manifest_is_named(index: Path, damage: bytes) -> None:
    (index / "manifest.json").write_bytes(damage)
    with pytest.raises(RetrievalError, match=r"manifest\.json is damaged; make the index anew: `trackbed ingest"):
        FaissRetriever.open(index, WordEmbedder())


@pytest.mark.parametrize("name", ["passages.jsonl", "vectors.f32", "words.rows"])
def test_a_file_that_is_cut_short_or_missing_is_named(index: Path, name: str) -> None:
    [file] = index.glob(f"*/{name}")
    os.truncate(file, 10)
    with pytest.raises(RetrievalError, match=f"{file} is damaged"):
        FaissRetriever.open(index, WordEmbedder())
    assert verify(index)[0].startswith(f"{file}: 10 bytes, and ")
    file.unlink()
    with pytest.raises(RetrievalError, match=f"{file} is missing"):
        FaissRetriever.open(index, WordEmbedder())
    assert verify(index) == (f"{file}: missing",)


def test_a_damaged_index_is_made_anew_in_its_place(docs: Path, index: Path) -> None:
    (index / "manifest.json").write_text("{")
    with pytest.raises(RetrievalError, match="damaged"):
        ingest([docs], index, WordEmbedder())
    ingest([docs], index, WordEmbedder(), anew=True)
    assert (verify(index), len(Index.open(index))) == ((), 3)
    assert len(list(index.glob("segment-*"))) == 1


def test_an_index_of_the_format_before_says_how_it_is_made_anew(docs: Path, tmp_path: Path) -> None:
    index = tmp_path / "former"
    (index / "generation-1").mkdir(parents=True)
    (index / "manifest.json").write_text('{"format": 1, "generation": "generation-1"}')
    for use in (Index.open, lambda path: ingest([docs], path, WordEmbedder())):
        with pytest.raises(IndexMismatch, match=rf"is in format 1, .*`trackbed ingest PATHS --to {index} --rebuild`"):
            use(index)
    ingest([docs], index, WordEmbedder(), anew=True)
    assert len(Index.open(index)) == 3
    assert not list(index.glob("generation-*"))


def test_verifying_what_is_no_index_says_so(tmp_path: Path) -> None:
    with pytest.raises(IndexMissing, match="there is no index"):
        verify(tmp_path)
