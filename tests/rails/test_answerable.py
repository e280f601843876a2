"""Which passages answer a question, and which only speak of something near it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import ListRetriever, ScriptedGenerator
from trackbed.rails import Models, Pipeline, Turn, load_policy
from trackbed.rails.library.answerable import Answerable, answers
from trackbed.retrieval.types import Passage

LIBRARY = "The library opens at nine on weekdays. On Sundays it is closed. Members may borrow up to five books at once."
FOUNDED = "Ada Byron founded the library in 1987 with money of her own. It was the first one in the town."


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("When does the library open on weekdays?", LIBRARY),
        ("How many books may members borrow?", LIBRARY.replace("five", "5")),
        ("Is the library closed on Sundays?", LIBRARY),
        ("Who founded the library?", FOUNDED),
        ("In what year was the library founded?", FOUNDED),
        ("What is it?", LIBRARY),
    ],
)
def test_a_passage_that_holds_the_answer_passes(question: str, text: str) -> None:
    assert answers(question, text) >= 0.2


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("Who founded the swimming pool in Oxford?", LIBRARY),
        ("What does a monthly subscription cost?", LIBRARY),
        ("Which architect designed the new wing?", FOUNDED),
        ("How many visitors came in 2020?", FOUNDED),
        ("Who won the match last night?", LIBRARY),
        ("What is the capital of France?", FOUNDED),
    ],
)
def test_a_passage_about_something_else_does_not(question: str, text: str) -> None:
    assert answers(question, text) < 0.2


def test_what_a_heading_says_counts() -> None:
    question, text = "How do I renew a library card?", "Bring it to the desk, and wait a minute."
    assert answers(question, text) < 0.2 < answers(question, text, "Library > How do I renew a library card?")


@given(st.text(max_size=80), st.text(max_size=200), st.text(max_size=40))
def test_it_is_a_probability_whatever_is_asked(question: str, text: str, heading: str) -> None:
    assert 0 <= answers(question, text, heading) <= 1


async def test_where_no_passage_answers_the_policy_says_that_it_does_not_know(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        "policy: 1\nmodels: {chat: smollm2-135m-instruct}\nknowledge: {index: kb}\n"
        "generation: {unknown: No idea.}\nretrieval: [{rail: answerable, then: drop}]\n"
    )
    passages = (
        Passage(LIBRARY, "a.md", 0, len(LIBRARY), score=0.9),
        Passage(FOUNDED, "b.md", 0, len(FOUNDED), score=0.8),
    )
    chat = ScriptedGenerator("Ada Byron founded it.")
    pipeline = Pipeline(load_policy(file), Models({"chat": chat}), ListRetriever(*passages))
    assert (await pipeline.respond(Turn("What does a monthly subscription cost?"))).text == "No idea."
    assert chat.prompts == []
    reply = await pipeline.respond(Turn("Who founded the library?"))
    assert reply.text == "Ada Byron founded it. [1]"
    assert [citation.source for citation in reply.citations] == ["b.md"]


async def test_each_passage_is_judged_under_its_own_heading() -> None:
    passage = Passage("Bring it to the desk.", "a.md", 0, 21, heading="How do I renew a library card?")
    turn = Turn("How do I renew a library card?", passages=(passage,), stage="retrieval", text=passage.text)
    assert (await Answerable(Answerable.Config(), Models()).check(turn)).action == "allow"
