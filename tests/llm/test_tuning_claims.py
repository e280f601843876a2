"""What a judge of claims is taught: true claims in other words, false ones, and texts that are read once for many."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from trackbed.llm.claim_judge import ClaimJudge
from trackbed.llm.claims import Claims
from trackbed.llm.tuning.claimed import MERGED, Pack, contrasts, packs, question_claims, read_claims
from trackbed.llm.tuning.facts import Claim, fact_claims
from trackbed.llm.tuning.falsify import (
    denied,
    falsified,
    names_of,
    opposite,
    other_name,
    other_number,
    reworded,
    swapped,
)
from trackbed.llm.tuning.figures import Tried
from trackbed.llm.tuning.judging import figures, write_judge
from trackbed.llm.tuning.questions import Asked
from trackbed.llm.tuning.rows import Row
from trackbed.llm.tuning.ship import lora_tensors
from trackbed.llm.tuning.statements import statement
from trackbed.llm.tuning.supporting import Lesson, Supporting, line_of, logits_of, teach

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SENTENCE = "In 1923 the old library of Ada Byron was opened by Tom Hill, who had 120 books and two large rooms."
LIBRARY = f"{SENTENCE} It is closed on Sundays. Members have to pay more than 9 euros a year."
MILL = "The mill of Newton stands by the river. Its largest wheel is made of oak. The owner is Grace Hopper of Leeds."


def claim(text: str, *, supported: bool = True, context: str = LIBRARY, source: str = "own") -> Claim:
    return Claim(context, "", text, supported, source, "CC0-1.0")


def drawn(seed: int = 0) -> random.Random:
    return random.Random(seed)


def test_each_way_changes_one_thing() -> None:
    assert other_number("It has 120 rooms.", drawn()) != "It has 120 rooms."
    assert other_number("It has two rooms.", drawn()) != "It has two rooms."
    assert other_number("It has rooms.", drawn()) is None
    assert other_number("Version 1.2.3 is here.", drawn()) is None
    assert opposite("The first wheel turns.", drawn()) == "The last wheel turns."
    assert opposite("Wheels turn.", drawn()) is None
    assert denied("It is open.", drawn(1)) == "It is not open."
    assert denied("It has been open.", drawn(1)) == "It has not been open."
    assert denied("It is not open.", drawn()) == "It is open."
    assert denied("It opened.", drawn()) is None
    assert other_name("They met Tom Hill.", drawn(), ["Ada Byron", "Hill"]) == "They met Ada Byron."
    assert other_name("They met Tom Hill.", drawn(), []) is None
    assert swapped("They say Tom Hill met Ada Byron.", drawn()) == "They say Ada Byron met Tom Hill."
    assert [match.group() for match in names_of("The mill of Newton. Tom Hill owns it.")] == ["Newton", "Tom Hill"]


@given(seed=st.integers(0, 10_000))
def test_what_is_made_false_differs_and_what_is_reworded_stays_a_sentence(seed: int) -> None:
    chance = drawn(seed)
    made = falsified(SENTENCE, chance, ["Grace Hopper"])
    assert made is None or made != SENTENCE
    said = reworded(SENTENCE, chance)
    assert said
    assert said[0].isupper()
    numbers = {word.strip(",.") for word in said.split() if word[0].isdigit()}
    assert numbers <= {"1923", "120"}


@given(st.text(max_size=120), st.integers(0, 100))
def test_any_text_can_be_reworded_and_made_false(text: str, seed: int) -> None:
    reworded(text, drawn(seed))
    falsified(text, drawn(seed), ["Ada"])


@pytest.mark.parametrize(
    ("question", "answer", "said"),
    [
        ("When did the library open?", "1923", "The library opened in 1923."),
        ("In what year was the library opened?", "1923", "The library was opened in 1923."),
        ("When was the library opened?", "May 9", "The library was opened on May 9."),
        ("Where does the river begin?", "the hills", "The river begins in the hills."),
        ("How many people live in the town?", "9,000", "9,000 people live in the town."),
        ("How many rooms are there in the mill?", "two", "There are two rooms in the mill."),
        ("What is the capital of the county?", "Leeds", "The capital of the county is Leeds."),
        ("What did Ada Byron write?", "a program", "Ada Byron wrote a program."),
        ("Who opened the library?", "Tom Hill", "Tom Hill opened the library."),
        ("Who has visited the mill?", "Ada", "Ada has visited the mill."),
        ("What is the mill made of?", "oak", "The mill made is of oak."),
        ("Why?", "so", None),
        ("When did it blorp?", "1923", None),
        ("Who opened it?", "a very long answer that says a great deal more than that", None),
        ("", "", None),
    ],
)
def test_a_question_and_its_answer_are_a_statement(question: str, answer: str, said: str | None) -> None:
    assert statement(question, answer) == said


@given(st.text(max_size=80), st.text(max_size=30))
def test_any_question_can_be_asked(question: str, answer: str) -> None:
    said = statement(question, answer)
    assert said is None or said.endswith(".")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_facts_are_told_in_two_ways_and_false_ones_are_not_in_the_passage(seed: int) -> None:
    found = fact_claims(5, seed)
    assert found == fact_claims(5, seed)
    assert {one.supported for one in found} == {True, False}
    for one in found:
        assert one.text[0] == one.text[0].upper()
        assert "{" not in one.text
        if not one.question and not one.supported:
            assert one.text not in one.context
        if one.question and one.supported:
            assert one.text in one.context


def test_contrasts_are_of_both_kinds_and_of_the_texts_source() -> None:
    rows = [claim("x"), claim("x", context=MILL), claim("y"), claim("z", context="Too short.")]
    found = [one for seed in range(20) for one in contrasts(rows, seed)]
    assert {one.supported for one in found} == {True, False}
    assert {(one.context, one.source) for one in found} == {(LIBRARY, "own"), (MILL, "own")}
    assert len(contrasts(rows)) <= 4


def test_questions_have_right_and_wrong_answers() -> None:
    rows = [
        Asked("When did the library open?", LIBRARY, "1923", "t", 0, "xquad", "CC-BY-SA-4.0"),
        Asked("How many books are there in it?", LIBRARY, "120", "t", 0, "xquad", "CC-BY-SA-4.0"),
    ]
    found = {(one.question, one.text, one.supported) for seed in range(20) for one in question_claims(rows, seed)}
    assert ("When did the library open?", "1923", True) in found
    assert ("When did the library open?", "120", False) in found
    assert ("", "The library opened in 1923.", True) in found
    assert ("", "The library opened in 120.", False) in found


def write_data(folder: Path) -> Path:
    rows = []
    for n in range(6):
        for source, licence in (
            ("fool-me-twice-dev", "Apache-2.0"),
            ("begin-wow", "CC-BY-4.0"),
            ("qags-cnndm", "no licence"),
        ):
            told = {
                "context": LIBRARY if n % 2 else MILL,
                "answer": f"The library {n} opens. It is old.",
                "question": "<br>A: why<br>",
            }
            rows.append(
                {**told, "label": "grounded" if n % 3 else "hallucinated", "source": source, "licence": licence}
            )
    (folder / "grounding.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    asked = {
        "question": "Who owns the mill?",
        "context": MILL,
        "answers": ["Grace Hopper"],
        "doc_id": "mill-1",
        "fold": 1,
    }
    asked |= {"source": "xquad-en", "licence": "CC-BY-SA-4.0"}
    (folder / "qa_xquad_en.jsonl").write_text(json.dumps(asked) + "\n")
    return folder


def test_rows_say_what_was_asked_last_and_whether_they_may_train(tmp_path: Path) -> None:
    rows = read_claims(write_data(tmp_path) / "grounding.jsonl")
    assert {row.claim.question for row in rows} == {"why"}
    assert {row.claim.source for row in rows if row.licensed} == {MERGED[0], "begin-wow"}
    (tmp_path / "bad.jsonl").write_text('{"context": "a"}\n')
    with pytest.raises(ValueError, match=r"bad\.jsonl:1: a row needs context, answer, label and source"):
        read_claims(tmp_path / "bad.jsonl")


def test_what_is_held_out_or_not_licensed_trains_nothing(tmp_path: Path) -> None:
    write_data(tmp_path)
    every = [one for pack in packs(tmp_path) for one in pack.claims]
    assert {one.source for one in every} == {MERGED[0], "begin-wow", "xquad", "authored-things"}
    held = [one for pack in packs(tmp_path, ("begin-wow", "xquad")) for one in pack.claims]
    assert {one.source for one in held} == {MERGED[0], "authored-things"}
    assert all(one.context == pack.context for pack in packs(tmp_path) for one in pack.claims)
    assert packs(tmp_path) == packs(tmp_path) != packs(tmp_path, seed=1)


SMALL = Lesson(layers=2, first=1, rank=2, alpha=4, rate=5e-3, batch=3, tokens=40)


def test_claims_that_are_read_together_have_the_logits_that_each_has_alone(tiny_chat: Path) -> None:
    claims = Claims(tiny_chat, 200)
    network = Supporting(tiny_chat, claims, Lesson(layers=2, first=0, rank=2)).eval()
    said = [
        claim("The library opened in 1923."),
        claim("No.")._replace(question="Is it?"),
        claim("It is closed on Sundays."),
    ]
    torch.nn.init.normal_(network.head.weight)
    together = line_of(claims, LIBRARY, said, 200)
    alone = [line_of(claims, LIBRARY, [one], 200) for one in said]
    with torch.inference_mode():
        found = network([together, alone[1]])
        each = [float(network([line])[0]) for line in alone]
    assert found.tolist()[:3] == pytest.approx(each, abs=2e-2)
    assert float(found[3]) == pytest.approx(each[1], abs=2e-2)
    assert len({round(one, 3) for one in each}) == 3


def test_of_a_long_text_the_sentences_like_the_claim_are_read(tiny_chat: Path) -> None:
    claims = Claims(tiny_chat, 40)
    text = claims.tokenizer.decode(line_of(claims, f"{LIBRARY} {MILL}", [claim("The mill is by a river.")], 40).ids)
    assert "stands by the river" in text
    assert "Byron" not in text


def test_what_is_taught_is_learned_and_judged_by_the_runtime(tiny_chat: Path, tmp_path: Path) -> None:
    """Claims that differ in one word; the judge's folder says of them what training said."""
    data = [claim("It is closed on Sundays."), claim("It is closed on Mondays.", supported=False)]
    rows = [Pack(LIBRARY, tuple(data)) for _ in range(60)]
    network = teach(rows, tiny_chat, SMALL, lambda words: None)
    logits = logits_of(network, [data], tiny_chat, 40)[0]
    assert logits[0] > logits[1] + 1
    save_file(lora_tensors(network.head, network.changed), tmp_path / "learned.safetensors")
    tried = Tried(
        [Row("", "", yes, (), source, "", False, 0) for yes in (True, False) * 4 for source in ("a", "b")],
        np.array([2, 1, -2, -1, 2, 1, -2, -1, -2, 1, 2, -1, 2, -1, -2, 1], "float32"),
    )
    lesson = Lesson(str(tiny_chat), **{name: getattr(SMALL, name) for name in ("layers", "first", "rank", "alpha")})
    write_judge(tmp_path / "judge", tmp_path / "learned.safetensors", lesson, [tried])
    judge = ClaimJudge(tmp_path / "judge", tmp_path, dtype="float32")
    whole = logits_of(network, [data], tiny_chat, 256)[0]
    expected = 1 / (1 + np.exp(-(judge.described.scale * whole + judge.described.shift)))
    found = [judge.judge(LIBRARY, one.text).supported for one in data]
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert set(figures([tried])) == {"a", "b", "mean"}
