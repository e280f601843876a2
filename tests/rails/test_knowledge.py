"""What a policy says of its knowledge, and what is sought on behalf of a turn."""

from pathlib import Path

import pytest

from tests.fakes import ListRetriever, ScriptedGenerator
from trackbed.llm.types import Message
from trackbed.rails import RailsError, Turn, load_policy
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.types import Models
from trackbed.retrieval.types import AnyOf, Between, Passage, Query

HEAD = """policy: 1
vars:
  tier: {type: string, default: free}
  since: {type: integer}
"""
RAIL = Passage("A rail is one check.", "rails.md", 0, 20, score=0.9)


async def sought(tmp_path: Path, knowledge: str, turn: Turn) -> tuple[Query, str]:
    (tmp_path / "policy.yaml").write_text(f"{HEAD}knowledge: {{index: kb, {knowledge}}}\n")
    retriever = ListRetriever(RAIL)
    model = ScriptedGenerator("A rail is one check.")
    pipeline = Pipeline(load_policy(tmp_path / "policy.yaml"), Models({"chat": model}), retriever)
    reply = await pipeline.respond(turn)
    return (retriever.queries or [Query("", frozenset())])[0], reply.verdict.action


@pytest.mark.parametrize(
    ("filter_", "condition"),
    [
        ("{x: red}", AnyOf(("red",))),
        ("{x: [red, 3, true]}", AnyOf(("red", 3, True))),
        ("{x: '{{ vars.tier }}'}", AnyOf(("gold",))),
        ("{x: 'tier-{{ vars.tier }}'}", AnyOf(("tier-gold",))),
        ("{x: ['{{ vars.since }}']}", AnyOf((2020,))),
        ("{x: {least: '{{ vars.since }}', most: 2030}}", Between(2020, 2030)),
        ("{x: {most: '2024-01-01'}}", Between(None, "2024-01-01")),
    ],
)
async def test_a_filter_is_filled_in_by_the_turn(tmp_path: Path, filter_: str, condition: object) -> None:
    turn = Turn("What is a rail?", vars={"tier": "gold", "since": 2020})
    query, _ = await sought(tmp_path, f"filter: {filter_}", turn)
    assert query.filter == {"x": condition}


async def test_a_filter_whose_variable_is_missing_refuses_the_turn(tmp_path: Path) -> None:
    query, action = await sought(tmp_path, "filter: {x: '{{ vars.since }}'}", Turn("What is a rail?"))
    assert (query.text, action) == ("", "block")


async def test_what_is_sought_is_sought_for_the_groups_of_who_asks(tmp_path: Path) -> None:
    query, _ = await sought(tmp_path, "passages: 2", Turn("What is a rail?", principals=frozenset({"staff"})))
    assert query == Query("What is a rail?", frozenset({"staff"}))


async def test_the_next_turn_has_the_same_groups(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(HEAD)
    pipeline = Pipeline(load_policy(tmp_path / "policy.yaml"), Models({"chat": ScriptedGenerator("Hello.")}))
    reply = await pipeline.respond(Turn("Hello", principals=frozenset({"staff"})))
    assert reply.next("And now?").principals == {"staff"}


@pytest.mark.parametrize(
    ("filter_", "words"),
    [
        ("{x: {leasst: 3}}", "'leasst' is not a key of a range; did you mean 'least'?"),
        ("{x: {least: true}}", "true and false bound no range"),
        ("{x: {}}", "a range without bounds"),
        ("{x: []}", "a list of 0 values"),
        ("{x: [[a]]}", "metadata are compared with"),
        ("{x: '{{ vars.teir }}'}", "'teir' is not a part of 'vars'; did you mean 'tier'?"),
        ("{}", "'knowledge.filter' is given but empty"),
        ("{x: '{{ passages }}'}", "'passages' is not a name of this template"),
    ],
)
def test_a_mistake_in_a_filter_is_told_with_its_place(tmp_path: Path, filter_: str, words: str) -> None:
    (tmp_path / "policy.yaml").write_text(f"{HEAD}knowledge: {{index: kb, filter: {filter_}}}\n")
    with pytest.raises(RailsError, match=r"policy\.yaml:5:\d+: ") as raised:
        load_policy(tmp_path / "policy.yaml")
    assert words in str(raised.value)


ASKED = (Message("user", "How do I add a rail?"), Message("assistant", "Write a class."))
MODEL = """policy: 1
models: {small: smollm2-135m-instruct}
knowledge: {index: kb, rewrite: small}
"""


async def test_a_question_that_leans_on_the_conversation_is_sought_with_what_was_asked(tmp_path: Path) -> None:
    turn = Turn("And where is it tested?", ASKED, judged=2)
    query, _ = await sought(tmp_path, "rewrite: rules", turn)
    assert (query.text, query.also) == (turn.question, ("add rail: And where is it tested?",))
    query, _ = await sought(tmp_path, "rewrite: none", turn)
    assert query.also == ()


async def test_a_model_words_a_question_anew_and_the_trace_tells_of_it(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(MODEL)
    retriever = ListRetriever(RAIL)
    models = {"chat": ScriptedGenerator("A rail is one check."), "small": ScriptedGenerator("Where do I add a rail?")}
    pipeline = Pipeline(load_policy(tmp_path / "policy.yaml"), Models(models), retriever)
    reply = await pipeline.respond(Turn("And where?", ASKED))
    assert retriever.queries[0].also == ("Where do I add a rail?",)
    [span] = [span for span in reply.trace.spans if span.name == "rewrite"]
    assert (span.calls, span.error, dict(span.notes)) == (1, "", {"model": "small", "rewritten": 1})


async def test_a_model_that_fails_leaves_the_question_alone_and_the_trace_says_so(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(MODEL)
    retriever = ListRetriever(RAIL)
    models = {"chat": ScriptedGenerator("A rail is one check."), "small": ScriptedGenerator(fails=ValueError("no"))}
    pipeline = Pipeline(load_policy(tmp_path / "policy.yaml"), Models(models), retriever)
    reply = await pipeline.respond(Turn("And where?", ASKED))
    assert (retriever.queries[0].also, reply.verdict.action) == ((), "allow")
    assert [span.error for span in reply.trace.spans if span.name == "rewrite"] == ["ValueError"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("rewrite: rule", "'rule' is no way to rewrite a question; did you mean 'rules'?"),
        ("rerank: chatt", "'chatt' is not one of the models; did you mean 'chat'?"),
        ("candidates: 0", "'knowledge.candidates' is 0"),
        ("diversity: 1.5", "'knowledge.diversity' is 1.5"),
        ("neighbours: 99", "'knowledge.neighbours' is 99"),
        ("timeout: 2", "2 is not a duration"),
    ],
)
def test_a_mistake_in_how_is_searched_is_told(tmp_path: Path, keys: str, words: str) -> None:
    (tmp_path / "policy.yaml").write_text(f"policy: 1\nknowledge: {{index: kb, {keys}}}\n")
    with pytest.raises(RailsError) as raised:
        load_policy(tmp_path / "policy.yaml")
    assert words in str(raised.value)


def test_several_indexes_are_named_once_each(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("policy: 1\nknowledge: {index: [kb, handbook]}\n")
    knowledge = load_policy(tmp_path / "policy.yaml").knowledge
    assert knowledge is not None
    assert (knowledge.indexes, knowledge.index) == (("kb", "handbook"), "kb, handbook")
    (tmp_path / "policy.yaml").write_text("policy: 1\nknowledge: {index: [kb, kb]}\n")
    with pytest.raises(RailsError, match="'kb' is named twice"):
        load_policy(tmp_path / "policy.yaml")
