"""Limits on length: at the limit passes, beyond it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trackbed.rails.library.length import Length
from trackbed.rails.types import Models, Turn, Verdict


async def judge(text: str, **limits: int) -> Verdict:
    return await Length(Length.Config(**limits), Models()).check(Turn("", text=text))


@pytest.mark.parametrize(
    ("limits", "passes", "blocks"),
    [
        ({"max_chars": 5}, "hello", "hello!"),
        ({"max_chars": 2}, "\U0001f600\U0001f600", "\U0001f600\U0001f600\U0001f600"),
        ({"max_chars": 3}, "", "   \n"),
        ({"max_words": 2}, "two words", "now three words"),
        ({"max_words": 2}, "  two\n\twords  ", "a b c"),
        ({"max_words": 1}, "", "a b"),
        ({"min_chars": 2}, "ok", "a"),
        ({"min_chars": 1}, " a ", " \n\t "),
        ({"max_chars": 9, "max_words": 2}, "two words", "a b c"),
        ({"max_chars": 9, "max_words": 2}, "one", "twowords!!"),
    ],
)
async def test_a_text_at_the_limit_passes_and_one_beyond_it_is_blocked(
    limits: dict[str, int], passes: str, blocks: str
) -> None:
    assert (await judge(passes, **limits)).action == "allow"
    assert (await judge(blocks, **limits)).action == "block"


async def test_the_categories_say_on_which_side_and_the_detail_names_the_limit() -> None:
    long, short = await judge("hello", max_chars=4), await judge("h", min_chars=2)
    assert (long.categories, long.detail) == (("too_long",), "longer than 4 characters")
    assert (short.categories, short.detail) == (("too_short",), "shorter than 2 characters")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({}, "give at least one of: max_chars, max_words, min_chars"),
        ({"min_chars": 3, "max_chars": 2}, "nothing passes"),
        ({"max_chars": 0}, "greater than or equal to 1"),
        ({"max_tokens": 3}, "Extra inputs are not permitted"),
    ],
)
def test_limits_that_limit_nothing_or_everything_are_refused(limits: dict[str, int], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Length.Config(**limits)


@given(st.text(st.characters(categories=None)), st.integers(1, 20))
async def test_words_are_counted_as_white_space_parts_them(text: str, most: int) -> None:
    assert ((await judge(text, max_words=most)).action == "allow") == (len(text.split()) <= most)
