"""Teaching to answer from passages: what is asked, what is wanted, and that what is taught is what a policy asks."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trackbed.llm.engine import Engine
from trackbed.llm.tokenizer import Tokenizer
from trackbed.llm.tuning.answering import UNKNOWN, Lesson, Prompter, teach, wanted
from trackbed.llm.tuning.course import POLICIES, SYSTEM
from trackbed.llm.tuning.invented import Case, Piece, invented, procedures
from trackbed.llm.tuning.pages import page_cases
from trackbed.llm.tuning.questions import (
    Asked,
    Paragraphs,
    answered,
    around,
    brief,
    read_asked,
    sentence_with,
    sentences_of,
    unanswered,
    with_history,
)
from trackbed.rails.library.grounding import ABSTAINS
from trackbed.rails.policy import load_policy
from trackbed.rails.prompt import render_prompt
from trackbed.rails.types import Turn
from trackbed.retrieval.types import Passage

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

LIBRARY = "The old library opens at nine. It was founded by Dr. Ada Byron in 1923. Children pay nothing."
BRIDGE = "The bridge is 400 metres long. It is made of steel. A crossing costs 9 euros."
MILL = "The mill stands by the river. Its wheel is made of oak. The owner is Tom Hill."


def asked(question: str, context: str, answer: str, title: str = "Town") -> Asked:
    return Asked(question, context, answer, title, 0, "own", "CC0-1.0")


ROWS = [
    asked("When does the library open?", LIBRARY, "nine"),
    asked("Who founded the library?", LIBRARY, "Ada Byron"),
    asked("What is the bridge made of?", BRIDGE, "steel"),
    asked("Who owns the mill?", MILL, "Tom Hill"),
]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_answers_stands_in_the_passage_that_is_named(seed: int) -> None:
    others = Paragraphs(ROWS)
    for case in [*invented(5, seed), *procedures(5, seed), *answered(ROWS, others, seed)]:
        assert case.question
        assert case.pieces
        if case.answer:
            assert case.answer.rstrip(".") in case.pieces[case.place].text
        assert case.source
        assert case.licence


def test_the_same_seed_gives_the_same_questions_and_another_seed_others() -> None:
    assert invented(20, 3) == invented(20, 3) != invented(20, 4)
    assert procedures(20, 3) == procedures(20, 3) != procedures(20, 4)


def test_there_are_questions_of_every_kind_with_and_without_an_answer() -> None:
    for cases in (invented(400), procedures(400)):
        share = sum(not case.answer for case in cases) / len(cases)
        assert 0.25 < share < 0.5
        assert len({case.question for case in cases}) > 200


@pytest.mark.parametrize("seed", range(5))
def test_what_is_unanswered_has_the_answer_nowhere(seed: int) -> None:
    for row, case in zip(ROWS, unanswered(ROWS, Paragraphs(ROWS), seed), strict=True):
        assert case.question == row.question
        assert not case.answer
        assert case.pieces
        assert all(row.answer not in piece.text for piece in case.pieces)


def test_sentences_end_behind_a_full_stop_and_not_behind_an_abbreviation() -> None:
    assert sentences_of(LIBRARY) == [
        "The old library opens at nine.",
        "It was founded by Dr. Ada Byron in 1923.",
        "Children pay nothing.",
    ]
    assert sentence_with(ROWS[1]) == "It was founded by Dr. Ada Byron in 1923."
    assert sentence_with(asked("Who?", LIBRARY, "nobody")) is None


def test_a_long_sentence_ends_where_it_has_said_the_answer() -> None:
    long = (
        "The bridge was built in 1901 by an engineer from the north, who had built two others before; it carried the "
        "first tramway of the province, and its towers were painted green by the prisoners of the town"
    )
    assert brief(long, "1901") == "The bridge was built in 1901 by an engineer from the north."
    assert brief(long, "green") == long
    assert brief("It opens at nine; it closes at six.", "nine") == "It opens at nine; it closes at six."
    never = long.replace("it carried", "it never carried")
    assert brief(never, "two others") == never


def test_of_a_paragraph_the_part_around_what_is_like_the_question_is_shown() -> None:
    assert around(LIBRARY, "Do children pay?", 4) == "Children pay nothing."
    assert around(LIBRARY, "Do children pay?", 100) == LIBRARY


def test_headings_of_pages_ask_and_the_sentence_below_answers(tmp_path: Path) -> None:
    page = "# Rails\n\n## How do I add a rail?\n\nWrite its name under `input`, with its settings below it.\n"
    page += (
        "\n## What is a rail?\n\n```\nnot this\n```\n\nA rail is one check that judges a text of a turn. It is small.\n"
    )
    (tmp_path / "rails.md").write_text(page)
    cases = page_cases(tmp_path, "own", "MIT")
    assert {case.answer for case in cases} <= {
        "",
        "Write its name under `input`, with its settings below it.",
        "A rail is one check that judges a text of a turn.",
    }
    assert "How do I add a rail?" in {case.question for case in cases}


def test_a_share_of_questions_comes_after_another_one() -> None:
    cases = with_history(invented(100), 0.3)
    assert 10 < sum(case.before is not None for case in cases) < 50


def test_a_row_that_says_too_little_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "a", "context": "b", "answers": []}) + "\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: a row needs question, context, answers"):
        read_asked(tmp_path / "rows.jsonl")


def test_what_declines_is_known_to_the_rails() -> None:
    assert ABSTAINS.search(UNKNOWN)
    assert UNKNOWN in SYSTEM


def prompter(base: Path) -> Prompter:
    prompt = (POLICIES / "prompts" / "grounded_answer.j2").read_text(encoding="utf-8")
    return Prompter(Tokenizer.load(base), SYSTEM, prompt)


def test_what_is_taught_are_the_words_that_the_policys_prompt_has(tiny_chat: Path, tmp_path: Path) -> None:
    prompt = (POLICIES / "prompts" / "grounded_answer.j2").read_text(encoding="utf-8")
    (tmp_path / "p.j2").write_text(prompt)
    (tmp_path / "p.yaml").write_text(
        "policy: 1\nmodels: {chat: smollm2-135m-instruct}\n"
        f'generation: {{system: "{SYSTEM}", prompt: !include p.j2}}\n'
    )
    case = Case("Who owns the mill?", (Piece(MILL, "The mill"), Piece(BRIDGE)), "", 0, "own", "")
    passages = tuple(Passage(p.text, "a", 0, len(p.text), heading=p.heading) for p in case.pieces)
    turn = Turn(case.question, passages=passages)
    assert render_prompt(turn, load_policy(tmp_path / "p.yaml")) == prompter(tiny_chat).messages(case)


def test_only_the_answer_is_learned_and_it_may_be_cut(tiny_chat: Path) -> None:
    asks = prompter(tiny_chat)
    case = Case("Who owns the mill?", (Piece(BRIDGE), Piece(MILL)), "The owner is Tom Hill.", 1, "own", "")
    whole, cut = asks.line(case), asks.line(case, 3)
    assert wanted(case) == "[2] The owner is Tom Hill."
    assert asks.tokenizer.decode(whole.ids[whole.begin : -1]) == wanted(case)
    assert whole.ids[-1] == asks.end
    assert cut.ids == whole.ids[: whole.begin + 3]
    assert asks.tokenizer.decode(asks.line(case._replace(answer="")).ids[whole.begin : -1]) == UNKNOWN


async def test_what_is_taught_becomes_likelier_and_is_gone_on_from(tiny_chat: Path, tmp_path: Path) -> None:
    lesson, told, again = Lesson(rank=4, alpha=8, rate=0.01, batch=4, first=0, tokens=200), list[str](), list[str]()
    asks = Prompter(Tokenizer.load(tiny_chat), "", "{{ passages[0].text }} {{ question }}")
    cases = [
        Case("What is it?", (Piece("It is oak."),), "It is oak.", 0, "own", ""),
        Case("What costs it?", (Piece("It is oak."),), "", -1, "own", ""),
    ]
    file = tmp_path / "adapter.safetensors"
    lines = [asks.line(case) for case in cases]
    teach(lines * 20, tiny_chat, lesson, file, told.append)
    described = {"format": 1, "base": "tiny", "file": file.name, "rank": lesson.rank, "alpha": lesson.alpha}
    (tmp_path / "adapter.json").write_text(json.dumps(described))
    with Engine.open(tiny_chat) as plain, Engine.open(tiny_chat, adapter=tmp_path) as adapted:
        for case in cases:
            (before,) = await plain.score(asks.messages(case), [wanted(case)])
            (after,) = await adapted.score(asks.messages(case), [wanted(case)])
            assert after > before + 5
    teach(lines * 10, tiny_chat, lesson, tmp_path / "again.safetensors", again.append, start=file)
    first, later = (float(words[1].rpartition(" ")[2]) for words in (told, again))  # the mean of the first five steps
    assert later < 0.75 * first
