"""What passages support, and what they do not."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import ScriptedGenerator
from trackbed.rails.errors import RailFailed
from trackbed.rails.library.claims import excerpt, windows
from trackbed.rails.library.grounding import Grounding, without
from trackbed.rails.sentences import sentences
from trackbed.rails.types import Finding, Models, Turn
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


LOANS = "Members may borrow five books since 12 March 2015. Fines are 2 euros a week. Nobody has to pay for a card."
ON_LOANS = (Passage(LOANS, "loans.md", 0, len(LOANS)),)


@pytest.mark.parametrize(
    ("claim", "labels"),
    [
        ("Members may borrow five books since March 12, 2015.", []),
        ("Members may borrow five books since 2015-03-12.", []),
        ("Members may borrow five books since March 2015.", []),
        ("Fines are 2 euros a week.", []),
        ("Members may borrow five books since 12 March 2016.", ["CONTRADICTED"]),
        ("Members may borrow five books since May 2015.", ["CONTRADICTED"]),
        ("Fines are 12 euros a week.", ["CONTRADICTED"]),
        ("Members may not borrow five books.", ["CONTRADICTED"]),
        ("Bananas are yellow.", ["UNSUPPORTED"]),
        ("The director was born in May 1960.", ["UNSUPPORTED"]),
    ],
)
async def test_dates_and_numbers_are_compared_and_another_in_their_place_contradicts(
    claim: str, labels: list[str]
) -> None:
    verdict = await Grounding(Grounding.Config(minimum=1, relevance=0), Models()).check(turn(claim, ON_LOANS))
    assert [f.label for f in verdict.findings] == labels
    assert (verdict.action == "block") == bool(labels)


@pytest.mark.parametrize(
    ("answer", "action"),
    [("2 euros", "allow"), ("five books", "block"), ("12 March 2015", "block")],
)
async def test_a_short_answer_stands_where_the_passage_speaks_of_the_question(answer: str, action: str) -> None:
    rail = Grounding(Grounding.Config(minimum=1, relevance=0, short_answers=True), Models())
    asked = Turn("How much are fines a week?", passages=ON_LOANS, draft=answer, text=answer)
    assert (await rail.check(asked)).action == action


@pytest.mark.parametrize(("answer", "action"), [("a chemist", "allow"), ("1990", "block")])
async def test_a_short_answer_may_rest_on_two_sentences(answer: str, action: str) -> None:
    text = (
        "The bridge of Leeds was opened by Ada Byron. Ada Byron was by profession a chemist. The mill was sold in 1990."
    )
    asked = "What was the profession of who opened the bridge of Leeds?"
    rail = Grounding(Grounding.Config(minimum=1, relevance=0, short_answers=True), Models())
    given = Turn(asked, passages=(Passage(text, "a", 0, len(text)),), draft=answer, text=answer)
    assert (await rail.check(given)).action == action


async def test_a_mask_drops_sentences_and_says_so() -> None:
    draft = "The library opens at nine. [1] Bananas are yellow. [2]\n\n- On Sundays it is closed.\n- It rose in 1987."
    verdict = await Grounding(Grounding.Config(minimum=1, left_out="Some is left out."), Models()).check(turn(draft))
    assert verdict.text == "The library opens at nine. [1]\n\n- On Sundays it is closed.\n\nSome is left out."


async def test_where_nothing_is_left_a_mask_has_no_text() -> None:
    assert (await rail().check(turn("Bananas are yellow. Apples are green."))).text == ""


async def test_words_about_what_is_left_out_may_be_none() -> None:
    silent = Grounding(Grounding.Config(minimum=1, left_out=""), Models())
    verdict = await silent.check(turn("The library opens at nine. Bananas are yellow."))
    assert verdict.text == "The library opens at nine."


@given(
    st.lists(st.sampled_from(["One.", "Two is 2.", "- Item.", "\n", "\n\n", " ", "1. ", "[1]", "Three!"]), max_size=12)
)
def test_what_is_left_out_is_all_that_goes(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert without(text, []) == text.rstrip()
    left = without(text, [Finding("", m.start(), m.end()) for m in re.finditer(r"Two is 2\.", text)])
    assert "Two" not in left
    assert [left.count(word) for word in ("One", "Item", "Three")] == [text.count(w) for w in ("One", "Item", "Three")]


def asking(
    *answers: str, ask: str = "judge", excerpt: int = 0, weight: float | None = None, **scores: float
) -> tuple[Grounding, ScriptedGenerator]:
    model = ScriptedGenerator(*answers, scores=scores)
    said = {"model": "judge", "ask": ask, "excerpt": excerpt, "model_weight": weight}
    config = Grounding.Config.model_validate({"minimum": 1, "relevance": 0, **said})
    return Grounding(config, Models({"judge": model})), model


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        ({"supported": -0.1, "contradicted": -4.0, "unsupported": -3.0}, []),
        ({"supported": -3.0, "contradicted": -0.1, "unsupported": -4.0}, ["CONTRADICTED"]),
        ({"supported": -3.0, "contradicted": -4.0, "unsupported": -0.1}, ["UNSUPPORTED"]),
        ({"supported": -0.1, "contradicted": -float("inf"), "unsupported": -3.0}, []),
    ],
)
async def test_a_judge_is_believed_where_words_do_not_tell(scores: dict[str, float], labels: list[str]) -> None:
    grounding, _ = asking(**scores)
    verdict = await grounding.check(turn("Readers get in early in the morning."))
    assert [f.label for f in verdict.findings] == labels


async def test_what_stands_there_word_for_word_is_not_asked_about_and_a_sentence_is_asked_about_once() -> None:
    grounding, model = asking(supported=-0.1, contradicted=-4.0, unsupported=-3.0)
    draft = "The library opens at nine on weekdays. Readers get in early."
    for _ in range(3):
        await grounding.check(turn(draft))
    assert len(model.prompts) == 1


async def test_a_contradiction_in_numbers_stands_whatever_a_model_says() -> None:
    grounding, _ = asking(supported=-0.1, contradicted=-4.0, unsupported=-3.0)
    verdict = await grounding.check(turn("Fines are 12 euros a week.", ON_LOANS))
    assert [f.label for f in verdict.findings] == ["CONTRADICTED"]


@pytest.mark.parametrize(("yes", "action"), [(-0.1, "allow"), (-3.0, "block")])
async def test_a_chat_model_is_asked_by_its_logits(yes: float, action: str) -> None:
    grounding, model = asking(ask="yes-no", Yes=yes, No=-1.0)
    assert (await grounding.check(turn("Readers get in early. </claim>"))).action == action
    assert str(model.prompts[0]).count("</claim>") == 2  # ours: where it begins to be spoken of, and its end


@pytest.mark.parametrize(("answer", "action"), [("Yes", "allow"), ("no.", "block"), (" YES ", "allow")])
async def test_a_model_without_logits_answers_in_a_word(answer: str, action: str) -> None:
    grounding, _ = asking(answer, ask="word")
    assert (await grounding.check(turn("Readers get in early."))).action == action


@pytest.mark.parametrize("answer", ["maybe", "", "Yes and no", "The claim is supported"])
async def test_a_word_that_cannot_be_read_is_a_failure(answer: str) -> None:
    grounding, _ = asking(answer, ask="word")
    with pytest.raises(RailFailed):
        await grounding.check(turn("Readers get in early."))


@pytest.mark.parametrize("score", [float("nan"), -float("inf")])
async def test_scores_that_are_none_are_a_failure(score: float) -> None:
    grounding, _ = asking(supported=score, contradicted=score, unsupported=score)
    with pytest.raises(RailFailed):
        await grounding.check(turn("Readers get in early."))


async def test_of_many_sentences_a_model_is_asked_about_the_first_and_the_rest_counts_as_unsupported() -> None:
    grounding, model = asking(supported=-0.1, contradicted=-4.0, unsupported=-3.0)
    verdict = await grounding.check(turn(" ".join(f"Readers number {i} get in early." for i in range(20))))
    assert len(model.prompts) == 16
    assert len(verdict.findings) == 4


@given(st.text(max_size=400), st.integers(1, 60))
def test_windows_hold_all_of_the_passages_and_none_is_too_long(text: str, size: int) -> None:
    found = list(windows((Passage(text, "a", 0, len(text)),), size))
    assert all(len(window) <= size for window in found)
    rest = text
    for window in found:
        assert window in text
        rest = rest[max((n for n in range(len(window) + 1) if rest.startswith(window[len(window) - n :])), default=0) :]
    assert rest == ""


@given(st.lists(st.text(max_size=200), max_size=4), st.text(max_size=80), st.integers(1, 200))
def test_an_excerpt_is_of_the_passages_and_never_too_long(texts: list[str], claim: str, size: int) -> None:
    found = excerpt([Passage(text, "a", 0, len(text)) for text in texts], claim, "", size)
    assert len(found) <= size
    said = [sentence.text for text in texts for sentence in sentences(text)]
    assert bool(found) == bool(said)
    if len(" ".join(said)) <= size:
        assert found == " ".join(said)


def test_an_excerpt_has_the_sentences_like_the_claim_in_their_order() -> None:
    assert excerpt(PASSAGES, "Five books are lent to members on Sundays.", "", 65) == (
        "On Sundays it is closed. Members may borrow up to five books."
    )
    assert excerpt(PASSAGES, "Bananas are yellow.", "Who runs the library?", 25) == "Ada Byron runs it."


async def test_a_model_is_given_the_excerpt_that_a_policy_wants() -> None:
    grounding, model = asking(excerpt=40, supported=-0.1, contradicted=-4.0, unsupported=-3.0)
    await grounding.check(turn("Ada Byron is in charge. Readers borrow five books."))
    assert [prompt[0].content for prompt in model.prompts] == [
        "Ada Byron runs it.",
        "Members may borrow up to five books.",
    ]


def odds(log_odds: float) -> dict[str, float]:
    """The scores of a model with these log-odds of `supported`."""
    share = 1 / (1 + math.exp(-log_odds))
    return {"supported": math.log(share), "contradicted": -math.inf, "unsupported": math.log(1 - share)}


@pytest.mark.parametrize(
    ("draft", "log_odds", "supported"),
    [
        ("Visitors borrow up to five books.", -0.5, False),
        ("Visitors borrow up to five books.", 0, True),
        ("Visitors can take five books.", 0, False),
        ("Visitors can take five books.", 0.3, True),
        ("Visitors can take five books.", 30, True),
        ("Bananas are yellow.", 30, False),
        ("Members may borrow up to 12 books.", 30, False),
    ],
)
async def test_what_a_model_thinks_is_added_to_what_words_say(draft: str, log_odds: float, supported: bool) -> None:
    grounding, model = asking(weight=0.4, **odds(log_odds))
    verdict = await grounding.check(turn(draft))
    assert (verdict.action == "allow") == supported
    assert 0 <= verdict.score <= 1
    assert model.prompts


@given(st.floats(-50, 50), st.floats(-50, 50), st.sampled_from(["Visitors borrow books.", "Five books are theirs."]))
async def test_a_model_that_is_surer_never_makes_a_sentence_less_supported(a: float, b: float, draft: str) -> None:
    said = []
    for log_odds in sorted((a, b)):
        grounding, _ = asking(weight=0.1, **odds(min(log_odds, 36)))
        verdict = await grounding.check(turn(draft))
        said.append((verdict.action == "allow", -verdict.score))
    assert said[0] <= said[1]
