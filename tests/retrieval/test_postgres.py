"""An index in PostgreSQL, on a real server."""

import asyncio
import itertools
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.fakes import WordEmbedder
from tests.postgres_server import Server
from trackbed.rails.sync import run_sync
from trackbed.retrieval.allowed import allowed
from trackbed.retrieval.errors import IndexMismatch, IndexMissing, RetrievalError
from trackbed.retrieval.ingest import IngestReport, ingest_into
from trackbed.retrieval.postgres.connection import Connections, PostgresIndex
from trackbed.retrieval.postgres.search import PostgresRetriever
from trackbed.retrieval.postgres.tables import INDEXED_FROM, read_manifest, statement
from trackbed.retrieval.postgres.text import restored, stored
from trackbed.retrieval.postgres.upkeep import describe, verify
from trackbed.retrieval.postgres.write import PostgresWriter, delete_index
from trackbed.retrieval.types import AnyOf, Between, Condition, Embedder, Known, Passage, Query, Shelved, Value

ROOT = Path(__file__).parents[2]
NOBODY = frozenset[str]()
CHUNKING = {"size": 900, "overlap": 100}
NUMBERS = itertools.count()


@pytest.fixture
def index(postgres: Server) -> PostgresIndex:
    """The place of an index that is not there yet."""
    return PostgresIndex(postgres.url, f"kb{next(NUMBERS)}")


def passage(text: str, source: str = "a.md", **metadata: Value) -> Passage:
    return Passage(text, source, 0, len(text), metadata=metadata)


def put(writer: PostgresWriter, *passages: Passage, digest: str = "0") -> None:
    """Each as a document of its own."""
    vectors = writer.embedder.embed([each.text for each in passages])
    for each, vector in zip(passages, vectors, strict=True):
        writer.put(each.source, Known(digest, "/docs", 1), [each], vector[None])


def write(index: PostgresIndex, *passages: Passage, embedder: Embedder = WordEmbedder()) -> None:
    with PostgresWriter.open(index, embedder, CHUNKING) as writer:
        put(writer, *passages)
        writer.commit()


async def found(index: PostgresIndex, query: Query | str, k: int = 9) -> list[str]:
    retriever = PostgresRetriever.open(index, WordEmbedder())
    passages = await retriever.search(Query(query, NOBODY) if isinstance(query, str) else query, k)
    retriever.close()
    return [each.source for each in passages]


# Passages that say something of a key, each another thing; some have readers.
SAID: tuple[Value, ...] = (
    "", "a", "b", "ab", "\0", "\x01", "\U0001f600", "\ue000", "\uffff", "3", "true", "it's", "100%", '"', "\\",
    0, 1, 2, -3, 2.5, 3.0, 0.1, 10**20, 1e16, True, False,
    (), ("a",), ("a", "b"), ("", "\0"), ("true",), ("3",),
)  # fmt: skip
READERS: tuple[Value, ...] = ("staff", ("staff", "board"), (), ("sales",), True, "true", "\0", 3)
MANY = [
    *(passage("Some words.", f"{number}.md", key=value) for number, value in enumerate(SAID)),
    *(passage("Some words.", f"k{number}.md", allow=value, key="a") for number, value in enumerate(READERS)),
    replace(passage("Some words.", "pages.md"), heading="A > B", page=3, pages=(40, 90), gap="\n\n"),
    replace(passage("Some words.", "\0.md"), metadata={"it's": "a", "source": "0.md"}),
]
TEXTS = st.sampled_from([value for value in SAID if isinstance(value, str)]) | st.text(max_size=2)
FINITE = st.integers(-5, 5) | st.floats(-5, 5) | st.sampled_from([10**20, 1e16, 1e300, 0.1, 3.0])
SCALARS = st.one_of(TEXTS, FINITE, st.booleans(), st.floats(allow_nan=True, allow_infinity=True))
BOUNDS = st.none() | SCALARS
CONDITIONS: st.SearchStrategy[Condition] = st.one_of(
    st.lists(SCALARS, max_size=3).map(lambda values: AnyOf(tuple(values))), st.builds(Between, BOUNDS, BOUNDS)
)
KEYS = st.sampled_from(["key", "allow", "source", "it's", "none", "\0"])
GROUPS = st.frozensets(st.sampled_from(["staff", "board", "True", "true", "3", "\0", "\ufffd", "it's"]))


@pytest.fixture(scope="module")
def many(postgres: Server) -> PostgresRetriever:
    index = PostgresIndex(postgres.url, "many")
    write(index, *MANY)
    return PostgresRetriever.open(index, WordEmbedder())


@given(groups=GROUPS, conditions=st.dictionaries(KEYS, CONDITIONS, max_size=2))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_found_is_what_the_plain_rule_allows(
    many: PostgresRetriever, groups: frozenset[str], conditions: Mapping[str, Condition]
) -> None:
    query = Query("words", groups, conditions)
    passages = run_sync(many.search(query, 99))
    assert {each.source for each in passages} == {each.source for each in MANY if allowed(each, query)}


def test_a_passage_comes_back_as_it_was_put(many: PostgresRetriever) -> None:
    groups = frozenset({"staff", "sales", "True", "true", "\0", "3"})
    passages = run_sync(many.search(Query("words", groups), 99))
    put_in = {each.source: each for each in MANY if each.metadata.get("allow") != ()}
    assert {each.source: replace(each, score=0) for each in passages} == put_in
    assert {each.source: each.gap for each in passages} == {source: each.gap for source, each in put_in.items()}


@given(st.text(alphabet=st.characters(), max_size=6), st.text(alphabet=st.characters(), max_size=6))
def test_any_two_texts_are_stored_in_their_order_and_come_back(one: str, other: str) -> None:
    for text in (one, other):
        assert "\0" not in stored(text)
        stored(text).encode()
        assert restored(stored(text)) == text
    assert (one < other) == (stored(one) < stored(other))


async def test_words_find_what_vectors_do_not(index: PostgresIndex) -> None:
    class Blind(WordEmbedder):
        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.eye(1, self.dimension, dtype=np.float32).repeat(len(texts), axis=0)

    write(index, *(passage(f"Page {n} of nothing.", f"{n}.md") for n in range(20)), passage("A zeppelin.", "z.md"))
    retriever = PostgresRetriever.open(index, Blind())
    assert [each.source for each in await retriever.search(Query("zeppelins?", NOBODY), 1)] == ["z.md"]


async def test_a_rare_word_weighs_more_than_many_common_ones(index: PostgresIndex) -> None:
    class Single(WordEmbedder):
        """Knows one word only."""

        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.eye(2, self.dimension, dtype=np.float32)[[int("zeppelin" in text) for text in texts]]

    common = (passage(f"Trains run late and stop at night, number {n}.", f"{n}.md") for n in range(20))
    write(index, *common, passage("A zeppelin.", "z.md"), embedder=Single())
    sought = Query("Which trains run late, stop at night, or meet a zeppelin?", NOBODY)
    assert [each.source for each in await PostgresRetriever.open(index, Single()).search(sought, 1)] == ["z.md"]


async def test_it_is_known_in_how_many_passages_a_word_is(index: PostgresIndex) -> None:
    write(
        index, passage("Trains run on rails.", "a.md"), passage("Trains stop.", "b.md"), passage("It's a cat.", "c.md")
    )
    with PostgresWriter.open(index, WordEmbedder(), CHUNKING) as writer:
        put(writer, passage("Boats stop.", "b.md"), passage("Boats, boats.", "d.md"))
        writer.delete("c.md")
        writer.commit()
    with psycopg.connect(index.connection) as connection:
        counted = connection.execute(f"SELECT word, ndoc FROM ts_stat('SELECT words FROM {index.name}_passages')")
        kept = connection.execute(f"SELECT word, passages FROM {index.name}_words")
        assert (
            dict(kept.fetchall()) == dict(counted.fetchall()) == {"train": 1, "run": 1, "rail": 1, "boat": 2, "stop": 1}
        )


async def test_what_the_other_words_of_a_query_find_counts_too(index: PostgresIndex) -> None:
    write(index, passage("Trains run on rails.", "a.md"), passage("Boats float.", "b.md"), passage("Cats.", "c.md"))
    assert set(await found(index, Query("trains", NOBODY, also=("boats",)), 2)) == {"a.md", "b.md"}


async def test_what_stands_around_a_passage_is_known_and_its_vector(index: PostgresIndex) -> None:
    texts = ["Trains run.", "Boats float.", "Cats sleep.", "Dogs bark."]
    parts = [Passage(text, "a.md", 20 * n, 20 * n + len(text), gap="\n") for n, text in enumerate(texts)]
    vectors = WordEmbedder().embed(texts)
    with PostgresWriter.open(index, WordEmbedder(), CHUNKING) as writer:
        put(writer, passage("Another.", "0.md"))
        writer.put("a.md", Known("0", "", 4), parts, vectors)
        put(writer, passage("Another.", "b.md"))
        writer.commit()
    retriever = PostgresRetriever.open(index, WordEmbedder())
    assert isinstance(retriever, Shelved)
    [hit] = await retriever.search(Query("boats", NOBODY), 1)
    shelf = retriever.index
    assert [one.text for one in shelf.around(hit, 1, 1)] == texts[:3]
    assert shelf.around(hit, 0, 0) == (hit,)
    assert [one.text for one in shelf.around(hit, 9, 9)] == texts
    gone = replace(hit, start=1)
    assert shelf.around(gone, 1, 1) == ()
    assert np.allclose(shelf.vectors_of([parts[2], gone, hit]), [vectors[2], 0 * vectors[0], vectors[1]])


async def test_nothing_counts_before_it_is_committed(index: PostgresIndex) -> None:
    write(index, passage("Trains run on rails.", "a.md"))
    with PostgresWriter.open(index, WordEmbedder(), CHUNKING) as writer:
        put(writer, passage("Trains are late.", "b.md"))
        writer.delete("a.md")
        assert await found(index, "trains") == ["a.md"]
        writer.commit()
        assert await found(index, "trains") == ["b.md"]
        assert list(writer.known()) == ["b.md"]


async def test_an_ingestion_that_fails_was_none(index: PostgresIndex) -> None:
    write(index, passage("Trains run on rails.", "a.md"))
    with PostgresWriter.open(index, WordEmbedder(), CHUNKING) as writer:
        put(writer, *(passage("Trains are late.", f"{n}.md") for n in range(2000)))
        writer.delete("a.md")
    assert await found(index, "trains") == ["a.md"]


async def test_of_a_document_what_was_said_last_counts(index: PostgresIndex) -> None:
    with PostgresWriter.open(index, WordEmbedder(), CHUNKING) as writer:
        put(writer, passage("Trains.", "a.md"), passage("Boats.", "b.md"), passage("Cats.", "c.md"))
        put(writer, passage("Dogs.", "a.md"), digest="1")
        writer.delete("b.md")
        writer.delete("c.md")
        put(writer, passage("Cows.", "c.md"))
        writer.commit()
        known = writer.known()
    assert known == {"a.md": Known("1", "/docs", 1), "c.md": Known("0", "/docs", 1)}
    retriever = PostgresRetriever.open(index, WordEmbedder())
    assert {each.text for each in await retriever.search(Query("?", NOBODY), 9)} == {"Dogs.", "Cows."}


async def test_an_ingestion_finds_what_changed(index: PostgresIndex, tmp_path: Path) -> None:
    def ingested(folder: str) -> IngestReport:
        with PostgresWriter.open(index, WordEmbedder(), CHUNKING) as writer:
            return ingest_into(writer, [tmp_path / folder], WordEmbedder())

    (tmp_path / "docs").mkdir()
    for name in ("a.md", "b.md", "c.md"):
        (tmp_path / "docs" / name).write_text(f"Trains run on rails, says {name}.")
    (tmp_path / "docs" / "broken.pdf").write_bytes(b"broken")
    first = ingested("docs")
    assert (first.documents, first.passages, first.added, len(first.skipped)) == (3, 3, 3, 1)
    (tmp_path / "docs" / "a.md").write_text("Boats float.")
    (tmp_path / "docs" / "b.md").unlink()
    second = ingested("docs")
    assert (second.updated, second.unchanged, second.deleted, second.documents) == (1, 1, 1, 2)
    assert set(await found(index, "boats")) == {"a.md", "c.md"}
    (tmp_path / "docs").rename(tmp_path / "moved")
    assert ingested("moved").unchanged == 2
    with PostgresWriter.open(index, WordEmbedder(), CHUNKING) as writer:
        assert {known.root for known in writer.known().values()} == {str(tmp_path / "moved")}


async def test_an_index_is_made_anew_whatever_it_was(index: PostgresIndex) -> None:
    class Other(WordEmbedder):
        sha256 = "0" * 64

    write(index, passage("Trains.", "a.md"))
    with PostgresWriter.open(index, Other(), CHUNKING, anew=True) as writer:
        assert writer.known() == {}
        put(writer, passage("Trains.", "b.md"))
        assert await found(index, "trains") == ["a.md"]
        writer.commit()
    retriever = PostgresRetriever.open(index, Other())
    assert [each.source for each in await retriever.search(Query("trains", NOBODY), 9)] == ["b.md"]


def test_an_index_says_what_it_holds_and_what_in_it_does_not_agree(index: PostgresIndex) -> None:
    write(index, passage("Trains run.", "a.md"), passage("Boats float.", "b.md"))
    described = describe(index)
    assert (described.manifest.documents, described.manifest.passages, described.roots) == (2, 2, {"/docs": 2})
    assert described.bytes > 10_000
    assert verify(index) == ()
    with psycopg.connect(index.connection) as connection:
        connection.execute(statement("DELETE FROM {passages} WHERE source = 'b.md'", index))
    assert [sentence.partition(": ")[2] for sentence in verify(index)] == [
        "1 passages are not as many as their document says",
        "1 counts in the manifest are wrong",
        "2 words are not counted right",
    ]
    with pytest.raises(IndexMissing):
        describe(PostgresIndex(index.connection, "none"))


def test_one_writer_at_a_time(index: PostgresIndex, postgres: Server) -> None:
    same = PostgresIndex(postgres.url, f"public.{index.name}")
    with PostgresWriter.open(index, WordEmbedder(), CHUNKING):
        with pytest.raises(RetrievalError, match=f"another ingestion is writing to postgres:public.{index.name}"):
            PostgresWriter.open(same, WordEmbedder(), CHUNKING, wait=0.1)
        write(PostgresIndex(postgres.url, f"{index.name}_other"), passage("Trains."))
    write(same, passage("Trains."))


# Puts documents of one text in place of those of another, over and over, until it is killed.
REPLACING = """
import sys
from tests.retrieval.test_postgres import put, passage, CHUNKING, WordEmbedder, PostgresWriter, PostgresIndex
for turn in range(1_000_000):
    with PostgresWriter.open(PostgresIndex(*sys.argv[1:]), WordEmbedder(), CHUNKING) as writer:
        put(writer, *(passage(f"Turn {turn}.", f"{n}.md", turn=turn) for n in range(50)))
        writer.commit()
    print(turn, flush=True)
"""


async def test_a_writer_that_is_killed_leaves_what_was_or_what_is_to_be(index: PostgresIndex) -> None:
    command = [sys.executable, "-c", REPLACING, index.connection, index.name]
    generator = np.random.default_rng(0)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writing:
        assert writing.stdout
        assert writing.stdout.readline() == "0\n"
        retriever = PostgresRetriever.open(index, WordEmbedder())
        for _ in range(40):
            passages = await retriever.search(Query("turn", NOBODY), 99)
            assert len(passages) == 50
            assert len({each.metadata["turn"] for each in passages}) == 1
        await asyncio.sleep(generator.uniform(0, 0.1))
        writing.kill()
    passages = await retriever.search(Query("turn", NOBODY), 99)
    assert (len(passages), len({each.metadata["turn"] for each in passages})) == (50, 1)
    write(index, passage("After."))
    assert "a.md" in await found(index, "after")


async def test_of_many_a_graph_finds_the_nearest_and_filters_lose_none(index: PostgresIndex) -> None:
    rows = INDEXED_FROM + 100
    vectors = np.random.default_rng(0).normal(size=(rows, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    class Known32(WordEmbedder):
        dimension = 32

        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.stack([vectors[int(text)] for text in texts])

    with PostgresWriter.open(index, Known32(), CHUNKING) as writer:
        for first in range(0, rows, 100):  # each a document of a hundred passages, which their offsets tell apart
            kind = {"kind": "rare"} if first == 3_000 else {}
            passages = [Passage("-", f"{first}", first + n, first + n + 1, metadata=kind) for n in range(100)]
            writer.put(f"{first}", Known("", "", 100), passages, vectors[first : first + 100])
        writer.commit()
    retriever = PostgresRetriever.open(index, Known32())
    with psycopg.connect(index.connection) as connection:
        assert read_manifest(connection, index).indexed
    hits = 0
    for query in range(20):
        nearest = np.argsort(-vectors @ vectors[query])[:10]
        passages = await retriever.search(Query(f"{query}", NOBODY), 10)
        hits += len({each.start for each in passages} & set(nearest.tolist()))
    assert hits >= 190
    rare = Query("7", NOBODY, {"kind": AnyOf(("rare",))})
    assert {each.start for each in await retriever.search(rare, 99)} < set(range(3_000, 3_100))
    assert len(await retriever.search(rare, 99)) == 99


async def test_a_search_goes_on_when_the_server_was_started_anew(index: PostgresIndex, postgres: Server) -> None:
    write(index, passage("Trains run on rails.", "a.md"))
    retriever = PostgresRetriever.open(index, WordEmbedder())
    await asyncio.gather(*(retriever.search(Query("trains", NOBODY), 1) for _ in range(3)))
    postgres.stop()
    with pytest.raises(RetrievalError, match="cannot be reached"):
        await retriever.search(Query("trains", NOBODY), 1)
    postgres.start()
    assert len(await retriever.search(Query("trains", NOBODY), 1)) == 1


async def test_an_index_that_was_made_anew_otherwise_is_noticed(index: PostgresIndex) -> None:
    class Other(WordEmbedder):
        sha256 = "0" * 64
        dimension = 16

        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.ones((len(texts), 16), dtype=np.float32)

    write(index, passage("Trains."))
    retriever = PostgresRetriever.open(index, WordEmbedder())
    with pytest.raises(IndexMismatch, match="made with the embedder words"):
        PostgresWriter.open(index, Other(), CHUNKING)
    delete_index(index)
    with pytest.raises(IndexMissing, match=r"`trackbed ingest PATHS --to postgres:kb"):
        await retriever.search(Query("trains", NOBODY), 1)
    with PostgresWriter.open(index, Other(), CHUNKING) as writer:
        writer.commit()
    with pytest.raises(IndexMismatch, match="made with the embedder words"):
        await retriever.search(Query("trains", NOBODY), 1)
    with pytest.raises(IndexMissing):
        delete_index(PostgresIndex(index.connection, "none"))


def test_a_format_of_another_time_is_not_read(index: PostgresIndex) -> None:
    write(index, passage("Trains."))
    with psycopg.connect(index.connection) as connection:
        connection.execute(statement("UPDATE {manifest} SET format = 99", index))
    with pytest.raises(IndexMismatch, match="format 99, and this trackbed reads format 1"):
        PostgresRetriever.open(index, WordEmbedder())


def test_a_search_that_takes_too_long_ends(index: PostgresIndex) -> None:
    def sleep(connection: psycopg.Connection) -> None:
        connection.execute("SET statement_timeout = '50ms'")
        connection.execute("SELECT pg_sleep(60)")

    with pytest.raises(RetrievalError, match="took longer than it may"):
        Connections(index).run(sleep)


def test_a_search_cannot_write(index: PostgresIndex) -> None:
    with pytest.raises(RetrievalError, match="ReadOnlySqlTransaction"):
        Connections(index).run(lambda connection: connection.execute("CREATE TABLE mine ()"))


@pytest.mark.parametrize("name", ["", "Kb", "k-b", "kb; DROP", "a.b.c", ".kb", "k" * 41, "1kb", "kb\n"])
def test_a_name_is_one_of_a_table(name: str) -> None:
    with pytest.raises(RetrievalError, match="cannot be the name of an index"):
        PostgresIndex("postgresql://", name)


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        ("postgresql://me:s3cret@127.0.0.1:1/db", "cannot be reached"),
        ("postgresql://me:s3cret@/db?host=/none", "cannot be reached"),
        ("postgresql://me:p@s3cret@127.0.0.1/db", "as %40"),
        ("me:s3cret", "is no connection string"),
        ("postgresql://me:s3cret@127.0.0.1:port/db", "cannot be reached"),
    ],
)
def test_no_error_holds_the_password(connection: str, said: str) -> None:
    index = PostgresIndex(connection, "kb")
    with pytest.raises(RetrievalError, match=said) as raised:
        PostgresRetriever.open(index, WordEmbedder())
    told = "".join(traceback.format_exception(raised.value))
    assert "s3cret" not in told.replace(f"{connection}", "")
    assert "s3cret" not in f"{raised.value}{index!r}"


async def test_a_reader_needs_no_right_to_write(index: PostgresIndex) -> None:
    write(index, passage("Trains.", "a.md"))
    with psycopg.connect(index.connection) as connection:
        connection.execute(f"CREATE ROLE {index.name}_reader LOGIN")
        connection.execute(
            f"GRANT SELECT ON {index.name}_manifest, {index.name}_passages, {index.name}_words TO {index.name}_reader"
        )
    reader = PostgresIndex(index.connection.replace("postgres@", f"{index.name}_reader@"), index.name)
    assert await found(reader, "trains") == ["a.md"]
    with pytest.raises(RetrievalError, match="has no right"):
        write(reader, passage("Boats."))


def test_what_cannot_be_sought_is_told_without_what_was_asked(index: PostgresIndex) -> None:
    write(index, passage("Trains."))
    with pytest.raises(RetrievalError) as raised:
        Connections(index).run(lambda connection: connection.execute("SELECT %s::int", ("my secret",)))
    assert "secret" not in str(raised.value)
