"""Answers are compared as SQuAD's script compares them, citations are weighed sentence by sentence, and all is told."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.fakes import ScriptedGenerator
from trackbed.apps.cli import app
from trackbed.apps.evals.rag import Answered, ask, compare, declines, given, rate, read_asked, share, weigh
from trackbed.rails.policy import Policy, load_policy
from trackbed.rails.types import Citation, Models
from trackbed.retrieval.types import Passage

POLICY = """policy: 1
models: {chat: smollm2-135m-instruct}
knowledge: {index: none-at-all}
generation: {model: chat, unknown: That stands nowhere.}
output:
  - {rail: grounding, minimum: 1, support: 0.75, relevance: 0.2, then: quote}
"""
LIBRARY = "The library opens at nine on weekdays. It was founded by Ada Byron in 1923."
BRIDGE = "The bridge is 400 metres long. It is made of steel."


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    (tmp_path / "p.yaml").write_text(POLICY)
    return load_policy(tmp_path / "p.yaml")


def rows(folder: Path, *written: dict[str, object]) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in written))
    return file


def answer(policy: Policy, file: Path, *drafts: str) -> list[Answered]:
    """What comes of the rows, when the model drafts these."""
    assert policy.knowledge
    asked = read_asked(file)
    opened = given(policy, policy.knowledge, max(len(row.contexts) for row in asked))
    return list(ask(opened.asked, Models({"chat": ScriptedGenerator(*drafts)}), None, asked, lambda *_: None))


@pytest.mark.parametrize(
    ("text", "answers", "f1", "exact", "contained"),
    [
        ("The 1923.", ["1923"], 1, 1, 1),
        ("1923 [1]", ["1923", "in the year 1923"], 1, 1, 1),
        ("It was founded in 1923. [1]", ["in 1923"], 4 / 7, 0, 1),
        ("Ada Byron founded it", ["Charles Babbage"], 0, 0, 0),
        ("There are 19230 books", ["1923"], 0, 0, 0),
        ("Byron, Ada", ["Ada Byron"], 1, 0, 0),
        ("", ["1923"], 0, 0, 0),
    ],
)
def test_answers_are_compared_as_squad_does(
    text: str, answers: list[str], f1: float, exact: float, contained: float
) -> None:
    assert compare(text, answers) == pytest.approx((f1, exact, contained))


@drawn(st.text("ab the.,\n", max_size=40))
def test_an_answer_is_nearest_to_itself(text: str) -> None:
    found = compare(text, [text, "zz"])
    assert found.f1 in (0, 1)  # 0: it says nothing
    assert found.exact == 1 or not found.f1


def test_a_citation_counts_where_its_quote_supports_the_sentence_it_stands_behind() -> None:
    text = "The library opens at nine on weekdays. [1] The bridge is made of steel. [2] It was sold to Spain. [1]"
    citations = [
        Citation(1, "a", 0, 38, "The library opens at nine on weekdays."),
        Citation(2, "b", 0, 30, "The bridge is 400 metres long."),
    ]
    passages = [Passage(LIBRARY, "a", 0, len(LIBRARY)), Passage(BRIDGE, "b", 0, len(BRIDGE))]
    found = weigh(text, citations, passages, LIBRARY)
    assert found._asdict() == {"sentences": 3, "cited": 1, "supported": 2, "citations": 3, "right": 1, "gold": 2}


def test_a_mark_stands_for_the_sentences_before_it_that_have_none() -> None:
    text = f"{BRIDGE} [1]"
    found = weigh(text, [Citation(1, "b", 0, len(BRIDGE), BRIDGE)], [Passage(BRIDGE, "b", 0, len(BRIDGE))], BRIDGE)
    assert (found.sentences, found.cited, found.citations, found.gold) == (2, 2, 2, 2)


def test_what_says_only_that_it_does_not_know_declines(policy: Policy) -> None:
    for text in ("I don't know.", "The passages do not say. [1]", "That stands nowhere.", ""):
        assert declines(text, policy)
    assert not declines("I don't know. It opens at nine.", policy)


def test_rows_are_answered_from_their_own_passages_and_measured(policy: Policy, tmp_path: Path) -> None:
    asked = [
        {"id": "a", "question": "When does the library open?", "answers": ["nine", "at nine"], "context": LIBRARY},
        {"id": "b", "question": "Who founded the library?", "answers": ["Ada Byron"], "contexts": [BRIDGE, LIBRARY]},
        {"id": "c", "question": "How high is the bridge?", "answers": [], "context": BRIDGE},
        {"id": "d", "question": "What is the bridge made of?", "answers": ["steel"], "context": BRIDGE},
    ]
    drafts = (
        "The library opens at nine on weekdays. [1]",
        "It was founded by Ada Byron in 1923. [2]",
        "I don't know.",
        "I don't know.",
    )
    found = answer(policy, rows(tmp_path, *asked), *drafts)
    assert [one.declined for one in found] == [False, False, True, True]
    assert [one.draft for one in found] == list(drafts)
    figures = rate(found)
    assert figures.shipped["contained"].value == pytest.approx(2 / 3)
    assert figures.shipped["exact"].value == 0
    assert figures.shipped["declined_unanswerable"].value == 1
    assert figures.shipped["declined_answerable"].value == pytest.approx(1 / 3)
    assert figures.shipped["sentences_cited"].value == 1
    assert figures.shipped["citation_precision"].value == 1
    assert figures.shipped["citation_to_gold"].value == 1
    assert (figures.rows, figures.unanswerable) == (4, 1)


def test_what_leaves_is_told_apart_from_what_was_drafted(policy: Policy, tmp_path: Path) -> None:
    file = rows(tmp_path, {"question": "Who founded the library?", "answers": ["Ada Byron"], "context": LIBRARY})
    (found,) = answer(policy, file, "Charles Babbage founded the library in Rome. [1]")
    assert (found.action, found.by) == ("rewrite", "output/grounding")
    assert (found.draft_compared.contained, found.compared.contained) == (0, 1)


def test_a_share_of_nothing_is_no_number_and_an_interval_holds_the_share() -> None:
    assert math.isnan(share([(0, 0)]).value)
    found = share([(1, 1), (0, 1), (1, 2), (0, 0)] * 20)
    assert found.value == 0.5
    assert found.low < 0.5 < found.high


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"answers": [], "context": "a"}, "a row needs question and a list of answers"),
        ({"question": "a", "answers": None, "context": "a"}, "a row needs question and a list of answers"),
        ({"question": "a", "answers": []}, "a row needs one of: context, contexts, doc_id"),
    ],
)
def test_a_row_that_says_too_little_is_named(tmp_path: Path, row: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=rf"rows\.jsonl:1: {expected}"):
        read_asked(rows(tmp_path, row))


def test_rows_without_passages_need_an_index(tmp_path: Path) -> None:
    file = rows(tmp_path, {"id": "q7", "question": "a", "answers": [], "doc_id": "d"})
    done = CliRunner().invoke(app, ["eval", "rag", "--data", str(file)])
    assert done.exit_code == 2
    assert "q7" in done.output
    assert "--index" in done.output
