"""Listed words and phrases: whole, however they are written, and nothing else."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trackbed.rails.library.words import Words
from trackbed.rails.policy import load_policy
from trackbed.rails.types import Models, Turn, Verdict

LIST = ["Initech", "new york", "don't panic", "café", "straße", "x-ray", "new york times"]


def rail(words: list[str]) -> Words:
    return Words(Words.Config(words=words), Models())


def judge(text: str, words: list[str] | None = None) -> Verdict:
    return asyncio.run(rail(words or LIST).check(Turn("", text=text)))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ask Initech now", ["Initech"]),
        ("INITECH, initech!", ["INITECH", "initech"]),
        ("Ｉnitech", ["Ｉnitech"]),
        ("Ini\u200btech", ["Ini\u200btech"]),
        ("in New\n  York.", ["New\n  York"]),
        ("the New-York Times", ["New-York Times"]),
        ("Don’t panic", ["Don’t panic"]),
        ("a cafe\u0301", ["cafe\u0301"]),
        ("X-RAY x ray", ["X-RAY", "x ray"]),
        ("Initech's", ["Initech"]),
        ("«Initech»", ["Initech"]),
    ],
)
def test_a_listed_word_is_found_however_it_is_written(text: str, found: list[str]) -> None:
    verdict = judge(text)
    assert (verdict.action, [text[f.start : f.end] for f in verdict.findings]) == ("block", found)


@pytest.mark.parametrize(
    "text",
    ["", "Initechnology", "reInitech", "Initech_2", "new yorker", "new, and then york", "cafeteria", "New Jersey", "x"],
)
def test_what_only_looks_alike_passes(text: str) -> None:
    assert judge(text).action == "allow"


@pytest.mark.parametrize("word", ["C++", "", "   ", "a*", "!!", "a" * 201])
def test_what_is_no_word_is_refused(word: str) -> None:
    with pytest.raises(ValidationError):
        Words.Config(words=[word])


def test_a_list_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("Initech\n\nGlobex Corporation\n")
    (tmp_path / "p.yaml").write_text("policy: 1\ninput: [{rail: words, words: !include words.txt}]\n")
    (use,) = load_policy(tmp_path / "p.yaml").rails["input"]
    assert use.config.words == ["Initech", "Globex Corporation"]  # type: ignore[attr-defined]


PIECES = st.sampled_from(
    ["new", "York", "times", "Initech", "don", "'t", "panic", " ", " ", "-", ". ", "\n", "s", "é", "\u0301", "cafe"]
)


@given(st.lists(PIECES, max_size=16).map("".join), st.data())
def test_what_is_held_can_still_become_a_phrase_and_nothing_before_it(text: str, data: st.DataObject) -> None:
    words = rail(LIST)
    begun = text[: data.draw(st.integers(0, len(text)))]
    held = words.held(Turn("", text=begun))
    early = [f for f in judge(begun).findings if f.start < held]
    assert early == [f for f in judge(text).findings if f.start < held]
    assert 0 <= held <= len(begun)


@given(st.lists(st.text(alphabet="abcü ", min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=5))
def test_every_listed_phrase_is_found_between_other_words(words: list[str]) -> None:
    for word in words:
        assert judge(f"zz {word} zz", words).action == "block"
