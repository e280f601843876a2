"""What stands around a hit."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trackbed.retrieval.allowed import allowed
from trackbed.retrieval.chunk import Chunking, chunk
from trackbed.retrieval.types import AnyOf, Document, Passage, Query
from trackbed.retrieval.widen import SECTION, Widening, widen

NOBODY = frozenset[str]()
ALL = Query("", NOBODY)
GUIDE = "# Guide\n\n" + "\n\n".join(
    f"## Part {part}\n\n" + " ".join(f"Sentence {n} of part {part} says a thing." for n in range(12))
    for part in range(3)
)


class ListShelf:
    """Holds the passages of documents in order."""

    def __init__(self, *documents: Document, chunking: Chunking = Chunking(120, 40)) -> None:
        self.documents = {document.source: tuple(chunk(document, chunking)) for document in documents}

    def around(self, passage: Passage, before: int, after: int) -> tuple[Passage, ...]:
        own = self.documents.get(passage.source, ())
        at = next((n for n, one in enumerate(own) if (one.start, one.end) == (passage.start, passage.end)), None)
        return () if at is None else own[max(at - before, 0) : at + after + 1]

    def vectors_of(self, passages: Sequence[Passage]) -> NDArray[np.float32]:
        return np.zeros((len(passages), 2), dtype=np.float32)


SHELF = ListShelf(Document("guide.md", GUIDE))
PARTS = SHELF.documents["guide.md"]


@given(st.lists(st.integers(1, len(GUIDE) - 1), max_size=8, unique=True).map(sorted), st.integers(0, 4), st.data())
def test_every_place_of_a_stretch_is_on_the_page_that_the_document_says(
    begun: list[int], neighbours: int, data: st.DataObject
) -> None:
    shelf = ListShelf(Document("guide.md", GUIDE, pages=tuple(begun)))
    hit = data.draw(st.sampled_from(shelf.documents["guide.md"]))
    (found,) = widen([hit], shelf, ALL, Widening(neighbours))
    assert found.page is None or begun
    for place in range(found.start, found.end):
        if begun and GUIDE[place].strip():
            assert (found.page or 0) + bisect_right(found.pages, place) == bisect_right(begun, place) + 1


def test_neighbours_and_hit_are_one_stretch_of_the_document() -> None:
    hit = replace(PARTS[4], score=0.8)
    (found,) = widen([hit], SHELF, ALL, Widening(1))
    assert (found.start, found.end) == (PARTS[3].start, PARTS[5].end)
    assert found.text == GUIDE[found.start : found.end]
    assert found.score == 0.8


def test_hits_that_come_to_share_text_become_one_at_the_place_of_the_better() -> None:
    hits = [replace(PARTS[0], score=0.9), replace(PARTS[8], score=0.8), replace(PARTS[2], score=0.7)]
    found = widen(hits, SHELF, ALL, Widening(1))
    assert [(one.start, one.score) for one in found] == [(PARTS[0].start, 0.9), (PARTS[7].start, 0.8)]
    assert found[0].end == PARTS[3].end


def test_a_parent_is_the_whole_section_and_no_other() -> None:
    hit = next(one for one in PARTS if one.heading == "Guide > Part 1" and "Sentence 5" in one.text)
    (found,) = widen([hit], SHELF, ALL, Widening(parent=True))
    assert found.text.startswith("## Part 1")
    assert "Sentence 11 of part 1" in found.text
    assert "part 0" not in found.text
    assert "part 2" not in found.text


def test_of_a_long_section_what_is_nearest_is_taken() -> None:
    long = Document("long.md", " ".join(f"Sentence {n} is one of very many here." for n in range(600)))
    shelf = ListShelf(long, chunking=Chunking(500, 50))
    hit = shelf.documents["long.md"][20]
    (found,) = widen([hit], shelf, ALL, Widening(parent=True))
    assert SECTION / 2 < len(found.text) <= SECTION
    assert found.start < hit.start < hit.end < found.end
    assert found.text == long.text[found.start : found.end]


def test_a_hit_that_is_there_no_more_stands_alone() -> None:
    gone = Passage("gone", "other.md", 0, 4, 0.5)
    assert widen([gone], SHELF, ALL, Widening(2)) == (gone,)
    changed = replace(PARTS[1], text="x" * len(PARTS[1].text))
    assert widen([changed], SHELF, ALL, Widening(2)) == (changed,)


def test_a_gap_that_is_not_known_is_not_made_up() -> None:
    one, two = Passage("One.", "a.md", 0, 4), Passage("Two.", "a.md", 6, 10)

    class Gapless(ListShelf):
        def around(self, passage: Passage, before: int, after: int) -> tuple[Passage, ...]:
            return (one, two)

    assert widen([one], Gapless(), ALL, Widening(1)) == (one,)


@pytest.mark.parametrize("neighbours", [-1, 11])
def test_neighbours_are_bounded(neighbours: int) -> None:
    with pytest.raises(ValueError, match="they are 0 to 10"):
        Widening(neighbours)


def test_neighbours_that_may_not_be_read_are_not_joined() -> None:
    secret = tuple(replace(one, metadata={"allow": ("board",)}) if n == 3 else one for n, one in enumerate(PARTS))
    shelf = ListShelf()
    shelf.documents = {"guide.md": secret}
    (found,) = widen([secret[4]], shelf, ALL, Widening(3))
    assert found.start == secret[4].start
    (found,) = widen([secret[4]], shelf, Query("", frozenset({"board"})), Widening(3))
    assert found.start == secret[1].start


@settings(deadline=None)
@given(
    lines=st.lists(
        st.sampled_from(["# A", "## B", "", "One. Two! Three?", "- item", "w" * 30, "x = 1;  y\t"]), max_size=40
    ),
    chunking=st.sampled_from([Chunking(20, 5), Chunking(40, 20), Chunking(60, 0)]),
    hits=st.lists(st.integers(0, 60), max_size=5, unique=True),
    neighbours=st.integers(0, 3),
    parent=st.booleans(),
    kept=st.sampled_from([("a.md",), ("a.md", "b.md")]),
)
def test_what_is_widened_is_a_stretch_and_lets_nothing_more_be_read(
    lines: list[str], chunking: Chunking, hits: list[int], neighbours: int, parent: bool, kept: tuple[str, ...]
) -> None:
    text = "\n".join(lines)
    shelf = ListShelf(Document("a.md", text), Document("b.md", text), chunking=chunking)
    query = Query("", NOBODY, {"source": AnyOf(kept)})
    every = [one for own in shelf.documents.values() for one in own if allowed(one, query)]
    given = [replace(every[n % len(every)], score=1 - n / 100) for n in sorted(hits)] if every else []
    found = widen(given, shelf, query, Widening(neighbours, parent))
    assert len(found) <= len(given)
    assert all(one.text == text[one.start : one.end] for one in found)
    assert all(allowed(one, query) for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for hit in given:
        assert any(one.source == hit.source and one.start <= hit.start and hit.end <= one.end for one in found)
    for n, one in enumerate(found):
        for other in found[n + 1 :]:
            assert one.source != other.source or one.end <= other.start or other.end <= one.start
