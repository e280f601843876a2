"""What passages support, and what they do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackbed.rails.library.grounding import Grounding
from trackbed.rails.types import Models, Turn
from trackbed.retrieval.types import Passage

TEXT = (
    "The library opens at nine on weekdays. On Sundays it is closed. "
    "Members may borrow up to five books. Ada Byron runs it."
)
PASSAGES = (Passage(TEXT, "library.md", 0, len(TEXT), heading="Library"),)


def turn(draft: str, passages: tuple[Passage, ...] = PASSAGES) -> Turn:
    return Turn("When is the library open?", passages=passages, draft=draft, text=draft)


def rail(minimum: float = 1.0) -> Grounding:
    return Grounding(Grounding.Config(minimum=minimum), Models())


@pytest.mark.parametrize(
    "draft",
    [
        "The library opens at nine on weekdays.",
        "It opens at nine. [1]",
        "On Sundays the library is closed.",
        "Members borrow up to five books, and the library is run by Ada Byron.",
        "I don't know.",
        "The passages do not say who built it.",
        "“Members may borrow up to five books.”",
    ],
)
async def test_what_the_passages_say_passes(draft: str) -> None:
    assert (await rail().check(turn(draft))).action == "allow"


@pytest.mark.parametrize(
    "draft",
    [
        "Bananas are yellow.",
        "The library was founded in 1987.",
        "Members may borrow up to 12 books.",
        "The library is run by Grace Hopper.",
        "The library is not closed on Sundays.",
        "The library opens at nine on weekdays. It was designed by a famous Danish architect.",
        "You can install the library with a package manager.",
        "The library opens at nine on these days:",
        "```python\nprint('nine')\n```",
        "",
        "Write to the trackbed foundation for a subscription.",
    ],
)
async def test_what_the_passages_do_not_say_is_blocked(draft: str) -> None:
    assert (await rail().check(turn(draft))).action == "block"


async def test_the_findings_are_the_unsupported_sentences() -> None:
    draft = "The library opens at nine. Bananas are yellow. On Sundays it is closed."
    verdict = await rail().check(turn(draft))
    assert [draft[f.start : f.end] for f in verdict.findings] == ["Bananas are yellow."]


async def test_the_minimum_is_a_share_of_sentences() -> None:
    draft = "The library opens at nine. Bananas are yellow."
    assert (await rail(minimum=0.5).check(turn(draft))).action == "allow"
    assert (await rail(minimum=0.6).check(turn(draft))).action == "block"


async def test_a_supported_draft_that_answers_something_else_is_blocked() -> None:
    draft = "The library opens at nine on weekdays."
    asked = Turn("What does a monthly subscription cost?", passages=PASSAGES, draft=draft, text=draft)
    assert (await rail().check(asked)).detail == "what was not asked"


async def test_without_passages_nothing_is_supported() -> None:
    assert (await rail(0.1).check(turn("The library opens at nine.", ()))).action == "block"


async def test_without_passages_a_policy_may_let_pass() -> None:
    lenient = Grounding(Grounding.Config(require_passages=False), Models())
    assert (await lenient.check(turn("The library opens at nine.", ()))).action == "allow"
    assert (await lenient.check(turn("Bananas are yellow."))).action == "block"


@given(st.text())
async def test_any_draft_is_judged_and_findings_lie_inside_it(draft: str) -> None:
    verdict = await rail().check(turn(draft))
    assert all(0 <= f.start < f.end <= len(draft) for f in verdict.findings)
