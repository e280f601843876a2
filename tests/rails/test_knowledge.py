"""What a policy says of its knowledge, and what is sought on behalf of a turn."""

from pathlib import Path

import pytest

from tests.fakes import ListRetriever, ScriptedGenerator
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
