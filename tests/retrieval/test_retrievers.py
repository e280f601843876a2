"""What every retriever of the table does; a new one is held to it by its line in RETRIEVERS."""

import asyncio
import itertools
import pkgutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes import WordEmbedder
from tests.postgres_server import Server
from trackbed.retrieval import RETRIEVERS, IndexMismatch, IndexMissing, Query, Retriever
from trackbed.retrieval.chunk import Chunking
from trackbed.retrieval.ingest import ingest, ingest_into
from trackbed.retrieval.postgres.connection import PostgresIndex
from trackbed.retrieval.postgres.write import PostgresWriter
from trackbed.retrieval.types import AnyOf, Between, Condition

NOBODY = frozenset[str]()
NUMBERS = itertools.count()
PAGES = {
    "animals/cat.md": "# Cats\n\nA cat is a small animal that sleeps all day.",
    "animals/dog.md": "# Dogs\n\nA dog is an animal that barks at the door.",
    "trains.md": "# Trains\n\nA train runs on rails of steel.",
    "empty-words.md": "# Other\n\nNothing of note.",
}

SIDECARS = {
    "animals/cat.md.meta.yaml": "kind: animal\nyear: 2023\ntags: [small, quiet]\n",
    "animals/dog.md.meta.yaml": "kind: animal\nyear: 2024\ntags: [loud]\n",
    "trains.md.meta.yaml": "kind: machine\nyear: 2024\n",
}


class SlowEmbedder(WordEmbedder):
    asked = 0

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += 1
        time.sleep(0.2)
        return super().embed(texts)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    for name, text in PAGES.items():
        (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / name).write_text(text)
    for name, said in SIDECARS.items():
        (tmp_path / "docs" / name).write_text(said)
    return tmp_path / "docs"


def folder(request: pytest.FixtureRequest, docs: Path) -> tuple[Path, Path]:
    ingest([docs], docs.parent / "index", WordEmbedder())
    return docs.parent / "index", docs.parent / "none"


def tables(request: pytest.FixtureRequest, docs: Path) -> tuple[PostgresIndex, PostgresIndex]:
    server: Server = request.getfixturevalue("postgres")
    index, missing = PostgresIndex(server.url, f"pages_{next(NUMBERS)}"), PostgresIndex(server.url, "none")
    update(index, docs)
    return index, missing


def update(index: object, docs: Path) -> None:
    """Ingest the documents into the index as they are now."""
    if isinstance(index, PostgresIndex):
        with PostgresWriter.open(index, WordEmbedder(), Chunking()._asdict()) as writer:
            ingest_into(writer, [docs], WordEmbedder())
    else:
        assert isinstance(index, Path)
        ingest([docs], index, WordEmbedder())


# How an index of each kind is made of documents; what is given is its place, and that of one that is not there.
MADE = {"bm25": folder, "faiss": folder, "hybrid": folder, "postgres": tables}


@pytest.fixture(params=RETRIEVERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def kind(name: str) -> type:
    found: type = pkgutil.resolve_name(RETRIEVERS[name])
    return found


@pytest.fixture
def places(name: str, request: pytest.FixtureRequest, docs: Path) -> tuple[object, object]:
    return MADE[name](request, docs)


@pytest.fixture
def index(places: tuple[object, object]) -> object:
    return places[0]


@pytest.fixture
def retriever(kind: type, index: object) -> Retriever:
    opened: Retriever = kind.open(index, WordEmbedder())  # type: ignore[attr-defined]
    return opened


async def test_the_best_passage_comes_first(retriever: Retriever) -> None:
    passages = await retriever.search(Query("which animal barks at the door?", NOBODY), 4)
    assert passages[0].source == "animals/dog.md"
    assert [p.score for p in passages] == sorted((p.score for p in passages), reverse=True)
    assert all(-1 <= p.score <= 1 for p in passages)


async def test_passages_are_stretches_of_their_sources(retriever: Retriever) -> None:
    for passage in await retriever.search(Query("animal", NOBODY), 4):
        assert passage.text == PAGES[passage.source][passage.start : passage.end]


async def test_no_more_than_asked_for_and_no_more_than_there_are(retriever: Retriever) -> None:
    assert [len(await retriever.search(Query("animal", NOBODY), k)) for k in (0, 1, 3, 4, 99)] == [0, 1, 3, 4, 4]


async def test_no_passage_is_given_twice(retriever: Retriever) -> None:
    passages = await retriever.search(Query("a", NOBODY), 99)
    assert len({(p.source, p.start) for p in passages}) == len(passages)


@pytest.mark.parametrize("query", ["", " ", "\0", "lone \ud800", "w" * 100_000, "\u6f22\u5b57"])
async def test_any_text_is_a_query(retriever: Retriever, query: str) -> None:
    assert len(await retriever.search(Query(query, NOBODY), 2)) == 2


async def test_the_same_query_finds_the_same(retriever: Retriever) -> None:
    assert await retriever.search(Query("animal", NOBODY), 4) == await retriever.search(Query("animal", NOBODY), 4)


async def test_a_search_does_not_hold_up_the_loop(kind: type, index: object) -> None:
    embedder = SlowEmbedder()
    retriever: Retriever = kind.open(index, embedder)  # type: ignore[attr-defined]
    search = asyncio.create_task(retriever.search(Query("animal", NOBODY), 1))
    ticks = 0
    while not search.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks >= 5 or not embedder.asked


async def sources(retriever: Retriever, query: Query, k: int = 9) -> set[str]:
    return {passage.source for passage in await retriever.search(query, k)}


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"kind": AnyOf(("animal",))}, {"animals/cat.md", "animals/dog.md"}),
        ({"kind": AnyOf(("animal",)), "year": Between(2024, None)}, {"animals/dog.md"}),
        ({"tags": AnyOf(("quiet", "loud"))}, {"animals/cat.md", "animals/dog.md"}),
        ({"year": AnyOf(("2024",))}, set()),
        ({"source": AnyOf(("trains.md", "none.md"))}, {"trains.md"}),
        ({"kind": AnyOf(())}, set()),
    ],
)
async def test_a_filter_lets_through_what_meets_it_and_as_many_as_there_are(
    retriever: Retriever, conditions: dict[str, Condition], expected: set[str]
) -> None:
    assert await sources(retriever, Query("a train on rails", NOBODY, conditions)) == expected


async def test_one_of_few_that_a_filter_lets_through_is_found_by_a_search_for_one(retriever: Retriever) -> None:
    query = Query("a train on rails of steel", NOBODY, {"tags": AnyOf(("loud",))})
    assert await sources(retriever, query, 1) == {"animals/dog.md"}


async def test_what_the_same_in_other_words_finds_counts_too(retriever: Retriever) -> None:
    found = await retriever.search(Query("rails of steel", NOBODY, also=("barks at the door",)), 2)
    assert {passage.source for passage in found} == {"trains.md", "animals/dog.md"}


async def test_changes_and_readers_are_seen_by_a_retriever_that_is_open(
    retriever: Retriever, index: object, docs: Path
) -> None:
    everything = Query("animal", NOBODY)
    assert len(await sources(retriever, everything)) == 4
    (docs / "animals" / "dog.md.meta.yaml").write_text("allow: [staff, board]\n")
    (docs / "animals" / "cat.md").unlink()
    (docs / "animals" / "cat.md.meta.yaml").unlink()
    (docs / "new.md").write_text("A new animal.")
    update(index, docs)
    assert await sources(retriever, everything) == {"new.md", "trains.md", "empty-words.md"}
    assert "animals/dog.md" in await sources(retriever, Query("animal", frozenset({"board"})))
    assert "animals/dog.md" not in await sources(retriever, Query("animal", frozenset({"sales"})))


def test_an_index_that_is_missing_or_of_another_embedder_is_not_opened(
    kind: type, places: tuple[object, object]
) -> None:
    class Other(WordEmbedder):
        sha256 = "0" * 64

    with pytest.raises(IndexMissing):
        kind.open(places[1], WordEmbedder())  # type: ignore[attr-defined]
    with pytest.raises(IndexMismatch):
        kind.open(places[0], Other())  # type: ignore[attr-defined]


def test_the_table_imports_nothing_heavy() -> None:
    heavy = "{'faiss', 'torch', 'bs4', 'pypdf', 'psycopg', 'pgvector'}"
    program = f"import sys, trackbed.retrieval; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
