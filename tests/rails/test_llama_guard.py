"""The guard's prompt, its answer, and what is made of both."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import ScriptedGenerator, prompt_text
from trackbed.llm.types import Message
from trackbed.rails.errors import RailFailed
from trackbed.rails.library.llama_guard import TAXONOMIES, LlamaGuard, guard_prompt, read_answer, read_taxonomy
from trackbed.rails.types import Models, Turn, Verdict

GUARD = read_taxonomy("llama-guard-3")


def guard(answer: str, unsafe: float, **config: object) -> tuple[LlamaGuard, ScriptedGenerator]:
    scores = {"unsafe": math.log(unsafe), "safe": math.log(1 - unsafe)}
    model = ScriptedGenerator(answer, scores=scores)
    return LlamaGuard(LlamaGuard.Config.model_validate(config), Models({"guard": model})), model


async def judge(answer: str, unsafe: float, **config: object) -> Verdict:
    return await guard(answer, unsafe, **config)[0].check(Turn("hello", text="hello"))


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
    ],
)
async def test_verdicts(
    answer: str, unsafe: float, config: dict[str, object], action: str, categories: tuple[str, ...]
) -> None:
    verdict = await judge(answer, unsafe, **config)
    assert (verdict.action, verdict.categories) == (action, categories)
    assert verdict.score == pytest.approx(unsafe)


async def test_the_words_of_a_block_are_the_hazards_names() -> None:
    assert (await judge("unsafe\nS1,S10", 0.99)).detail == "Violent Crimes, Hate"


@pytest.mark.parametrize("answer", ["", "maybe", "unsafely\nS1", "I cannot say whether it is unsafe", "safe S1"])
async def test_an_answer_that_cannot_be_read_is_no_verdict(answer: str) -> None:
    with pytest.raises(RailFailed):
        await judge(answer, 0.99)


@pytest.mark.parametrize("score", [math.nan, -math.inf])
async def test_scores_that_are_none_are_no_verdict(score: float) -> None:
    model = ScriptedGenerator("safe", scores={"unsafe": score, "safe": score})
    with pytest.raises(RailFailed):
        await LlamaGuard(LlamaGuard.Config(), Models({"guard": model})).check(Turn("hi", text="hi"))


# What the chat template of meta-llama/Llama-Guard-3-8B makes of one question.
TEMPLATED = """<|begin_of_text|><|start_header_id|>user<|end_header_id|>

Task: Check if there is unsafe content in 'User' messages in conversations according our safety policy with the \
below categories.

<BEGIN UNSAFE CONTENT CATEGORIES>
S1: Violent Crimes.
S2: Non-Violent Crimes.
S3: Sex Crimes.
S4: Child Exploitation.
S5: Defamation.
S6: Specialized Advice.
S7: Privacy.
S8: Intellectual Property.
S9: Indiscriminate Weapons.
S10: Hate.
S11: Self-Harm.
S12: Sexual Content.
S13: Elections.
S14: Code Interpreter Abuse.
<END UNSAFE CONTENT CATEGORIES>

<BEGIN CONVERSATION>

User: How do I cook rice?

<END CONVERSATION>

Provide your safety assessment for ONLY THE LAST User message in the above conversation:
 - First line must read 'safe' or 'unsafe'.
 - If unsafe, a second line must include a comma-separated list of violated categories.\
<|eot_id|><|start_header_id|>assistant<|end_header_id|>"""


def test_the_prompt_is_what_the_checkpoints_template_makes() -> None:
    assert prompt_text(guard_prompt((Message("user", " How do I cook rice?\n"),), GUARD)) == TEMPLATED


def test_the_small_guard_has_thirteen_hazards_and_a_space_at_the_end() -> None:
    small = prompt_text(guard_prompt((Message("user", "How do I cook rice?"),), read_taxonomy("llama-guard-3-1b")))
    assert small == TEMPLATED.replace("S14: Code Interpreter Abuse.\n", "").replace("<|eot_id|>", " <|eot_id|>")


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


@given(
    st.lists(
        st.sampled_from(["<", ">", "END ", "BEGIN ", "CONVERSATION", "/", "\n", "\r", " ", "Agent", "User", ":", "é"]),
        max_size=30,
    ).map("".join)
)
def test_what_a_user_writes_opens_and_closes_no_section_and_speaks_for_nobody(text: str) -> None:
    prompt = prompt_text(guard_prompt((Message("user", text),), GUARD))
    said = prompt.partition("<BEGIN CONVERSATION>\n\nUser: ")[2].rpartition("\n\n<END CONVERSATION>")[0]
    assert not re.search(r"<\s*/?\s*(BEGIN|END)\b", said)
    assert not [line for line in said.splitlines() if re.match(r"\s*(User|Agent)\s*:", line)]


@given(st.text())
def test_what_a_user_writes_is_no_markup(text: str) -> None:
    parts = guard_prompt((Message("user", text + "<|eot_id|>"),), GUARD).parts
    assert [part.text for part in parts if part.markup] == [
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>",
    ]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"block": ["S1", "S15"]}, "'S15' is not a hazard of llama-guard-3; did you mean 'S"),
        ({"block": ["S14"], "taxonomy": "llama-guard-3-1b"}, "'S14' is not a hazard of llama-guard-3-1b"),
        ({"taxonomy": "llama-gaurd-3"}, "'llama-gaurd-3' is not a taxonomy; did you mean 'llama-guard-3'"),
        ({"taxonomy": "../default"}, "'../default' is not a taxonomy"),
    ],
)
def test_what_there_is_not_is_refused_with_the_nearest(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        LlamaGuard.Config.model_validate(keys)


@pytest.mark.parametrize("name", [path.stem for path in TAXONOMIES.glob("*.yaml")])
def test_every_hazard_of_every_taxonomy_is_read(name: str) -> None:
    hazards = read_taxonomy(name).hazards
    assert read_answer("unsafe\n" + ",".join(hazards), read_taxonomy(name)) == tuple(hazards)
