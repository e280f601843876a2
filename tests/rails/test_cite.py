"""Marks become citations whose quotes stand in the source, and nothing else in the text changes."""

import re
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trackbed.rails.cite import Cited, cite, cited_beginning
from trackbed.rails.marks import CODE
from trackbed.rails.quote import quote
from trackbed.rails.sentences import sentences
from trackbed.rails.types import Cite
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
         "The library opens at nine on weekdays. [1] On Sundays it is closed. [2]"),
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
    _, citations, *_ = cite("Members may borrow five books. The library opens at nine.", PASSAGES)
    assert [c.quote for c in citations] == [
        "Members may borrow up to five books.",
        "The library opens at nine on weekdays.",
    ]
    assert all(SOURCE[c.start : c.end] == c.quote for c in citations)


def test_the_same_span_keeps_its_number() -> None:
    text, citations, *_ = cite("The library opens at nine. Members borrow books. The library opens at nine.", PASSAGES)
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
    text, citations, *_ = cite(draft, PASSAGES)
    assert all(SOURCE[c.start : c.end] == c.quote for c in citations)
    assert [c.n for c in citations] == list(dict.fromkeys(marks(text))) == list(range(1, len(citations) + 1))


@given(DRAFTS.filter(lambda draft: "``" not in draft.replace("\n```\n", "")))
def test_code_is_not_changed(draft: str) -> None:
    assert CODE.findall(cite(draft, PASSAGES)[0]) == CODE.findall(draft.strip())


@given(DRAFTS.filter(lambda draft: "[" not in draft))
def test_a_draft_without_marks_changes_by_marks_alone(draft: str) -> None:
    assert re.sub(r" (?:\[\d\])+", "", cite(draft, PASSAGES)[0]) == draft.strip()


@given(st.text())
def test_without_passages_only_marks_are_taken_away(draft: str) -> None:
    text, citations, *_ = cite(draft, ())
    assert citations == ()
    if "[" not in draft:
        assert text == draft.strip()


def place(text: str, source: str = "a.md", **more: Any) -> Passage:
    return Passage(text, source, 0, len(text), **more)


TRAIN = place("Dr. Ng runs the night train. Version 3.1 costs 4.50 euros, e.g. on Sundays.", "train.md")
BOOKS = (*PASSAGES, TRAIN)


@pytest.mark.parametrize(
    ("draft", "expected"),
    [
        # What must be cited.
        ("The library opens at nine, and members may borrow five books.",
         "The library opens at nine, and members may borrow five books. [1][2]"),
        ("The library opens at nine; magazines cannot be borrowed.",
         "The library opens at nine; magazines cannot be borrowed. [1][2]"),
        ("The library opens at nine and members may borrow five books [1][2].",
         "The library opens at nine and members may borrow five books. [1][2]"),
        ("The library opens at nine [1] and members may borrow five books [2].",
         "The library opens at nine and members may borrow five books. [1][2]"),
        ("The library opens at nine; magazines cannot be borrowed; Dr. Ng runs the night train [2].",
         "The library opens at nine; magazines cannot be borrowed; Dr. Ng runs the night train. [1][2][3]"),
        ("The library opens at nine on weekdays but is closed on Sundays.",
         "The library opens at nine on weekdays but is closed on Sundays. [1]"),
        ("Dr. Ng runs the night train.", "Dr. Ng runs the night train. [1]"),
        ("Version 3.1 costs 4.50 euros.", "Version 3.1 costs 4.50 euros. [1]"),
        ("- Members may borrow five books.\n- The library opens at nine.",
         "- Members may borrow five books. [1]\n- The library opens at nine. [2]"),
        ("1. The library opens at nine [2].\n2. Bananas are yellow [1].",
         "1. The library opens at nine. [1]\n2. Bananas are yellow."),
        ("| Day | Hours |\n|---|---|\n| weekdays | library opens at nine |",
         "| Day | Hours |\n|---|---|\n| weekdays | library opens at nine [1] |"),
        ("> The library opens at nine.", "> The library opens at nine. [1]"),
        ("He wrote “The library opens at nine. On Sundays it is closed.”",
         "He wrote “The library opens at nine. On Sundays it is closed.” [1]"),
        ('"The library opens at nine. On Sundays it is closed." So he wrote.',
         '"The library opens at nine. On Sundays it is closed." [1] So he wrote.'),
        ("**The library opens at nine.**", "**The library opens at nine.** [1]"),
        ("Members of the library may do this [2]:\n- borrow five books",
         "Members of the library may do this:\n- borrow five books [1]"),
        # What must not.
        ("The library opens at nine, and bananas are yellow.", "The library opens at nine, and bananas are yellow."),
        ("The library opens at nine and lends five books.", "The library opens at nine and lends five books."),
        ("The library opens at nine, and members may borrow 7 books.",
         "The library opens at nine, and members may borrow 7 books."),
        ("Version 3.2 costs 4.50 euros.", "Version 3.2 costs 4.50 euros."),
        ("Version 3.1 costs 5.40 euros [3].", "Version 3.1 costs 5.40 euros."),
        ("Magazines can be borrowed.", "Magazines can be borrowed."),
        ("I don't know when the library opens. [1]", "I don't know when the library opens."),
        ("The pages do not say when the library opens. [1]", "The pages do not say when the library opens."),
        ("Hello! Of course. I hope this helps. [1]", "Hello! Of course. I hope this helps."),
        ("The books: [1]", "The books:"),
        ("# Opening hours [1]\n\nBananas.", "# Opening hours\n\nBananas."),
        ("```\nThe library opens at nine.\n```", "```\nThe library opens at nine.\n```"),
        ("| Library | opens at nine |\n|---|---|\n| x | y |", "| Library | opens at nine |\n|---|---|\n| x | y |"),
        ("I don't know: nothing I have read says when the library opens.",
         "I don't know: nothing I have read says when the library opens."),
        ("Yes. [1]", "Yes."),
        ("...", "..."),
    ],
)  # fmt: skip
def test_a_sentence_is_cited_where_all_that_it_claims_is_supported(draft: str, expected: str) -> None:
    assert cite(draft, BOOKS).text == expected


def test_a_citation_says_where_its_quote_is_found_and_how_far_it_supports_the_sentence() -> None:
    (citation,) = cite("The library opens at nine.", PASSAGES).citations
    assert (citation.heading, citation.page, citation.score) == ("Opening hours", None, 1.0)
    (citation,) = cite("The library opens at ten. [1]", PASSAGES).citations
    assert 0.5 <= citation.score < 0.75


PAGED = "Rails judge each text. " + "Passages come from documents. " + "Citations name the page."


@pytest.mark.parametrize(
    ("draft", "page"),
    [("Rails judge each text.", 7), ("Passages come from documents.", 8), ("Citations name the page.", 9)],
)
def test_the_page_is_that_of_the_quote_where_a_passage_crosses_pages(draft: str, page: int) -> None:
    starts = (1000 + PAGED.index("Passages"), 1000 + PAGED.index("name the page"), 1000 + PAGED.index("page."))
    pages = (starts[0], 1000 + PAGED.index("Citations"))
    passage = Passage(PAGED, "a.pdf", 1000, 1000 + len(PAGED), page=7, pages=pages)
    (citation,) = cite(draft, [passage]).citations
    assert citation.page == page


def test_a_masked_passage_has_the_page_that_it_begins_on() -> None:
    masked = Passage("Ask <PERSON> about the opening hours.", "a.pdf", 100, 150, page=3, pages=(120,))
    (citation,) = cite("Ask about the opening hours.", [masked]).citations
    assert (citation.page, citation.quote) == (3, masked.text)


def test_one_span_that_stands_in_two_overlapping_passages_has_one_number() -> None:
    first, second = passage("The library", "- Magazines cannot be borrowed."), passage("On Sundays", "borrowed.")
    text, citations, *_ = cite("On Sundays it is closed [1]. On Sundays it is closed [2].", (first, second))
    assert text == "On Sundays it is closed. [1] On Sundays it is closed. [1]"
    assert [SOURCE[c.start : c.end] for c in citations] == ["On Sundays it is closed."]


@pytest.mark.parametrize(("marks", "expected"), [("", "[1]"), (" [2]", "[1]"), (" [1][2]", "[1][2]")])
def test_of_two_passages_that_say_the_same_one_is_cited_unless_the_model_names_both(marks: str, expected: str) -> None:
    same = [place("The library opens at nine.", source) for source in ("a.md", "b.md")]
    text, citations, *_ = cite(f"The library opens at nine.{marks}", same)
    assert text == f"The library opens at nine. {expected}"
    assert citations[0].source == ("b.md" if marks == " [2]" else "a.md")


def test_each_sentence_is_told_with_its_citations_and_what_claims_nothing_is_not() -> None:
    cited = cite(
        "Hello! The library opens at nine. Bananas are yellow. Members borrow books; it is closed on Sundays.", BOOKS
    )
    assert [(cited.text[c.start : c.end], c.citations) for c in cited.claims] == [
        ("The library opens at nine.", (1,)),
        ("Bananas are yellow.", ()),
        ("Members borrow books; it is closed on Sundays.", (2, 3)),
    ]
    assert [c.score > 0.7 for c in cited.claims] == [True, False, True]


@pytest.mark.parametrize(
    ("draft", "expected", "left_out"),
    [
        # What stays.
        ("The library opens at nine.", "The library opens at nine. [1]", 0),
        ("Hello! The library opens at nine. I hope this helps!",
         "Hello! The library opens at nine. [1] I hope this helps!", 0),
        ("The library opens at nine. The text does not say who founded it.",
         "The library opens at nine. [1] The text does not say who founded it.", 0),
        ("# Hours\n\nThe library opens at nine.", "# Hours\n\nThe library opens at nine. [1]", 0),
        ("The library opens at nine. Unfortunately, the pages that I have say nothing about bananas.",
         "The library opens at nine. [1] Unfortunately, the pages that I have say nothing about bananas.", 0),
        ("| Day | Hours |\r\n|---|---|\r\n| weekdays | library opens at nine |",
         "| Day | Hours |\r\n|---|---|\r\n| weekdays | library opens at nine [1] |", 0),
        ("Good morning! The library opens at nine. Would you like to know anything else?",
         "Good morning! The library opens at nine. [1] Would you like to know anything else?", 0),
        ("The opening hours of the library are:\n- On Sundays it is closed.",
         "The opening hours of the library are:\n- On Sundays it is closed. [1]", 0),
        ("The library opens at nine:\n\n```\nopen()\n```", "The library opens at nine: [1]\n\n```\nopen()\n```", 0),
        ("These are the rules:\n- Bananas are yellow.\n- Magazines cannot be borrowed.",
         "These are the rules:\n- Magazines cannot be borrowed. [1]", 1),
        ("| Day | Hours |\n|---|---|\n| Mars | 3 |\n| weekdays | library opens at nine |",
         "| Day | Hours |\n|---|---|\n| weekdays | library opens at nine [1] |", 1),
        # What does not.
        ("The library opens at nine. Bananas are yellow.", "The library opens at nine. [1]", 1),
        ("Bananas are yellow [1]. The library opens at nine.", "The library opens at nine. [1]", 1),
        ("Bananas are yellow.\n\nThe library opens at nine. Bananas are yellow. On Sundays it is closed.",
         "The library opens at nine. [1] On Sundays it is closed. [2]", 2),
        ("- The library opens at nine.\n- Bananas are yellow.\n\n\nMagazines cannot be borrowed.",
         "- The library opens at nine. [1]\n\nMagazines cannot be borrowed. [2]", 1),
        ("# Hours\n\nThe library opens at nine.\n\n# Fruit\n\nBananas are yellow.",
         "# Hours\n\nThe library opens at nine. [1]", 1),
        ("- Bananas are yellow. The library opens at nine.\n- Bananas are yellow. On Sundays it is closed.",
         "- The library opens at nine. [1]\n- On Sundays it is closed. [2]", 2),
        ("The library does not provide bananas. The library opens at nine.", "The library opens at nine. [1]", 1),
        ("# Fruit\n\n## Colours\n\nBananas are yellow.\n\n# Hours\n\nThe library opens at nine.",
         "# Hours\n\nThe library opens at nine. [1]", 1),
        ("These are the rules:\n- Bananas are yellow.\n\nThe library opens at nine.",
         "The library opens at nine. [1]", 1),
        ("Since the moon is made of cheese, these are the rules:\n- Magazines cannot be borrowed.",
         "- Magazines cannot be borrowed. [1]", 1),
        ("“The library opens at nine. Bananas are yellow.” It says so.", "", 2),
        ("The museum is closed:\n- Magazines cannot be borrowed.", "- Magazines cannot be borrowed. [1]", 1),
        ("The moon is cheese:\n- Magazines cannot be borrowed.", "- Magazines cannot be borrowed. [1]", 1),
        ("Thanks to Lord Byron. Let me know that Mars is red. The library opens at nine.",
         "The library opens at nine. [1]", 2),
        ("Did you know that the library is closed on weekdays? On Sundays it is closed.",
         "On Sundays it is closed. [1]", 1),
        ("Did you know that Mars has two moons? The library opens at nine.", "The library opens at nine. [1]", 1),
        ("The text does not say when, but it was founded in 1923. The library opens at nine.",
         "The library opens at nine. [1]", 1),
        ("Let me know at www.evil.example. The library opens at nine.", "The library opens at nine. [1]", 1),
        ("Run this:\n```\nrm -rf /\n```\nBananas are yellow.", "", 1),
        ("The library opens at nine, and bananas are yellow.", "", 1),
        ("Hello! I don't know.", "", 0),
        ("# Hours", "", 0),
        ("```\nx\n```", "", 0),
        ("...", "", 0),
        ("", "", 0),
    ],
)  # fmt: skip
def test_where_citations_are_required_only_what_is_supported_stays_and_what_stands_with_it(
    draft: str, expected: str, left_out: int
) -> None:
    cited = cite(draft, PASSAGES, "required")
    assert (cited.text, cited.left_out) == (expected, left_out)
    assert cited.whole == (expected != "" and re.sub(r" (?:\[\d\])+", "", expected) == draft)


@pytest.mark.parametrize("how", get_args(Cite))
def test_without_passages_nothing_is_cited(how: Cite) -> None:
    cited = cite("The library opens at nine. [1]", (), how)
    assert cited.text == ("" if how == "required" else "The library opens at nine.")
    assert cited.citations == ()


def test_with_none_no_mark_is_added_and_the_models_are_taken_away() -> None:
    draft = "[2] The library opens at nine [1]. `names[1]` [1, 3] Members may borrow five books."
    assert cite(draft, PASSAGES, "none") == Cited(
        "The library opens at nine. `names[1]` Members may borrow five books."
    )


@given(DRAFTS)
def test_where_citations_are_required_each_claim_has_one(draft: str) -> None:
    cited = cite(draft, PASSAGES, "required")
    assert all(claim.citations and claim.score >= 0.5 for claim in cited.claims)
    assert bool(cited.claims) == bool(cited.text)


@given(DRAFTS, st.sampled_from(get_args(Cite)))
def test_claims_are_stretches_of_the_answer_in_order_with_citations_that_there_are(draft: str, how: Cite) -> None:
    cited, reached = cite(draft, PASSAGES, how), 0
    for claim in cited.claims:
        assert reached <= claim.start < claim.end <= len(cited.text)
        assert not cited.text[claim.start].isspace()
        assert set(claim.citations) <= {c.n for c in cited.citations}
        reached = claim.end


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
        "Bananas are yellow", "Magazines cannot be borrowed", "Hello!", "The rules are", "I don't know", "e.g. ",
        "Dr. ", "é"]  # fmt: skip
SIGNS = [".", ".", ". ", "! ", " ", "\n", "\n\n", "[1]", " [2]", "[1[2]]", "[1, 2]", "[", "]", "`", "`names[1]`",
         "```\n", "\n```\n", "- ", "1. ", "# ", "| a | b |\n", "|---|\n", "~~~\n", "(", ")", ": ", " and ", ", but ",
         "“", "”", '"', "?", "\t"]  # fmt: skip
PIECES = st.sampled_from([*SAID, *SIGNS])


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=24).map("".join), st.data(), st.sampled_from(get_args(Cite)))
def test_what_is_settled_of_a_citing_answer_does_not_change(draft: str, data: st.DataObject, how: Cite) -> None:
    written = draft[: data.draw(st.integers(0, len(draft)))]
    begun, cited = cited_beginning(written, PASSAGES, how), cite(draft, PASSAGES, how)
    assert cited.text.startswith(begun.text)
    assert cited.citations[: len(begun.citations)] == begun.citations
    assert cited.claims[: len(begun.claims)] == begun.claims


@pytest.mark.parametrize(
    ("written", "how", "shown"),
    [
        ("The library opens at nine. [1] Bananas are yellow. Members may", "when_possible",
         "The library opens at nine. [1] Bananas are yellow."),
        ("The library opens at nine. [1] Bananas", "when_possible", "The library opens at nine. [1]"),
        ("The library opens at nine. [1", "when_possible", ""),
        ("- The library opens at nine.\n- Members may borrow five books.\n- M", "when_possible",
         "- The library opens at nine. [1]\n- Members may borrow five books. [2]"),
        ("Bananas are yellow. The library opens at nine. Members", "required", "The library opens at nine. [1]"),
        ("The rules are these:\n- Bananas are yellow.\n- Mem", "required", ""),
        ("The rules are these:\n- Magazines cannot be borrowed.\n- Mem", "required",
         "The rules are these:\n- Magazines cannot be borrowed. [1]"),
        ("Hello! Bananas are yellow. The", "required", ""),
        ("“The library opens at nine. On Sundays", "when_possible", ""),
        ("The library opens at nine. [1] Members", "none", "The library opens at nine."),
    ],
)  # fmt: skip
def test_a_settled_sentence_comes_before_the_answer_is_finished(written: str, how: Cite, shown: str) -> None:
    assert cited_beginning(written, PASSAGES, how).text == shown
