"""Marks become citations whose quotes stand in the source, and nothing else in the text changes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackbed.rails.cite import CODE, cite, cited_beginning, quote
from trackbed.rails.sentences import sentences
from trackbed.retrieval.types import Passage

SOURCE = """# Opening hours

The library opens at nine on weekdays. On Sundays it is closed.

- Members may borrow up to five books.
- Magazines cannot be borrowed.
"""


def passage(begin: str, end: str, heading: str = "") -> Passage:
    start, stop = SOURCE.index(begin), SOURCE.index(end) + len(end)
    return Passage(SOURCE[start:stop], "library.md", start, stop, score=0.7, heading=heading)


HOURS = passage("The library", "closed.", "Opening hours")
LOANS = passage("- Members", "borrowed.")
PASSAGES = (HOURS, LOANS)


@pytest.mark.parametrize(
    ("draft", "expected"),
    [
        ("The library opens at nine. [1]", "The library opens at nine. [1]"),
        ("The library opens at nine [1].", "The library opens at nine. [1]"),
        ("The library opens at nine.", "The library opens at nine. [1]"),
        ("The library opens at nine. [2]", "The library opens at nine. [1]"),  # the wrong passage is corrected
        ("The library opens at nine. [1, 2]", "The library opens at nine. [1]"),
        ("The library opens at nine. [1][7]", "The library opens at nine. [1]"),
        ("The library opens at ten. [1]", "The library opens at ten. [1]"),
        ("The library opens at 10. [1]", "The library opens at 10."),  # no passage has the number
        ("Bananas are yellow. [1]", "Bananas are yellow."),
        ("Bananas are yellow. [9]", "Bananas are yellow."),
        ("Magazines cannot be borrowed. The library is closed on Sundays.",
         "Magazines cannot be borrowed. [1] The library is closed on Sundays. [2]"),
        ("The library opens at nine on weekdays. On Sundays it is closed.",
         "The library opens at nine on weekdays. On Sundays it is closed. [1]"),
        ("The library opens at nine[1]. Bananas are yellow[1].", "The library opens at nine. [1] Bananas are yellow."),
        ("[1] The library opens at nine.", "The library opens at nine. [1]"),
        ("The library opens at nine [ 1 ; 2 ].", "The library opens at nine. [1]"),
        ("The library opens at nine [1[2]].", "The library opens at nine. [1]"),
        ("Bananas are yellow [1[2]].", "Bananas are yellow."),
        ("Write `names[1]` to get it.", "Write `names[1]` to get it."),
        ("Write `names [1]`:\n```\nnames = all [1]\n```", "Write `names [1]`:\n```\nnames = all [1]\n```"),
        ("See [1](https://library.example).", "See [1](https://library.example)."),
        ("", ""),
    ],
)  # fmt: skip
def test_marks_stand_where_a_passage_supports_the_sentence(draft: str, expected: str) -> None:
    assert cite(draft, PASSAGES)[0] == expected


def test_a_quote_stands_in_the_source_at_its_offsets() -> None:
    _, citations = cite("Members may borrow five books. The library opens at nine.", PASSAGES)
    assert [c.quote for c in citations] == [
        "Members may borrow up to five books.",
        "The library opens at nine on weekdays.",
    ]
    assert all(SOURCE[c.start : c.end] == c.quote for c in citations)


def test_the_same_span_keeps_its_number() -> None:
    text, citations = cite("The library opens at nine. Members borrow books. The library opens at nine.", PASSAGES)
    assert re.findall(r"\[(\d)\]", text) == ["1", "2", "1"]
    assert [c.n for c in citations] == [1, 2]


def test_a_masked_passage_is_cited_whole() -> None:
    masked = Passage("Ask <PERSON> about the opening hours.", "library.md", 100, 150)
    (citation,) = cite("Ask about the opening hours.", [masked])[1]
    assert (citation.start, citation.end) == (100, 150)


WORDS = st.sampled_from(
    ["The library", "opens", "at nine", ".", "[1]", "[2]", "[3]", "[1, 2]", "[", "]", "1", " ", "\n", "books",
     "Sundays.", "\n```\n", "`", "`x[1]`", "- ", "# ", "é"]
)  # fmt: skip
DRAFTS = st.lists(WORDS, max_size=30).map("".join)


def marks(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\[(\d)\]", CODE.sub("code", text))]


@given(DRAFTS)
def test_each_mark_has_its_citation_each_citation_its_mark_and_quotes_are_exact(draft: str) -> None:
    text, citations = cite(draft, PASSAGES)
    assert all(SOURCE[c.start : c.end] == c.quote for c in citations)
    assert [c.n for c in citations] == list(dict.fromkeys(marks(text))) == list(range(1, len(citations) + 1))


@given(DRAFTS.filter(lambda draft: "``" not in draft.replace("\n```\n", "")))
def test_code_is_not_changed(draft: str) -> None:
    assert CODE.findall(cite(draft, PASSAGES)[0]) == CODE.findall(draft.strip())


@given(DRAFTS.filter(lambda draft: "[" not in draft))
def test_a_draft_without_marks_changes_by_marks_alone(draft: str) -> None:
    assert re.sub(r" \[\d\]", "", cite(draft, PASSAGES)[0]) == draft.strip()


@given(st.text())
def test_without_passages_only_marks_are_taken_away(draft: str) -> None:
    text, citations = cite(draft, ())
    assert citations == ()
    if "[" not in draft:
        assert text == draft.strip()


def test_a_quotation_answers_in_the_passages_words() -> None:
    assert quote("When does the library open?", PASSAGES) == (
        "“The library opens at nine on weekdays. On Sundays it is closed.”"
    )


@pytest.mark.parametrize("question", ["When does the library open?", "How many books may members borrow?"])
def test_a_quotation_is_cited_where_it_stands(question: str) -> None:
    quoted = quote(question, PASSAGES)
    assert quoted
    (citation,) = cite(quoted, PASSAGES)[1]
    assert quoted.strip("“”") in " ".join(citation.quote.split())


@pytest.mark.parametrize("question", ["Who founded the company?", "How much is a ticket?", "", "???"])
def test_what_the_passages_do_not_speak_of_is_not_quoted(question: str) -> None:
    assert quote(question, PASSAGES) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Use e.g. a regex. It is by Dr. No.", ["Use e.g. a regex.", "It is by Dr. No."]),
        ("Version 3.1 is out. Yes.", ["Version 3.1 is out.", "Yes."]),
        ("# Title\n\nA line\nthat wraps. End", ["A line\nthat wraps.", "End"]),
        ("- one\n- two\n1. three", ["one", "two", "three"]),
        ("```\ncode. More.\n```\nText.", ["Text."]),
        ("| a | b |\n|---|---|\n| c | d |\n", ["| a | b |", "| c | d |"]),
        ("He said “Stop.” Then he left.", ["He said “Stop.”", "Then he left."]),
        ("", []),
        ("...\n---\n", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert [s.text for s in sentences(text)] == expected


@given(st.text(alphabet="aB.!? \n#-*`|\t1é", max_size=60))
def test_sentences_are_spans_in_order(text: str) -> None:
    reached = 0
    for sentence in sentences(text):
        assert text[sentence.start : sentence.end] == sentence.text
        assert sentence.start >= reached
        reached = sentence.end


SAID = ["The library opens at nine", "On Sundays it is closed", "Members may borrow up to five books",
        "Bananas are yellow", "Magazines cannot be borrowed", "e.g. ", "Dr. ", "é"]  # fmt: skip
SIGNS = [".", ".", ". ", "! ", " ", "\n", "\n\n", "[1]", " [2]", "[1[2]]", "[1, 2]", "[", "]", "`", "`names[1]`",
         "```\n", "\n```\n", "- ", "1. ", "# ", "| a | b |\n", "~~~\n", "(", ")", ": "]  # fmt: skip
PIECES = st.sampled_from([*SAID, *SIGNS])


@given(st.lists(PIECES, max_size=24).map("".join), st.data())
def test_what_is_settled_of_a_citing_answer_does_not_change(draft: str, data: st.DataObject) -> None:
    written = draft[: data.draw(st.integers(0, len(draft)))]
    (begun, early), (text, citations) = cited_beginning(written, PASSAGES), cite(draft, PASSAGES)
    assert text.startswith(begun)
    assert citations[: len(early)] == early


def test_a_settled_sentence_comes_before_the_answer_is_finished() -> None:
    draft = "The library opens at nine. [1] Bananas are yellow. Members may"
    assert cited_beginning(draft, PASSAGES)[0] == "The library opens at nine. [1] Bananas are yellow."
    assert cited_beginning("The library opens at nine. [1] Bananas", PASSAGES)[0] == "The library opens at nine."
