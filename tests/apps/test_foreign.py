"""Anybody's retriever, named in a policy: it finds, and our rule decides what of that may be found."""

import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from llama_index.core.schema import NodeWithScore, QueryBundle

from tests.apps import theirs
from tests.fakes import ScriptedGenerator, WordEmbedder
from trackbed.apps.adapters.foreign import MOST, ForeignRetriever, Hit, adapted
from trackbed.apps.knowledge import open_knowledge
from trackbed.apps.settings import Settings
from trackbed.rails import Models, Pipeline, Turn, load_policy
from trackbed.retrieval.errors import RetrievalError
from trackbed.retrieval.types import AnyOf, Between, Passage, Query, Retriever

# LlamaIndex has parts that would fetch tokens or stop words; none of them may be used here.
pytestmark = pytest.mark.allow_hosts("127.0.0.1")
NOBODY = frozenset[str]()
STORES = [
    "langchain_store",
    "langchain_retriever",
    "scored_store",
    "llamaindex_index",
    "llamaindex_retriever",
    "llamaindex_store",
]
KINDS = [*STORES, "fixed", "Fixed", "LlamaFixed"]


def retriever(kind: str) -> Retriever:
    return adapted(getattr(theirs, kind), kind, WordEmbedder())


async def found(kind: str, query: Query, k: int) -> list[str]:
    return [passage.source for passage in await retriever(kind).search(query, k)]


@pytest.mark.parametrize("kind", KINDS)
async def test_only_what_may_be_read_is_found(kind: str) -> None:
    assert set(await found(kind, Query("rails", NOBODY), 9)) == {"trains.md", "boats.md"}
    assert set(await found(kind, Query("rails", frozenset({"board"})), 9)) == {"trains.md", "boats.md", "board.md"}


@pytest.mark.parametrize("kind", KINDS)
async def test_as_many_as_are_asked_for_are_found_where_there_are_so_many(kind: str) -> None:
    """Of what is nearest to this, two may not be read by anybody who asks."""
    assert [len(await found(kind, Query("Rails of trains", NOBODY), k)) for k in (0, 1, 2, 3)] == [0, 1, 2, 2]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_filter_lets_through_what_meets_it(kind: str) -> None:
    assert await found(kind, Query("rails", NOBODY, {"year": Between(None, 2023)}), 1) == ["boats.md"]
    assert await found(kind, Query("rails", NOBODY, {"source": AnyOf(("trains.md",))}), 1) == ["trains.md"]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_found_is_a_passage_with_a_score(kind: str) -> None:
    [passage] = await retriever(kind).search(Query("steel trains", NOBODY, {"source": AnyOf(("trains.md",))}), 1)
    cosine = WordEmbedder().embed([passage.text, "steel trains"])
    assert (passage.text, passage.start, passage.end) == ("Trains run on rails of steel.", 40, 69)
    assert passage.score == pytest.approx(cosine[0] @ cosine[1])


@pytest.mark.parametrize("kind", STORES)
async def test_the_best_comes_first_for_each_of_several_texts(kind: str) -> None:
    passages = await retriever(kind).search(Query("steel trains", NOBODY, also=("boats on water",)), 2)
    assert {passage.source for passage in passages} == {"boats.md", "trains.md"}
    assert passages[0].score >= passages[1].score


async def test_a_search_without_an_end_is_asked_so_much_and_no_more() -> None:
    asked: list[int] = []

    async def search(text: str, count: int) -> list[Hit]:
        asked.append(count)
        return [Hit(Passage("hidden", f"{n}.md", 0, 6, metadata={"allow": ()}), 0.5) for n in range(count)]

    assert await ForeignRetriever(search, "endless", WordEmbedder()).search(Query("?", NOBODY), 4) == ()
    assert asked == [4, 16, 64, 256, 1024, MOST]


async def test_a_search_that_cannot_be_awaited_does_not_hold_up_the_loop() -> None:
    threads = []

    class Slow(theirs.LlamaFixed):
        def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
            threads.append(threading.current_thread())
            return super()._retrieve(query_bundle)

    await adapted(Slow(), "slow", WordEmbedder()).search(Query("rails", NOBODY), 1)
    assert threading.main_thread() not in threads


async def test_an_error_of_theirs_is_told_without_what_was_asked() -> None:
    with pytest.raises(RetrievalError, match="'Failing' could not search: ValueError") as raised:
        await retriever("Failing").search(Query("a secret", NOBODY), 1)
    assert "secret" not in str(raised.value)


def policy(folder: Path, retriever: str) -> str:
    file = folder / "policy.yaml"
    file.write_text(
        f"policy: 1\nname: theirs\nmodels: {{chat: smollm2-135m-instruct}}\n"
        f"knowledge: {{index: theirs, retriever: '{retriever}', minimum_score: 0.2}}\n"
    )
    return str(file)


@pytest.mark.parametrize("kind", [*KINDS, "Ours"])
async def test_a_policy_names_it_and_an_answer_rests_on_it(tmp_path: Path, kind: str) -> None:
    loaded = load_policy(policy(tmp_path, f"tests.apps.theirs:{kind}"))
    opened = open_knowledge(Settings(), loaded, WordEmbedder(), lambda step, done, total: None, ExitStack())
    models = Models({"chat": ScriptedGenerator("Trains run on rails of steel. [1]")})
    reply = await Pipeline(loaded, models, opened).respond(Turn("On what do trains of steel run?"))
    assert [(citation.source, citation.quote) for citation in reply.citations] == [
        ("trains.md", "Trains run on rails of steel.")
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tests.apps.theirs:NoRetriever", "is no retriever, but NoRetriever; it can be a class with `open"),
        ("tests.apps.theirs:PAGES", "is no retriever, but dict"),
        ("tests.apps.theirs:vectors_alone", "SimpleVectorStore of LlamaIndex holds no texts"),
        ("tests.apps.theirs:broken", "could not be made: ConnectionError"),
    ],
)
def test_what_is_none_is_told_by_its_name(tmp_path: Path, name: str, said: str) -> None:
    loaded = load_policy(policy(tmp_path, name))
    with pytest.raises(RetrievalError, match=said):
        open_knowledge(Settings(), loaded, WordEmbedder(), lambda step, done, total: None, ExitStack())
