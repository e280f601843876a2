"""Competitors: named in any spelling they are found, and what only looks alike is not."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trackbed.rails.errors import PolicyError
from trackbed.rails.library.competitors import Competitors
from trackbed.rails.policy import load_policy
from trackbed.rails.stage import mask
from trackbed.rails.types import Models, Turn, Verdict

NAMES = {"Initech": ["TPS Pro", "initech-cloud"], "Globex Corporation": ["Globex"], "Café Noir": [], "H-Mart": []}


def judge(text: str, names: object = NAMES) -> Verdict:
    config = Competitors.Config.model_validate({"names": names})
    return asyncio.run(Competitors(config, Models()).check(Turn("", text=text)))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Is Initech cheaper than you?", ["Initech"]),
        ("INITECH vs. globex", ["INITECH", "globex"]),
        ("Initech's prices", ["Initech"]),
        ("the Globex Corporation", ["Globex Corporation"]),
        ("globex\ncorporation is large", ["globex\ncorporation"]),
        ("try TPS Pro", ["TPS Pro"]),
        ("tps-pro or initech cloud?", ["tps-pro", "initech cloud"]),
        ("Ini\u200btech", ["Ini\u200btech"]),
        ("Ｉｎｉｔｅｃｈ", ["Ｉｎｉｔｅｃｈ"]),
        ("see www.initech.com for more", ["initech"]),
        ("a Cafe\u0301 Noir near me", ["Cafe\u0301 Noir"]),
        ("(Initech)", ["Initech"]),
        ("#initech", ["initech"]),
        ("h-mart", ["h-mart"]),
    ],
)
def test_a_competitor_is_found_however_it_is_written(text: str, found: list[str]) -> None:
    verdict = judge(text)
    assert (verdict.action, [text[f.start : f.end] for f in verdict.findings]) == ("block", found)
    assert verdict.categories == ("COMPETITOR",)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "What does it cost?", "initechnology is our word for it", "reinitech", "globexian", "an H mark"),
        *(
            "café du noir",
            "the corporation",
            "tps reports, professionally",
            "pro",
            "Marta",
            "a cloud",
            "initech_2",
            "h",
        ),
    ],
)
def test_what_only_looks_alike_passes(text: str) -> None:
    assert judge(text).action == "allow"


def test_a_list_of_names_has_no_other_names() -> None:
    assert judge("ask Initech", ["Initech", "Globex"]).action == "block"
    assert judge("ask TPS Pro", ["Initech", "Globex"]).action == "allow"


def test_a_mask_hides_the_name_alone_and_the_refusal_does_not_repeat_it() -> None:
    turn = Turn("", text="Buy it from Initech or from us.")
    verdict = judge(turn.text)
    assert mask(turn, verdict) == "Buy it from <COMPETITOR> or from us."
    assert "initech" not in verdict.detail.lower()


@pytest.mark.parametrize("names", [[], {}, ["a*"], {"Initech": ["!"]}, {"": []}, [3], "Initech", {"Initech": "TPS"}])
def test_what_are_no_names_is_refused(names: object) -> None:
    with pytest.raises(ValidationError):
        Competitors.Config.model_validate({"names": names})


def test_a_mistake_in_a_policy_has_its_place(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("policy: 1\noutput:\n  - rail: competitors\n    names: {Initech: [C++]}\n")
    with pytest.raises(PolicyError, match=r"p\.yaml:4:\d+: .*'C\+\+' is no word or phrase"):
        load_policy(file)


PIECES = st.sampled_from(["Initech", "globex", "corporation", "tps", "pro", " ", "-", ". ", "x", "'s", "é", "\u200b"])


@given(st.lists(PIECES, max_size=16).map("".join), st.data())
def test_what_is_held_can_still_become_a_name_and_nothing_before_it(text: str, data: st.DataObject) -> None:
    rail = Competitors(Competitors.Config.model_validate({"names": NAMES}), Models())
    begun = text[: data.draw(st.integers(0, len(text)))]
    held = rail.held(Turn("", text=begun))
    assert [f for f in judge(begun).findings if f.start < held] == [f for f in judge(text).findings if f.start < held]
    assert 0 <= held <= len(begun)
