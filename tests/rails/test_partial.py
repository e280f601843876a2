"""What is settled of a text does not change, however the text goes on: the promise of every rail that streams spans."""

import asyncio
from typing import Any

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from trackbed.rails.library.grounding import Grounding
from trackbed.rails.library.partial import Beginnings
from trackbed.rails.library.pii import Pii
from trackbed.rails.library.regex import Regex
from trackbed.rails.library.secrets import Secrets
from trackbed.rails.types import Models, Turn, Verdict
from trackbed.retrieval.types import Passage

PATTERNS = [
    "ab+c",
    "a|ab|abc",
    "(?:ab){2,3}c",
    r"\bab\b",
    r"a.*c",
    r"(?i)aB",
    r"a(?i)b|c",
    r"(?P<n>a(b(c)?)?)b",
    "[^a]b",
    r"a{2}b?",
    r"ab$",
    r"^ab",
    r"\d{3}-\d{2}",
    r"[[:digit:]]+a",
    r"\pL\p{Nd}",
    r"\Qa.b\E+c",
    r"(a|b)*c",
    r"a??b",
    r"(?s:a.b)",
    r"\x61b",
    "",
    r"(?:(?:a|b)c){1,2}d",
    r"[]a]b",
    r"a\|b",
    r"(ab|a)(c|bcd)",
    r"b(?:a?){3}c",
    r"\Bb",
    r"(?-s)a.b",
    r"(?m)^a$",
]
LETTERS = st.text(alphabet="abcdABC.|-1é \n]", max_size=14)


def rail_findings(rail: Any, turn: Turn) -> list[tuple[str, int, int]]:  # Any: each rail is its own class
    verdict: Verdict = asyncio.run(rail.check(turn))
    return [(f.label, f.start, f.end) for f in verdict.findings]


def holds(rail: Any, whole: Turn, cut: int) -> None:
    """What begins before the held part of a beginning is the same in the whole."""
    begun = Turn(whole.question, passages=whole.passages, text=whole.text[:cut], draft=whole.text[:cut])
    held = rail.held(begun)
    assert 0 <= held <= cut
    early = [f for f in rail_findings(rail, begun) if f[1] < held]
    assert early == [f for f in rail_findings(rail, whole) if f[1] < held]


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=LETTERS, more=LETTERS)
def test_a_match_that_begins_before_what_is_held_is_complete(pattern: str, text: str, more: str) -> None:
    held = Beginnings([pattern]).start(text)
    found = [m.span() for m in re2.finditer(pattern, text + more) if m.end() > m.start()]
    early = [m.span() for m in re2.finditer(pattern, text) if m.end() > m.start()]
    assert [span for span in early if span[0] < held] == [span for span in found if span[0] < held]


@pytest.mark.parametrize(
    ("pattern", "text", "held"),
    [
        ("secret", "this is a se", 10),
        ("secret", "this is a seat", 14),
        (r"\d{3}-\d{2}-\d{4}", "call 123-45-67", 5),
        (r"\d{3}-\d{2}-\d{4}", "call 123-456", 9),  # from 456 on a match may begin
        (r"\bsk-\w+", "a risk- b", 9),
        (r"\bsk-\w+", "a sk-12", 2),
        ("(?i)password: .*", "the PassWord: is", 4),
    ],
)
def test_no_more_is_held_than_could_become_a_match(pattern: str, text: str, held: int) -> None:
    assert Beginnings([pattern]).start(text) == held


def test_a_pattern_whose_beginnings_cannot_be_told_needs_the_whole_text() -> None:
    assert Regex.Config(patterns=[r"\C+"]).streams == "whole"
    assert Regex.Config(patterns=["ab"]).streams == "spans"


@given(st.lists(st.sampled_from(PATTERNS[:-1]), min_size=1, max_size=3), LETTERS, st.integers(0, 14))
def test_regex_holds_what_can_still_match(patterns: list[str], text: str, cut: int) -> None:
    holds(Regex(Regex.Config(patterns=patterns), Models()), Turn("", text=text), min(cut, len(text)))


PRIVATE = [
    "jane.doe@example.org",
    "4111 1111 1111 1111",
    "5500-0000-0000-0004",
    "378282246310005",
    "DE89 3704 0044 0532 0130 00",
    "GB82WEST12345698765432",
    "MT84 MALT 0110 0001 2345 MTLC AST0 01S",
    "+49 30 901820",
    "call me at (212) 555-0143 ext. 12",
    "212 555 0143 fax",
    "192.168.10.1",
    "2001:db8::ff00:42:8329",
    "version 1.2.3.4",
    "078-05-1120",
    "SSN 536 22 8726",
    "536-22-8726",
    "2024-05-06",
    "1 2 3 4 5 6 7",
    "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
    "４１１１ 1111\u200b 1111 1111",
    "00 12",
    "https://u@h.org/a@b",
    "v1.2",
]
KEYS = [
    "AKIAIOSFODNN7EXAMPLX",
    "ghp_abcdefghijklmnopqrstuvwxyz012345AB",
    "password = hV7xq2LpR9wd!",
    "api_key: 'k3Yz81LmNq0pRsTu'",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA1234567890abcdefghijklmnop\n-----END RSA PRIVATE KEY-----",
    "Authorization: Bearer abcdef1234567890abcdef",
    "postgres://bob:s3cr3tPw@db.example/x",
    "token is abcdef123456XYZ789",
    "sk-proj-abc123def456ghi789jkl012",
    "my password is  Tr0ub4dor&3",
    "password: required",
    "<token>k3Yz81LmNq0pRsTu</token>",
]
FILL = [
    " ",
    ", ",
    ". ",
    "\n",
    "and",
    " the order ",
    "x",
    "7",
    " 42 ",
    "(",
    ")",
    "-",
    "+",
    "@",
    ":",
    "é",
    " is ",
    "'",
    "=",
    "DE",
    " ",
]


def texts(known: list[str]) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from([*known, *FILL, *FILL]), max_size=10).map("".join)


@given(texts(PRIVATE), st.data())
def test_pii_holds_what_can_still_become_a_number(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    holds(Pii(Pii.Config(), Models()), Turn("", text=text), cut)


@given(texts(KEYS), st.data())
def test_secrets_holds_what_can_still_become_a_key(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    holds(Secrets(Secrets.Config(), Models()), Turn("", text=text), cut)


SAID = [
    "The library opens at nine",
    "On Sundays it is closed",
    "Bananas are yellow",
    "I don't know",
    "Members may borrow five books",
]
PASSAGES = (
    Passage("The library opens at nine. On Sundays it is closed.", "a.md", 0, 51, heading="Opening hours"),
    Passage("Members may borrow five books.", "b.md", 0, 30, heading="Loans"),
)


@given(
    st.lists(st.sampled_from([*SAID, *SAID, ". ", ". ", ".", "\n", " [1]", "- ", "```\n", ":", "# "]), max_size=12).map(
        "".join
    ),
    st.sampled_from(["When does the library open?", "How many books may members borrow?", "Why?"]),
    st.data(),
)
def test_grounding_holds_the_last_sentence(text: str, question: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    rail = Grounding(Grounding.Config(minimum=1), Models())
    holds(rail, Turn(question, passages=PASSAGES, text=text), cut)


def test_grounding_settles_nothing_while_what_is_said_was_not_asked() -> None:
    said = "The library opens at nineThe library opens at nine. The library opens at nine"
    whole = Turn("How many books may members borrow?", passages=PASSAGES, text=said)
    for cut in range(len(said) + 1):
        holds(Grounding(Grounding.Config(minimum=1), Models()), whole, cut)
