"""Questions that lean on the conversation."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import ScriptedGenerator, prompt_text
from trackbed.llm.types import Message, SamplingParams
from trackbed.rails.rewrite import TOPIC, ask_rewrite, leans, rewrite

RAILS = (Message("user", "How do I add a rail to a policy?"), Message("assistant", "Write a class with a check."))


@pytest.mark.parametrize(
    "question",
    [
        "And where is it tested?",
        "What about streaming?",
        "How long does that take?",
        "Why?",
        "Tell me more",
        "Which of these is faster on a CPU?",
        "How old was she when the war ended?",
        "Is it possible to use those on a GPU?",
    ],
)
def test_a_question_that_points_back_or_says_little_leans(question: str) -> None:
    assert leans(question)


@pytest.mark.parametrize(
    "question",
    [
        "Which file formats can I ingest?",
        "Is it possible to stream an answer?",
        "Are there limits on the size of a document?",
        "How does the scheduler batch requests?",
        "Who wrote the report on slipstreams and wings?",
        "Is there a way to delete documents from an index?",
        "",
        "?",
    ],
)
def test_a_question_that_stands_by_itself_does_not(question: str) -> None:
    assert not leans(question)


def test_what_was_asked_before_is_added_to_a_question_that_leans() -> None:
    assert rewrite("And where is it tested?", RAILS) == ("add rail policy: And where is it tested?",)


def test_a_question_that_stands_by_itself_is_left_alone() -> None:
    assert rewrite("Which file formats can I ingest?", RAILS) == ()


def test_nothing_is_added_where_nobody_has_asked_before() -> None:
    assert rewrite("And where is it tested?", ()) == ()
    assert rewrite("And where is it tested?", (Message("assistant", "Welcome to the shop."),)) == ()


def test_the_topic_is_found_behind_a_question_that_leans_itself() -> None:
    history = (*RAILS, Message("user", "What about streaming it?"), Message("assistant", "Yes."))
    assert rewrite("Why?", history) == ("add rail policy streaming: Why?",)


def test_a_new_topic_ends_the_one_before() -> None:
    history = (*RAILS, Message("user", "Which file formats can I ingest?"), Message("assistant", "Markdown."))
    assert rewrite("How large can they be?", history) == ("file formats ingest: How large can they be?",)


def test_words_that_the_question_has_are_not_added_again() -> None:
    assert rewrite("And why has it a policy?", RAILS) == ("add rail: And why has it a policy?",)


@given(
    st.text(max_size=200), st.lists(st.tuples(st.sampled_from(["user", "assistant", "tool"]), st.text(max_size=300)))
)
def test_any_conversation_adds_little_and_only_what_users_said(question: str, said: list[tuple[str, str]]) -> None:
    history = [Message(role, text) for role, text in said]  # type: ignore[arg-type]
    for text in rewrite(question, history):
        topic = text.partition(": ")[0]
        assert text.endswith(question.strip())
        assert len(topic.split()) <= TOPIC
        assert all(any(word in text for role, text in said if role == "user") for word in topic.split())


async def test_a_model_s_question_is_sought_beside_the_user_s() -> None:
    model = ScriptedGenerator('"Where is a rail of a policy tested?"')
    found = await ask_rewrite(model, "And where is it tested?", RAILS)
    assert found.also == ("Where is a rail of a policy tested?",)
    assert found.error == ""
    assert "How do I add a rail" in prompt_text(model.prompts[0])


async def test_a_model_is_not_asked_without_a_conversation() -> None:
    model = ScriptedGenerator("x")
    assert (await ask_rewrite(model, "And where is it tested?", ())).also == ()
    assert not model.prompts


@pytest.mark.parametrize(
    ("model", "error"),
    [
        (ScriptedGenerator(fails=OSError("no")), "OSError"),
        (ScriptedGenerator("Where is a rail tested?", delay=5), "TimeoutError"),
        (ScriptedGenerator("  "), "no question"),
        (ScriptedGenerator("rail " * 200), "too long"),
        (ScriptedGenerator("Where do pandas sleep?"), "strayed"),
    ],
)
async def test_a_model_that_fails_leaves_the_question_alone_and_it_is_said(
    model: ScriptedGenerator, error: str
) -> None:
    found = await ask_rewrite(model, "And where is it tested?", RAILS, seconds=0.05)
    assert (found.also, found.error) == ((), error)


async def test_a_model_s_words_are_bounded() -> None:
    class Recording(ScriptedGenerator):
        async def generate(self, prompt, params: SamplingParams):  # type: ignore[no-untyped-def]
            self.params = params
            return await super().generate(prompt, params)

    model = Recording("Where is a rail tested?")
    await ask_rewrite(model, "And where is it tested?", RAILS)
    assert model.params.max_tokens <= 64


async def test_a_cancelled_turn_is_not_kept_waiting() -> None:
    task = asyncio.create_task(ask_rewrite(ScriptedGenerator("x", delay=60), "Why?", RAILS))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
