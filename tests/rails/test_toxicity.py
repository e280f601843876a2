"""Toxicity: a judge's probability decides, its answer names the kind, and doubt blocks."""

import math

import pytest

from tests.fakes import ScriptedGenerator
from trackbed.rails.errors import RailFailed
from trackbed.rails.library.toxicity import Toxicity
from trackbed.rails.types import Models, Turn, Verdict


async def judge(answer: str, probability: float, text: str = "a text", **config: object) -> Verdict:
    logs = {"toxic": probability, "safe": 1 - probability}
    model = ScriptedGenerator(answer, scores={word: math.log(p) if p else -math.inf for word, p in logs.items()})
    rail = Toxicity(Toxicity.Config.model_validate(config), Models({"toxicity": model}))
    return await rail.check(Turn("", text=text))


@pytest.mark.parametrize(
    ("answer", "probability", "config", "action", "categories"),
    [
        ("toxic\ninsult", 0.9, {}, "block", ("insult",)),
        ("toxic\ninsult,threat", 0.9, {}, "block", ("insult", "threat")),
        ("toxic", 0.9, {}, "block", ("toxic",)),
        ("toxic\nsomething", 0.9, {}, "block", ("something",)),
        ("safe", 0.9, {}, "block", ("toxic",)),  # sure, and then not: doubt blocks
        ("toxic\ninsult", 0.5, {}, "block", ("insult",)),
        ("toxic\ninsult", 0.49, {}, "allow", ()),
        ("toxic\ninsult", 0.3, {"threshold": 0.2}, "block", ("insult",)),
        ("toxic\ninsult", 0.9, {"threshold": 0.95}, "allow", ()),
        ("toxic\nthreat", 1.0, {"threshold": 1}, "block", ("threat",)),
        ("safe", 0.0, {}, "allow", ()),
    ],
)
async def test_the_probability_decides_and_the_answer_names_the_kind(
    answer: str, probability: float, config: dict[str, object], action: str, categories: tuple[str, ...]
) -> None:
    verdict = await judge(answer, probability, **config)
    assert (verdict.action, verdict.categories) == (action, categories)
    assert verdict.score == pytest.approx(probability)


async def test_a_block_says_in_words_what_was_found_and_not_what_was_said() -> None:
    assert (await judge("toxic\ninsult,threat", 0.8)).detail == "an insult, a threat"
    assert (await judge("toxic\nsomething", 0.8, "you ...")).detail == "toxic language"


async def test_an_empty_text_asks_nobody() -> None:
    model = ScriptedGenerator(fails=RuntimeError("asked"))
    assert (
        await Toxicity(Toxicity.Config(), Models({"toxicity": model})).check(Turn("", text=" \n"))
    ).action == "allow"


@pytest.mark.parametrize("answer", ["", "unsafe", "I would rather not say", "Toxic"])
async def test_an_answer_that_is_neither_fails(answer: str) -> None:
    with pytest.raises(RailFailed, match="neither"):
        await judge(answer, 0.9)


async def test_scores_that_are_no_log_probabilities_fail() -> None:
    model = ScriptedGenerator("safe", scores={"toxic": math.nan, "safe": 0.0})
    with pytest.raises(RailFailed, match="no log-probabilities"):
        await Toxicity(Toxicity.Config(), Models({"toxicity": model})).check(Turn("", text="a text"))
