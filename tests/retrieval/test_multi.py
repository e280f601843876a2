"""Several indexes as one."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import ListRetriever, WordEmbedder
from trackbed.retrieval.allowed import allowed
from trackbed.retrieval.faiss_index import FaissRetriever
from trackbed.retrieval.ingest import ingest_documents
from trackbed.retrieval.multi import Many
from trackbed.retrieval.refine import Refined
from trackbed.retrieval.types import AnyOf, Between, Condition, Document, Passage, Query, Shelved
from trackbed.retrieval.widen import Widening

NOBODY = frozenset[str]()


def ranked(*scores: float) -> ListRetriever:
    return ListRetriever(*(Passage(f"{n}", f"{n}.md", 0, 1, score) for n, score in enumerate(scores)))


async def test_the_best_scores_of_all_come_first_and_sources_say_where_they_are_from() -> None:
    many = Many([("one", ranked(0.9, 0.3)), ("two", ranked(0.8, 0.7))])
    found = await many.search(Query("", NOBODY), 3)
    assert [(passage.source, passage.score) for passage in found] == [
        ("one/0.md", 0.9),
        ("two/0.md", 0.8),
        ("two/1.md", 0.7),
    ]


async def test_where_scores_do_not_compare_places_do() -> None:
    many = Many([("one", ranked(0.9, 0.8, 0.7)), ("two", ranked(0.2, 0.1))], comparable=False)
    found = await many.search(Query("", NOBODY), 4)
    assert [passage.source for passage in found] == ["one/0.md", "two/0.md", "one/1.md", "two/1.md"]
    assert [passage.score for passage in found] == [0.9, 0.2, 0.2, 0.1]


@pytest.mark.parametrize("comparable", [True, False])
async def test_the_order_of_the_indexes_does_not_show(comparable: bool) -> None:
    one, two = ("one", ranked(0.9, 0.5, 0.5)), ("two", ranked(0.5, 0.5, 0.1))
    found = [await Many(both, comparable=comparable).search(Query("", NOBODY), 9) for both in ([one, two], [two, one])]
    assert found[0] == found[1]


async def test_an_index_that_fails_is_not_passed_over() -> None:
    class Broken(ListRetriever):
        async def search(self, query: Query, k: int) -> tuple[Passage, ...]:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await Many([("one", ranked(0.9)), ("two", Broken())]).search(Query("", NOBODY), 3)


@pytest.mark.parametrize("names", [[], [""], ["a", "a"], ["a/b"]])
def test_names_tell_indexes_apart(names: list[str]) -> None:
    with pytest.raises(ValueError, match="different names without '/'"):
        Many([(name, ranked(0.5)) for name in names])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Many:
    opened: list[tuple[str, FaissRetriever]] = []
    for name, groups in (("a", ()), ("b", ("staff",))):
        path: Path = tmp_path_factory.mktemp("many") / name
        documents = [
            Document(f"{letter}.md", f"# {letter}\n\n" + f"Thing {letter} of {name} is here. " * 70, metadata=metadata)
            for letter in "cat"
            for metadata in ([{"allow": groups}] if groups and letter != "t" else [{}])
        ]
        ingest_documents(documents, path, WordEmbedder())
        opened.append((name, FaissRetriever.open(path, WordEmbedder())))
    return Many(opened)


NAMES = st.sampled_from(["a", "a/", "a/a.md", "a/c.md", "a/t.md", "b/", "b/a.md", "b/b", "b/t.md", "c", "", "t.md"])


@settings(deadline=None, max_examples=40)
@given(
    principals=st.sampled_from([NOBODY, frozenset({"staff"})]),
    condition=st.builds(AnyOf, st.lists(NAMES, min_size=1).map(tuple))
    | st.builds(Between, st.none() | NAMES, st.none() | NAMES),
    widening=st.sampled_from([Widening(), Widening(1)]),
)
def test_filters_speak_of_the_names_that_are_shown_and_permissions_hold(
    many: Many, principals: frozenset[str], condition: Condition, widening: Widening
) -> None:
    query = Query("thing", principals, {"source": condition})
    every = asyncio.run(many.search(Query("thing", principals), 99))
    found: Sequence[Passage] = asyncio.run(many.search(query, 99))
    expected = {(one.source, one.start) for one in every if allowed(one, query)}
    assert {(one.source, one.start) for one in found} == expected
    assert all(allowed(one, query) for one in asyncio.run(Refined(many, widening=widening).search(query, 5)))


async def test_what_stands_around_a_hit_is_known_where_each_has_an_index(many: Many) -> None:
    assert isinstance(many, Shelved)
    assert not isinstance(Many([("one", ranked(0.5))]), Shelved)
    narrow = (await many.search(Query("thing", NOBODY), 1))[0]
    wide = (await Refined(many, diversity=0.5, widening=Widening(1)).search(Query("thing", NOBODY), 1))[0]
    assert wide.source == narrow.source
    assert narrow.text in wide.text
    assert len(wide.text) > len(narrow.text)
