"""Answers that are chosen from a list: what may come next, over the vocabulary of letters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackbed.llm.choices import OpenChoices
from trackbed.llm.errors import LLMError
from trackbed.llm.types import Choices

END = 0
CODES = Choices(("S1", "S2", "S10"), opening="unsafe\n", separator=",")
texts = st.lists(st.text("ab,1", min_size=1, max_size=3), min_size=1, max_size=4, unique=True).map(tuple)
wanted = st.builds(Choices, texts, st.sampled_from(["", "a", "b\n"]), st.sampled_from(["", ",", "1", "ab"]))


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def opened(choices: Choices) -> OpenChoices:
    return OpenChoices(choices, letters, frozenset({END}))


def after(choices: Choices, text: str) -> str:
    """What may follow the text; `.` is the end."""
    going = opened(choices)
    for letter in text:
        assert ord(letter) in going.tokens
        going.take(ord(letter))
    return "".join(chr(token) if token else "." for token in going.tokens)


def is_wanted(text: str, choices: Choices) -> bool:
    def listed(rest: str, left: frozenset[str], before: str) -> bool:
        return rest == "" or any(
            listed(rest[len(before + one) :], left - {one}, choices.separator)
            for one in left
            if rest.startswith(before + one) and (choices.separator or not before)
        )

    left = frozenset(choices.texts)
    if not choices.separator:
        return text.removeprefix(choices.opening) in left and text.startswith(choices.opening)
    return (
        text != choices.opening and text.startswith(choices.opening) and listed(text[len(choices.opening) :], left, "")
    )


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("", "u"),
        ("unsafe", "\n"),
        ("unsafe\nS", "12"),
        ("unsafe\nS1", ".,0"),
        ("unsafe\nS10", ".,"),
        ("unsafe\nS1,S", "12"),
        ("unsafe\nS1,S1", "0"),  # a text is named once
        ("unsafe\nS2,S10,S1", ""),
    ],
)
def test_what_follows_is_what_some_list_of_codes_goes_on_with(text: str, following: str) -> None:
    assert after(CODES, text) == following


def test_without_a_separator_one_of_them_is_all() -> None:
    one = Choices(("yes", "no"))
    assert (after(one, ""), after(one, "ye"), after(one, "no")) == ("ny", "s", "")


def test_a_text_may_share_a_token_with_the_opening() -> None:
    def pairs(text: str) -> list[int]:
        return [hash(text[i : i + 2]) for i in range(0, len(text), 2)]

    going = OpenChoices(Choices(("ba", "bc"), opening="a"), pairs, frozenset({END}))
    assert going.tokens == (hash("ab"),)


def test_without_an_end_nothing_can_be_chosen() -> None:
    with pytest.raises(LLMError, match="no token that ends an answer"):
        OpenChoices(CODES, letters, frozenset())


@given(wanted, st.data())
def test_whatever_is_written_is_one_of_the_lists(choices: Choices, data: st.DataObject) -> None:
    going, text = opened(choices), ""
    while going.tokens:
        token = data.draw(st.sampled_from(going.tokens))
        if token == END:
            break
        going.take(token)
        text += chr(token)
    assert is_wanted(text, choices)


@given(wanted, st.data())
def test_every_list_can_be_written(choices: Choices, data: st.DataObject) -> None:
    most = len(choices.texts) if choices.separator else 1
    named = data.draw(st.lists(st.sampled_from(choices.texts), min_size=1, max_size=most, unique=True))
    assert after(choices, choices.opening + choices.separator.join(named))[:1] in (".", "")


@pytest.mark.parametrize(
    ("given", "message"),
    [((), "one text at least"), (("a", ""), "a text each"), (("a", "b", "a"), "stands twice")],
)
def test_choices_say_what_is_wrong_with_them(given: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Choices(given)
