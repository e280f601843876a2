"""Pseudonyms: the model sees them, the reader sees what they stand for, and nobody else sees either's other side."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import ListRetriever, PiecewiseGenerator, ScriptedGenerator, prompt_text
from tests.rails.test_partial import PRIVATE
from tests.rails.test_stream import pieces, shown
from trackbed.llm.types import Completion, Delta, Message, Prompt, SamplingParams, Usage
from trackbed.rails.errors import PolicyError
from trackbed.rails.library.pii import Pii
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import Policy, load_policy
from trackbed.rails.pseudonyms import MOST, complete, hide, named, restored
from trackbed.rails.trace import trace_lines
from trackbed.rails.types import Event, Finding, Models, Replace, Text, Turn
from trackbed.retrieval.types import Passage

RESTORE = "{rail: pii, then: mask, restore: true}"
HOUSE = """policy: 1
models: {chat: smollm2-135m-instruct}
generation: {system: Answer., prompt: '{% for p in passages %}{{ p.text }} {% endfor %}{{ question }}'}
refuse: {default: 'No.'}
"""


class Echo(ScriptedGenerator):
    """Answers with what it was asked last, cut at the given places when it streams."""

    def __init__(self, *cuts: int) -> None:
        super().__init__()
        self.cuts = list(cuts)

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        self.prompts.append(prompt)
        assert isinstance(prompt, tuple)
        return Completion(prompt[-1].content, "stop", Usage(1, 1))

    async def stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        completion = await self.generate(prompt, params)
        for piece in pieces(completion.text, self.cuts):
            yield Delta(piece)
        yield Delta("", completion)


def policy_of(folder: Path, more: str = "", rails: str = f"[{RESTORE}]") -> Policy:
    file = folder / "policy.yaml"
    file.write_text(f"{HOUSE}input: {rails}\n{more}\n")
    return load_policy(file)


def findings(text: str) -> tuple[Finding, ...]:
    return asyncio.run(Pii(Pii.Config(), Models()).check(Turn("", text=text))).findings


TEXTS = st.lists(
    st.sampled_from(
        [*PRIVATE, *PRIVATE, " and ", ", ", "\n", "<EMAIL_ADDRESS_1>", "<IP_ADDRESS_", "2>", "<", ">", "<PHONE", "x"]
    ),
    max_size=10,
).map("".join)


@given(TEXTS)
def test_what_is_restored_is_the_original(text: str) -> None:
    turn, (left,) = named(Turn(text), [(text, findings(text))])
    assert restored(left, turn.pseudonyms) == text


@given(TEXTS)
def test_what_is_hidden_is_restored_and_no_value_stays(text: str) -> None:
    turn, _ = named(Turn(text), [(text, findings(text))])
    left = hide(text, turn.pseudonyms)
    assert restored(left, turn.pseudonyms) == text
    assert not any(value in left for value in turn.pseudonyms.values())


@given(TEXTS, st.integers(0, 80))
def test_no_pseudonym_is_cut(text: str, cut: int) -> None:
    turn, (left,) = named(Turn(text), [(text, findings(text))])
    begun = complete(left[:cut], turn.pseudonyms)
    assert text.startswith(restored(begun, turn.pseudonyms))


def test_the_model_is_given_no_masked_value_and_the_reader_gets_them_all_streamed_or_not(tmp_path: Path) -> None:
    policy = policy_of(tmp_path)

    @settings(max_examples=60)
    @given(TEXTS, TEXTS, st.lists(st.integers(0, 200), max_size=30))
    def run(earlier: str, question: str, cuts: list[int]) -> None:
        async def both() -> tuple[Any, list[Event], list[str]]:
            turn = Turn(question, (Message("user", earlier), Message("assistant", "Yes.")))
            echoes = Echo(), Echo(*cuts)
            reply = await Pipeline(policy, Models({"chat": echoes[0]})).respond(turn)
            events = [event async for event in Pipeline(policy, Models({"chat": echoes[1]})).stream(turn)]
            return reply, events, [prompt_text(prompt) for echo in echoes for prompt in echo.prompts]

        reply, events, prompts = asyncio.run(both())
        _, final, told = shown(events)
        assert reply.text == final == told.text == question.strip()
        assert not any(isinstance(event, Replace) for event in events)
        assert len(prompts) == 2
        for value in reply.pseudonyms.values():
            assert not any(value in prompt for prompt in prompts)
            assert value not in trace_lines(reply.trace)
            assert not any(value in message.content for message in reply.messages)
            assert value not in repr(reply.next(""))

    run()


async def test_the_same_value_has_one_pseudonym_in_the_question_the_history_and_the_passages(tmp_path: Path) -> None:
    passage = Passage("Write to a@b.org or c@d.org.", "a.md", 0, 28, score=0.9)
    model = ScriptedGenerator("Write to <EMAIL_ADDRESS_1>, not <EMAIL_ADDRESS_2> or <EMAIL_ADDRESS_3>.")
    policy = policy_of(tmp_path, f"knowledge: {{index: kb}}\nretrieval: [{RESTORE}]")
    turn = Turn("is it a@b.org?", (Message("user", "a@b.org, e@f.org"), Message("assistant", "Who?")))
    reply = await Pipeline(policy, Models({"chat": model}), ListRetriever(passage)).respond(turn)
    asked = prompt_text(model.prompts[0])
    assert "user: <EMAIL_ADDRESS_1>, <EMAIL_ADDRESS_2>" in asked
    assert "Write to <EMAIL_ADDRESS_1> or <EMAIL_ADDRESS_3>. is it <EMAIL_ADDRESS_1>?" in asked
    assert reply.text.startswith("Write to a@b.org, not e@f.org or c@d.org")


async def test_what_was_found_once_is_hidden_where_it_is_not_found(tmp_path: Path) -> None:
    passage = Passage("The desk has 450 0840 as its code.", "a.md", 0, 34, score=0.9)
    model = ScriptedGenerator("Fine.")
    policy = policy_of(tmp_path, "knowledge: {index: kb}")
    turn = Turn("call me at 450 0840", vars={})
    await Pipeline(policy, Models({"chat": model}), ListRetriever(passage)).respond(turn)
    assert "has <PHONE_NUMBER_1> as" in prompt_text(model.prompts[0])
    assert "450 0840" not in prompt_text(model.prompts[0])


async def test_a_conversation_keeps_its_pseudonyms(tmp_path: Path) -> None:
    model = ScriptedGenerator("Hello.", "It was <EMAIL_ADDRESS_1>, and now <EMAIL_ADDRESS_2>.")
    pipeline = Pipeline(policy_of(tmp_path), Models({"chat": model}))
    first = await pipeline.respond(Turn("I am a@b.org"))
    second = await pipeline.respond(first.next("now c@d.org, and no longer a@b.org"))
    assert "user: now <EMAIL_ADDRESS_2>, and no longer <EMAIL_ADDRESS_1>" in prompt_text(model.prompts[1]).replace(
        "user:  ", "user: "
    )
    assert second.text == "It was a@b.org, and now c@d.org."


async def test_an_output_rail_passes_what_is_put_back_and_blocks_what_the_draft_itself_says(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, "output: [{rail: pii}]")

    async def said(draft: str) -> str:
        return (await Pipeline(policy, Models({"chat": ScriptedGenerator(draft)})).respond(Turn("I am a@b.org"))).text

    assert await said("Hello <EMAIL_ADDRESS_1>!") == "Hello a@b.org!"
    assert await said("Hello c@d.org!") == "No."
    assert await said("Hello a@b.org!") == "No."


async def test_a_pseudonym_is_shown_in_one_piece(tmp_path: Path) -> None:
    model = PiecewiseGenerator("It is <EMA", "IL_ADD", "RESS_", "1", "> or <EMAIL", "_ADDRESS_7>.")
    pipeline = Pipeline(policy_of(tmp_path), Models({"chat": model}))
    events = [event async for event in pipeline.stream(Turn("I am a@b.org"))]
    assert shown(events)[1] == "It is a@b.org or <EMAIL_ADDRESS_7>."
    texts = [event.text for event in events if isinstance(event, Text)]
    assert texts[:2] == ["It is ", "a@b.org or "]


async def test_a_name_that_the_user_wrote_is_given_to_no_value(tmp_path: Path) -> None:
    model = Echo()
    reply = await Pipeline(policy_of(tmp_path), Models({"chat": model})).respond(Turn("<EMAIL_ADDRESS_1> a@b.org"))
    assert "<EMAIL_ADDRESS_1> <EMAIL_ADDRESS_2>" in prompt_text(model.prompts[0])
    assert reply.text == "<EMAIL_ADDRESS_1> a@b.org"


async def test_who_answers_elsewhere_gets_the_values_back_with_the_judged_draft(tmp_path: Path) -> None:
    pipeline = Pipeline(policy_of(tmp_path, "output: [{rail: pii}]"), Models())
    turn, _, _ = await pipeline.judge("input", Turn("I am a@b.org"))
    turn, verdict, _ = await pipeline.judge("output", dataclasses.replace(turn, draft="Hi <EMAIL_ADDRESS_1>"))
    assert (verdict.action, turn.draft) == ("allow", "Hi a@b.org")


def test_more_values_than_are_told_apart_are_masked_by_their_kind() -> None:
    text = " ".join(f"u{i}@b.org" for i in range(MOST + 3))
    turn, (left,) = named(Turn(text), [(text, findings(text))])
    assert len(turn.pseudonyms) == MOST
    assert left.endswith(f"<EMAIL_ADDRESS_{MOST}> <EMAIL_ADDRESS> <EMAIL_ADDRESS> <EMAIL_ADDRESS>")


@pytest.mark.parametrize(
    "rails",
    [
        "input: [{rail: pii, restore: true}]",
        "output: [{rail: pii, then: mask, restore: true}]",
        "retrieval: [{rail: pii, then: drop, restore: true}]\nknowledge: {index: kb}",
    ],
)
def test_restore_where_nothing_is_put_back_is_refused_at_its_place(tmp_path: Path, rails: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(f"{HOUSE}{rails}\n")
    with pytest.raises(PolicyError, match=r"policy.yaml:5:\d+: 'restore' needs 'then: mask'"):
        load_policy(file)
