import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackbed.retrieval.chunk import SIZE, Chunking, chunk
from trackbed.retrieval.types import Document, Heading, Passage

STRUCTURE = ("# One", "## Two {#anchor}", "### Three", "Title", "=====", "---", "key: value", "```py", "```", "~~~")
CONTENT = ("x = 1; y = 2", "| a | b |", "|---|---|", "- item one", "  2. item two", "", " \t", "w" * 70, "e.g. this\r")
SENTENCES = ("Ends. Here! »So?« And more", "A sentence of some words, and more.", "漢字。かな。")
LINES = st.sampled_from(STRUCTURE + CONTENT + SENTENCES)
TEXTS = st.lists(LINES | st.text(max_size=40), max_size=30).map("\n".join) | st.text(max_size=300)
CHUNKINGS = st.integers(1, 120).flatmap(lambda size: st.builds(Chunking, st.just(size), st.integers(0, size - 1)))


STRUCTURES = st.sampled_from(["prose", "records", "code"])


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """A document of any structure, with an outline or without, whose text may begin behind front matter."""
    text = draw(TEXTS)
    start = draw(st.sampled_from([0, min(len(text), 7)]))
    places = sorted(draw(st.lists(st.integers(start, len(text)), max_size=5)))
    outline = tuple(Heading(place, draw(st.integers(1, 3)), draw(st.sampled_from(["", "A", "B"]))) for place in places)
    return Document("a", text, start=start, structure=draw(STRUCTURES), outline=outline)


def split(text: str, chunking: Chunking = Chunking()) -> list[Passage]:
    return list(chunk(Document("a.md", text), chunking))


@given(documents(), CHUNKINGS)
def test_a_passage_is_the_text_between_its_offsets(document: Document, chunking: Chunking) -> None:
    for passage in chunk(document, chunking):
        assert passage.text == document.text[passage.start : passage.end] == passage.text.strip() != ""
        assert passage.start >= document.start


@given(documents(), CHUNKINGS)
def test_every_character_that_is_not_blank_is_in_a_passage(document: Document, chunking: Chunking) -> None:
    covered = set(range(document.start))
    for passage in chunk(document, chunking):
        covered.update(range(passage.start, passage.end))
    assert all(document.text[i].isspace() for i in range(len(document.text)) if i not in covered)


@given(documents(), CHUNKINGS)
def test_no_passage_is_longer_than_the_size(document: Document, chunking: Chunking) -> None:
    assert all(len(passage.text) <= chunking.size for passage in chunk(document, chunking))


@given(documents(), CHUNKINGS)
def test_passages_go_on_through_the_text_and_repeat_no_more_than_the_overlap(
    document: Document, chunking: Chunking
) -> None:
    for before, after in pairwise(chunk(document, chunking)):
        assert before.start < after.start
        assert before.end < after.end
        assert before.end - after.start <= chunking.overlap


@given(documents(), CHUNKINGS)
def test_no_passage_spans_two_headings_of_an_outline(document: Document, chunking: Chunking) -> None:
    if document.structure == "prose":
        for passage in chunk(document, chunking):
            assert not any(passage.start < heading.start < passage.end for heading in document.outline)


def test_an_outline_gives_the_headings() -> None:
    text = "Before. One. Two. Three. Four."
    at = text.index
    outline = (
        Heading(at("One"), 1, "A"),
        Heading(at("Two"), 2, "B"),
        Heading(at("Three"), 2, ""),
        Heading(at("Four"), 1, "C"),
    )
    for structure, expected in (
        ("prose", [("", "Before."), ("A", "One."), ("A > B", "Two."), ("A", "Three."), ("C", "Four.")]),
        ("code", [("", "Before."), ("A", "One. Two. Three."), ("C", "Four.")]),
    ):
        passages = chunk(Document("a", text, structure=structure, outline=outline))
        assert [(passage.heading, passage.text) for passage in passages] == expected


def test_a_record_is_not_split_at_its_sentences() -> None:
    records = [f"name: bolt {i}\nnote: It is short. It is thick. It is red." for i in range(20)]
    passages = list(chunk(Document("a.csv", "\n\n".join(records), structure="records"), Chunking(150, 40)))
    assert [record for passage in passages for record in passage.text.split("\n\n")] == records


@given(text=TEXTS, chunking=CHUNKINGS)
def test_passages_and_the_gaps_between_them_make_the_text(text: str, chunking: Chunking) -> None:
    for before, after in pairwise(split(text, chunking)):
        assert before.gap.strip() == ""
        assert before.gap == text[before.end : after.start]


def test_a_passage_knows_the_headings_above_it_and_never_spans_two_sections() -> None:
    text = (
        "Intro.\n\n# Policies\n\n## The `rails`\n\nA rail checks.\n\n"
        "## Flows {#flows}\n\nA flow.\n\n# Serving\n\nA server.\n"
    )
    assert [(passage.heading, passage.text) for passage in split(text)] == [
        ("", "Intro."),
        ("Policies > The rails", "# Policies\n\n## The `rails`\n\nA rail checks."),
        ("Policies > Flows", "## Flows {#flows}\n\nA flow."),
        ("Serving", "# Serving\n\nA server."),
    ]


def test_underlined_headings_are_headings() -> None:
    assert [passage.heading for passage in split("Guide\n=====\n\nText.\n\nPart\n----\n\nMore.")] == [
        "Guide",
        "Guide > Part",
    ]


def test_a_comment_in_code_is_no_heading() -> None:
    [passage] = split("# Real\n\n```sh\n# not a heading\nls\n```\n\nAfter.")
    assert passage.heading == "Real"


def test_a_code_block_stays_whole_where_it_fits() -> None:
    code = "```py\n" + "\n".join(f"value_{i} = compute({i})" for i in range(12)) + "\n```"
    prose = "A sentence that comes before the code. " * 8
    passages = split(f"# Code\n\n{prose}\n\n{code}\n\n{prose}", Chunking(500, 60))
    assert len(passages) > 1
    assert sum(code in passage.text for passage in passages) == 1


def test_a_code_block_that_is_too_long_is_split_between_lines() -> None:
    lines = [f"value_{i} = compute({i})" for i in range(100)]
    passages = split("\n".join(["```py", *lines, "```"]), Chunking(300, 50))
    assert len(passages) > 1
    assert [line for passage in passages for line in passage.text.splitlines()] == ["```py", *lines, "```"]


def test_a_table_is_split_between_rows() -> None:
    rows = [f"| row {i} | with some. words of it |" for i in range(40)]
    passages = split("\n".join(rows), Chunking(200, 50))
    assert [row for passage in passages for row in passage.text.splitlines()] == rows


def test_a_heading_stays_with_what_it_heads() -> None:
    code = "```\n" + "line of code\n" * 70 + "```"
    passages = split(f"# A heading\n\n{code}", Chunking(900, 100))
    assert all("line of code" in passage.text for passage in passages)


def test_passages_of_prose_overlap_by_whole_sentences() -> None:
    sentences = [f"Sentence number {i} says a thing." for i in range(40)]
    passages = split(" ".join(sentences), Chunking(300, 80))
    for before, after in pairwise(passages):
        shared = before.text[after.start - before.start :]
        assert shared.count(".") == 2
        assert after.text.startswith(shared)
        assert shared.startswith("Sentence number")


def test_a_long_section_is_split_into_parts_of_about_one_length() -> None:
    passages = split("Ten words make up this sentence that is written here. " * 20)
    assert [len(passage.text) // 100 for passage in passages] == [6, 5]


def test_a_passage_knows_its_page() -> None:
    text = "One page.\n\n" + "Another page. " * 40
    document = Document("a.pdf", text, pages=(len("One page.\n\n"), 300))
    pages = [passage.page for passage in chunk(document, Chunking(120, 0))]
    assert pages[0] == 1
    assert set(pages) == {1, 2, 3}
    assert pages == sorted(page for page in pages if page)


def test_a_passage_carries_the_title_and_metadata_of_its_document() -> None:
    [passage] = chunk(Document("a.md", "Text.", title="Guide", metadata={"licence": "MIT"}))
    assert passage.metadata == {"licence": "MIT", "title": "Guide"}


def test_an_overlap_must_be_smaller_than_the_size() -> None:
    with pytest.raises(ValueError, match="passages of 100 characters cannot overlap by 100"):
        split("text", Chunking(100, 100))


@pytest.mark.parametrize("unit", [".", "\n", " ", "```\n", "|\n", "#", "# \n", "- ", ".\u00bb", "\n- ", "x"])
def test_time_grows_with_length_and_no_faster(unit: str) -> None:
    began = time.process_time()
    split(unit * (1_000_000 // len(unit)))
    assert time.process_time() - began < 10


def test_the_usual_size_suits_the_embedder() -> None:
    assert SIZE <= 256 * 4  # MiniLM reads 256 word pieces, of about four characters each
