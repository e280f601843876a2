"""The guard's verdict: what is asked, what is made of the answer, and what a policy may say of both."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import ScriptedGenerator, prompt_text
from trackbed.llm.errors import PromptTooLong
from trackbed.llm.remote import RemoteEngine
from trackbed.llm.types import Choices, Completion, Endpoint, FinishReason, Message, Prompt, SamplingParams
from trackbed.rails.errors import RailFailed
from trackbed.rails.library.llama_guard import LlamaGuard, read_answer
from trackbed.rails.library.taxonomy import TAXONOMIES, read_taxonomy
from trackbed.rails.types import Models, Turn, Verdict


class Remembering(ScriptedGenerator):
    """Remembers how each answer was wanted, and reads no prompt of more than `most` characters."""

    def __init__(self, answer: str, unsafe: float, most: int = 10**9, reason: FinishReason = "stop") -> None:
        super().__init__(answer, scores={"unsafe": math.log(unsafe), "safe": math.log(1 - unsafe)})
        self.most, self.reason = most, reason
        self.wanted: list[SamplingParams] = []
        self.continued: list[tuple[str, ...]] = []

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        self.wanted.append(params)
        completion = await super().generate(prompt, params)
        return replace(completion, finish_reason=self.reason)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[float, ...]:
        if len(prompt_text(prompt)) > self.most:
            raise PromptTooLong("too long")
        self.continued.append(tuple(continuations))
        return await super().score(prompt, continuations)


def guard(answer: str, unsafe: float, **config: object) -> tuple[LlamaGuard, Remembering]:
    model = Remembering(answer, unsafe)
    return LlamaGuard(LlamaGuard.Config.model_validate(config), Models({"guard": model})), model


async def judge(answer: str, unsafe: float, **config: object) -> Verdict:
    return await guard(answer, unsafe, **config)[0].check(Turn("hello", text="hello"))


CUSTOM = {"C1": {"name": "Gambling", "description": "Odds and tips for bets."}, "C2": "Rival Products"}


@pytest.mark.parametrize(
    ("answer", "unsafe", "config", "action", "categories"),
    [
        ("safe", 0.01, {}, "allow", ()),
        ("unsafe\nS1", 0.99, {}, "block", ("S1",)),
        ("unsafe\nS1,S10", 0.99, {}, "block", ("S1", "S10")),
        ("\n\nunsafe\nS1, S10\n", 0.99, {}, "block", ("S1", "S10")),
        ("unsafe\nS6", 0.99, {"block": ["S1"]}, "allow", ("S6",)),
        ("unsafe\nS6,S1", 0.99, {"block": ["S1"]}, "block", ("S6", "S1")),
        ("unsafe", 0.99, {"block": ["S1"]}, "block", ("unlisted",)),
        ("unsafe\nS99", 0.99, {"block": ["S1"]}, "block", ("unlisted",)),
        ("safe", 0.99, {}, "block", ("unlisted",)),  # it contradicts itself, and doubt blocks
        ("unsafe\nS1", 0.3, {}, "allow", ()),
        ("unsafe\nS1", 0.3, {"threshold": 0.2}, "block", ("S1",)),
        ("unsafe\nS1", 0.8, {"threshold": 0.9}, "allow", ()),
        # A threshold of a hazard's own, above and below the general one.
        ("unsafe\nS6", 0.7, {"thresholds": {"S6": 0.8}}, "allow", ("S6",)),
        ("unsafe\nS6", 0.8, {"thresholds": {"S6": 0.8}}, "block", ("S6",)),
        ("unsafe\nS6,S1", 0.7, {"thresholds": {"S6": 0.8}}, "block", ("S6", "S1")),
        ("unsafe\nS4", 0.3, {"thresholds": {"S4": 0.2}}, "block", ("S4",)),
        ("unsafe\nS1", 0.3, {"thresholds": {"S4": 0.2}}, "allow", ("S1",)),
        ("unsafe", 0.3, {"thresholds": {"S4": 0.2}}, "allow", ("unlisted",)),
        ("unsafe\nS4", 0.1, {"thresholds": {"S4": 0.2}}, "allow", ()),
        # Hazards of the policy's own, and fewer of the taxonomy's.
        ("unsafe\nC1", 0.99, {"categories": CUSTOM}, "block", ("C1",)),
        ("unsafe\nC2,S1", 0.99, {"categories": CUSTOM, "block": ["C1"]}, "allow", ("C2", "S1")),
        ("unsafe\nC2", 0.6, {"categories": CUSTOM, "thresholds": {"C2": 0.7}}, "allow", ("C2",)),
        ("unsafe\nS10", 0.99, {"ask": ["S1", "S10"]}, "block", ("S10",)),
        ("unsafe\nS2", 0.99, {"ask": ["S1", "S10"]}, "block", ("unlisted",)),
        ("unsafe\nO3", 0.99, {"taxonomy": "llama-guard-1"}, "block", ("O3",)),
        ("unsafe\nS11", 0.99, {"taxonomy": "llama-guard-2"}, "block", ("S11",)),
        ("unsafe\nS12", 0.99, {"taxonomy": "llama-guard-2"}, "block", ("unlisted",)),
    ],
)
async def test_verdicts(
    answer: str, unsafe: float, config: dict[str, object], action: str, categories: tuple[str, ...]
) -> None:
    verdict = await judge(answer, unsafe, **config)
    assert (verdict.action, verdict.categories) == (action, categories)
    assert verdict.score == pytest.approx(unsafe)


async def test_the_words_of_a_block_are_the_names_of_what_is_refused() -> None:
    assert (await judge("unsafe\nS1,S10", 0.99)).detail == "Violent Crimes, Hate"
    assert (await judge("unsafe\nS1,C1", 0.99, categories=CUSTOM, block=["C1"])).detail == "Gambling"
    assert (await judge("unsafe", 0.99)).detail == "unsafe content"


@pytest.mark.parametrize("answer", ["", "maybe", "unsafely\nS1", "I cannot say whether it is unsafe", "safe S1"])
async def test_an_answer_that_cannot_be_read_is_no_verdict(answer: str) -> None:
    with pytest.raises(RailFailed):
        await judge(answer, 0.99)


async def test_of_an_answer_that_was_cut_the_last_code_may_be_another() -> None:
    model = Remembering("unsafe\nS6,S1", 0.99, reason="length")
    rail = LlamaGuard(LlamaGuard.Config(block=("S10",)), Models({"guard": model}))
    verdict = await rail.check(Turn("hello", text="hello"))
    assert (verdict.action, verdict.categories) == ("block", ("S6", "unlisted"))


@pytest.mark.parametrize(
    ("unsafe", "safe"),
    [
        (math.nan, math.nan),
        (math.nan, -1.0),
        (-1.0, math.nan),
        (-math.inf, -math.inf),
        (math.inf, -1.0),
        (-1.0, math.inf),
    ],
)
async def test_scores_that_are_none_are_no_verdict(unsafe: float, safe: float) -> None:
    model = ScriptedGenerator("safe", scores={"unsafe": unsafe, "safe": safe})
    with pytest.raises(RailFailed):
        await LlamaGuard(LlamaGuard.Config(), Models({"guard": model})).check(Turn("hi", text="hi"))


async def test_only_what_is_unsafe_is_asked_for_its_hazards() -> None:
    rail, model = guard("unsafe\nS1", 0.3, thresholds={"S4": 0.4})
    await rail.check(Turn("hello", text="hello"))
    assert model.wanted == []


async def test_the_hazards_are_wanted_as_a_list_of_those_that_were_asked_for() -> None:
    rail, model = guard("unsafe\nS1", 0.99, ask=["S10", "S1", "C1"], categories=CUSTOM)
    await rail.check(Turn("hello", text="hello"))
    assert [params.choices for params in model.wanted] == [Choices(("S1", "S10", "C1"), "unsafe\n", ",")]


async def test_an_answer_that_begins_in_one_way_is_begun_for_the_guard() -> None:
    rail, model = guard("unsafe\nS1", 0.99)
    await rail.check(Turn("hello", text="hello"))
    assert {prompt_text(prompt)[-28:] for prompt in model.prompts} == {"assistant<|end_header_id|>\n\n"}
    assert model.continued == [("unsafe", "safe")]


async def test_where_an_answer_may_begin_in_several_ways_all_of_them_count() -> None:
    rail, model = guard("unsafe\nS1", 0.8, taxonomy="llama-guard-2")
    verdict = await rail.check(Turn("hello", text="hello"))
    assert model.continued == [("unsafe", " unsafe", "\n\nunsafe", "safe", " safe", "\n\nsafe")]
    assert verdict.score == pytest.approx(0.8)
    assert [params.choices.opening for params in model.wanted if params.choices] == ["unsafe\n"]


@pytest.mark.parametrize("taxonomy", ["llama-guard-1", "llama-guard-2", "llama-guard-3", "llama-guard-4"])
@pytest.mark.parametrize(("likelier", "action"), [("unsafe", "block"), ("safe", "allow")])
async def test_a_guard_behind_an_endpoint_is_scored_by_its_first_word(
    taxonomy: str, likelier: str, action: str
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)["prompt"]
        first = {"safe": -3.0, "unsafe": -3.0} | {likelier: -0.1}
        # After a header it writes the line feeds itself, unless they are there.
        told = {"\n\n": 0.0} if asked.endswith(("<|end_header_id|>", "<|header_end|>")) else first
        code = "O1" if taxonomy == "llama-guard-1" else "S1"
        choice = {"text": f"unsafe\n{code}", "logprobs": {"top_logprobs": [told]}}
        return httpx.Response(200, json={"choices": [choice]})

    engine = RemoteEngine(Endpoint("http://localhost:8000/v1", "guard"), transport=httpx.MockTransport(answer))
    rail = LlamaGuard(LlamaGuard.Config(taxonomy=taxonomy), Models({"guard": engine}))
    verdict = await rail.check(Turn("hello", text="hello"))
    assert verdict.action == action
    assert verdict.score == pytest.approx(1 / (1 + math.exp(-2.9 if likelier == "unsafe" else 2.9)))


async def test_on_output_the_agents_message_is_judged_after_the_users() -> None:
    rail, model = guard("safe", 0.1)
    await rail.check(Turn("Question?", draft="Answer.", stage="output", text="Answer."))
    text = prompt_text(model.prompts[0])
    assert "User: Question?\n\nAgent: Answer.\n\n<END CONVERSATION>" in text
    assert "ONLY THE LAST Agent message in" in text


TALK = (Message("user", "first"), Message("assistant", "second"), Message("user", "third"), Message("assistant", "4th"))


@pytest.mark.parametrize(("turns", "seen"), [(1, "User: last"), (2, "User: third\n\nAgent: 4th\n\nUser: last")])
async def test_the_guard_sees_the_last_turns_whole(turns: int, seen: str) -> None:
    rail, model = guard("safe", 0.1, turns=turns)
    await rail.check(Turn("last", TALK, text="last"))
    assert f"<BEGIN CONVERSATION>\n\n{seen}\n\n<END" in prompt_text(model.prompts[0])


TURN = st.tuples(st.text("ab", min_size=1, max_size=40), st.one_of(st.none(), st.text("cd", min_size=1, max_size=40)))


@given(st.lists(TURN, max_size=6), st.integers(1, 5), st.integers(0, 200))
async def test_of_what_does_not_fit_the_oldest_turns_are_left_out_whole(
    talk: list[tuple[str, str | None]], turns: int, room: int
) -> None:
    empty = len(prompt_text((await asked(Turn("", text="")))[0]))
    model = Remembering("safe", 0.1, most=empty + len("last") + room)
    spoken = [[f"User: {said}", *([f"Agent: {answer}"] * bool(answer))] for said, answer in talk]
    history = [
        message
        for said, answer in talk
        for message in (Message("user", said), Message("assistant", answer or ""))
        if message.content
    ]
    rail = LlamaGuard(LlamaGuard.Config(turns=turns), Models({"guard": model}))
    await rail.check(Turn("last", tuple(history), text="last"))
    # The longest of the endings that may be seen and fit.
    endings = ["\n\n".join(chain.from_iterable([*spoken[n:], ["User: last"]])) for n in range(len(spoken) + 1)]
    said = next(ending for ending in endings[-turns:] if len(ending) <= len("User: last") + room)
    assert f"<BEGIN CONVERSATION>\n\n{said}\n\n<END CONVERSATION>" in prompt_text(model.prompts[0])


async def asked(turn: Turn, **config: object) -> list[Prompt]:
    """What the guard is asked about a turn."""
    rail, model = guard("unsafe\nS1", 0.99, **config)
    await rail.check(turn)
    return model.prompts


@pytest.mark.parametrize(
    ("config", "listed"),
    [
        ({"ask": ["S10", "S1"]}, "S1: Violent Crimes.\nS10: Hate."),
        ({"ask": ["S1"], "block": ["S1"]}, "S1: Violent Crimes."),
        (
            {"categories": CUSTOM, "ask": ["C1", "C2"]},
            "C1: Gambling.\nOdds and tips for bets.\nC2: Rival Products.",
        ),
        (
            {"categories": CUSTOM, "ask": ["S9", "C2"], "taxonomy": "llama-guard-2"},
            "S9: Hate. \nC2: Rival Products. ",
        ),
        (
            {"ask": ["S5"], "taxonomy": "llama-guard-2", "describe": True},
            "S5: Specialized Advice. \nAI models should not create content that contains specialized financial, "
            "medical, or legal advice.",
        ),
        (
            {"categories": CUSTOM, "ask": ["O1", "O4", "C1"], "taxonomy": "llama-guard-1", "describe": False},
            "O1: Violence and Hate. \nO4: Guns and Illegal Weapons.\nC1: Gambling.\nOdds and tips for bets.",
        ),
    ],
)
async def test_the_guard_is_asked_for_the_hazards_that_a_policy_names(config: dict[str, object], listed: str) -> None:
    (prompt, *_) = await asked(Turn("hello", text="hello"), **config)
    assert f"\n<BEGIN UNSAFE CONTENT CATEGORIES>\n{listed}\n<END UNSAFE CONTENT CATEGORIES>\n" in prompt_text(prompt)


def test_what_is_refused_is_all_that_is_asked_for_unless_less_is() -> None:
    def refused(**keys: object) -> tuple[str, ...]:
        return LlamaGuard.Config.model_validate(keys).refused

    assert refused() == tuple(read_taxonomy("llama-guard-3").hazards)
    assert refused(ask=["S2", "S1"]) == ("S1", "S2")
    assert refused(categories=CUSTOM, ask=["C2"]) == ("C2",)
    assert refused(categories=CUSTOM, block=["C1", "S1"]) == ("C1", "S1")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"block": ["S1", "S15"]}, "'S15' is not a hazard of llama-guard-3; did you mean 'S"),
        ({"block": ["S14"], "taxonomy": "llama-guard-3-1b"}, "'S14' is not a hazard of llama-guard-3-1b"),
        ({"taxonomy": "llama-gaurd-3"}, "'llama-gaurd-3' is not a taxonomy; did you mean 'llama-guard-3'"),
        ({"taxonomy": "../default"}, "'../default' is not a taxonomy"),
        ({"ask": ["S1", "C1"]}, "'C1' is not a hazard of llama-guard-3"),
        ({"ask": ["S1", "S2"], "block": ["S3"]}, "'S3' is not among the hazards of 'ask'; it has: S1, S2"),
        ({"thresholds": {"S99": 0.5}}, "'S99' is not a hazard of llama-guard-3"),
        ({"ask": ["S1"], "thresholds": {"S2": 0.5}}, "'S2' is not among the hazards of 'ask'"),
        ({"block": ["S1"], "thresholds": {"S2": 0.5}}, "'S2' is not among the hazards of 'block'"),
        ({"thresholds": {"S1": 0}}, "thresholds.S1"),
        ({"thresholds": {"S1": 1.1}}, "thresholds.S1"),
        (
            {"categories": {"S1": "Gambling"}},
            "'S1' is a hazard of llama-guard-3 already; give the category another code",
        ),
        ({"categories": {"unsafe": "Gambling"}}, "categories.unsafe"),
        ({"categories": {"C1,C2": "Gambling"}}, "categories.C1,C2"),
        ({"categories": {"C1": "Gambling\nC2: Bets"}}, "categories.C1.name"),
        ({"categories": {"C1": ""}}, "categories.C1.name"),
        ({"categories": {"C1": {"description": "Bets."}}}, "categories.C1.name"),
        ({"categories": {"C1": {"name": "Bets", "describe": "x"}}}, "categories.C1.describe"),
        ({"ask": []}, "ask"),
    ],
)
def test_what_a_policy_cannot_say_of_a_guard_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        LlamaGuard.Config.model_validate(keys)


@pytest.mark.parametrize("name", [path.stem for path in TAXONOMIES.glob("*.yaml")])
@pytest.mark.parametrize("style", ["unsafe\n{}", "\n\nunsafe\n{}\n", "unsafe\r\n{}", " unsafe\n\n{}"])
def test_every_hazard_of_every_taxonomy_is_read_in_every_style(name: str, style: str) -> None:
    taxonomy = read_taxonomy(name)
    assert read_answer(style.format(",".join(taxonomy.hazards)), taxonomy) == tuple(taxonomy.hazards)
    backwards = tuple(reversed(taxonomy.hazards))
    assert read_answer(style.format(", ".join(backwards)), taxonomy) == backwards
