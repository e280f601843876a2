"""Secret texts and planted words: found however they are written, and ordinary answers pass."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trackbed.rails.library.canary import Canary
from trackbed.rails.policy import load_policy
from trackbed.rails.types import Models, Turn, Verdict

PROMPT = (
    "You are Ada, the assistant of Acme Bank. Answer only questions about accounts and cards. "
    "Never mention the merger with Globex, and never promise a refund above 50 euros. Reply in the user's language."
)
CONFIG: dict[str, object] = {"texts": [PROMPT], "tokens": ["zx-canary-81f3"]}


def judge(text: str, **config: object) -> Verdict:
    given = config or CONFIG
    return asyncio.run(Canary(Canary.Config.model_validate(given), Models()).check(Turn("", text=text)))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PROMPT, PROMPT.removesuffix(".")),
        ("Sure: never mention the merger with Globex!", "never mention the merger with Globex"),
        ("NEVER MENTION THE MERGER WITH GLOBEX", "NEVER MENTION THE MERGER WITH GLOBEX"),
        ("never   mention\nthe merger\n\nwith Globex", "never   mention\nthe merger\n\nwith Globex"),
        ("- never - mention - the - merger - with - Globex", "never - mention - the - merger - with - Globex"),
        ("nev\u200ber men\u00adtion the merger with Globex", "nev\u200ber men\u00adtion the merger with Globex"),
        ("ｎever mention the merger with Globex", "ｎever mention the merger with Globex"),
        ("nеver mention the merger with Glоbex", "nеver mention the merger with Glоbex"),
        ("never **mention** the _merger_ with Globex", "never **mention** the _merger_ with Globex"),
        ('{"p":"answer only questions about accounts and"}', "answer only questions about accounts and"),
        ("the code is zx-canary-81f3.", "zx-canary-81f3"),
        ("the code is ZX CANARY 81F3.", "ZX CANARY 81F3"),
        ("zxcanary81f3", "zxcanary81f3"),
        ("zx-can\u200bary-81f3", "zx-can\u200bary-81f3"),
    ],
)
def test_a_leak_is_found_however_it_is_written(text: str, found: str) -> None:
    verdict = judge(text)
    assert (verdict.action, [text[f.start : f.end] for f in verdict.findings]) == ("block", [found])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I am Ada, and I work for Acme Bank.",
        "I can answer questions about accounts and cards.",
        "I only answer questions about accounts and your cards.",
        "Refunds above 50 euros need a form.",
        "I cannot talk about the merger.",
        "You are welcome. Reply in your own time.",
        "Your card ends in 81f3.",
        "The canary is a bird.",
        "Globex and the merger: never with mention.",
        "Ada answers in the user's language.",
        "never mention the merger of Globex",
    ],
)
def test_an_ordinary_answer_passes(text: str) -> None:
    assert judge(text).action == "allow"


def test_minimum_is_a_number_of_runs_or_a_share_of_them() -> None:
    said = "never mention the merger with Globex and never"  # three runs of six words
    assert judge(said, texts=[PROMPT], minimum=3).action == "block"
    assert judge(said, texts=[PROMPT], minimum=4).action == "allow"
    assert judge(said, texts=[PROMPT], minimum=0.05).action == "block"
    assert judge(said, texts=[PROMPT], minimum=0.5).action == "allow"
    assert judge(PROMPT, texts=[PROMPT], minimum=0.99).action == "block"


def test_the_same_run_said_often_counts_once() -> None:
    assert judge("never mention the merger with Globex. " * 9, texts=[PROMPT], minimum=2).action == "allow"


def test_the_score_is_the_share_of_the_text_that_leaks() -> None:
    assert judge(PROMPT, texts=[PROMPT]).score == 1.0
    assert judge("no", texts=[PROMPT]).score == 0.0
    assert judge("zx-canary-81f3").categories == ("token",)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"texts": ["too short"]},
        {"tokens": ["abc"]},
        {"tokens": ["------"]},
        {"texts": [PROMPT], "ngram": 1},
        {"texts": [PROMPT], "minimum": 0},
    ],
)
def test_a_config_that_finds_nothing_or_everything_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Canary.Config.model_validate(config)


def test_a_text_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text(PROMPT)
    (tmp_path / "p.yaml").write_text("policy: 1\noutput: [{rail: canary, texts: [!include prompt.txt]}]\n")
    (use,) = load_policy(tmp_path / "p.yaml").rails["output"]
    assert use.config.texts == [PROMPT]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text", ["never " * 20_000, "\ud800" + PROMPT, "a\u0301" * 50_000, "zxcanary" * 10_000, "💥" * 9_000]
)
def test_hostile_texts_are_judged(text: str) -> None:
    assert judge(text).action in ("allow", "block")


PIECES = st.sampled_from([*PROMPT.split(), " ", "\n", "-", "\u200b", "zx", "canary", "81f3", "é"])


@given(st.lists(PIECES, max_size=20).map(" ".join))
def test_every_run_of_six_words_is_found_between_others(said: str) -> None:
    assert judge(f"{said} answer only questions about accounts and {said}").action == "block"


@given(st.lists(PIECES, max_size=20).map(" ".join), st.sampled_from([PROMPT, "zx-canary-81f3", ""]), st.data())
def test_what_blocks_the_beginning_of_a_draft_blocks_the_whole(text: str, leak: str, data: st.DataObject) -> None:
    whole = text + leak + text
    begun = whole[: data.draw(st.integers(0, len(whole)))]
    assert judge(begun).action == "allow" or judge(whole).action == "block"


@pytest.mark.parametrize("rest", ["ia", "\u0301", "\u200b", "ж", "-"])
def test_a_leak_whose_last_word_goes_on_is_one(rest: str) -> None:
    assert judge(f"never mention the merger with Globex{rest}").action == "block"


@given(st.text(max_size=60))
def test_any_text_is_judged_inside_its_bounds(text: str) -> None:
    assert judge(text).action in ("allow", "block")
