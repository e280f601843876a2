"""Which changes of a policy its tests notice."""

from pathlib import Path

import pytest

from trackbed.rails.mutate import Survey, mutants, survey
from trackbed.rails.policy import Policy, load_policy

RUDE = "{rail: regex, id: rude, patterns: [rude]}"
ALLOWS = "{user: hello, expect: {action: allow}}"
BLOCKS = "{user: rude, expect: {action: block}}"


def policy(tmp_path: Path, rail: str, *tests: str, rest: str = "") -> Policy:
    file = tmp_path / "acme.yaml"
    file.write_text(f"policy: 1\n{rest}input:\n  - {rail}\ntests: [{', '.join(tests)}]\n")
    return load_policy(file)


def unnoticed(found: Survey) -> list[str]:
    return [mutant.change for mutant in found.survived]


async def test_tests_that_show_both_sides_of_a_rail_notice_every_change(tmp_path: Path) -> None:
    found = await survey(policy(tmp_path, RUDE, ALLOWS, BLOCKS))
    assert found.passed
    assert found.tried == 2


@pytest.mark.parametrize(
    ("rail", "tests", "change"),
    [
        (RUDE, [ALLOWS], "never objects"),
        (RUDE, [BLOCKS], "objects to everything"),
        (RUDE, [ALLOWS, "{user: a, fail: {input/rude: error}, expect: {action: block}}"], "never objects"),
        (
            RUDE.replace("}", ", when: vars.tier == 'guest'}"),
            [ALLOWS, "{user: rude, vars: {tier: guest}, expect: {action: block}}"],
            "judges without its 'when'",
        ),
        (
            RUDE.replace("}", ", then: mask}"),
            ["{user: hello, expect: {leaked: [EVERYTHING], action: allow}}", "{user: rude, expect: {leaked: [rude]}}"],
            "blocks instead of 'then: mask'",
        ),
        (
            "{rail: jailbreak, threshold: 0.0001}",
            [ALLOWS, "{user: I have no rules, expect: {action: allow}}"],
            "never objects",
        ),
    ],
)
async def test_a_change_that_no_test_notices_is_named(tmp_path: Path, rail: str, tests: list[str], change: str) -> None:
    found = await survey(policy(tmp_path, rail, *tests, rest="vars: {tier: {type: string, default: none}}\n"))
    assert change in unnoticed(found)
    assert found.survived[0].place.line == 4
    assert not found.passed


async def test_a_condition_is_noticed_by_a_test_that_it_spares(tmp_path: Path) -> None:
    rail = RUDE.replace("}", ", when: vars.tier == 'guest'}")
    spared = "{user: rude, vars: {tier: staff}, expect: {action: allow}}"
    blocked = "{user: rude, vars: {tier: guest}, expect: {action: block}}"
    passed = "{user: hello, vars: {tier: guest}, expect: {action: allow}}"
    rest = "vars: {tier: {type: string}}\n"
    assert (await survey(policy(tmp_path, rail, spared, blocked, passed, rest=rest))).passed


def test_a_number_is_changed_only_where_the_policy_sets_it(tmp_path: Path) -> None:
    assert not any("threshold" in m.change for m in mutants(policy(tmp_path, "{rail: jailbreak}", ALLOWS)))
    (found,) = [
        m for m in mutants(policy(tmp_path, "{rail: jailbreak, threshold: 0.7}", ALLOWS)) if "threshold" in m.change
    ]
    assert [use.config.model_dump()["threshold"] for use in found.variants] == [5e-324, 1]


def test_a_rail_that_only_observes_is_not_changed(tmp_path: Path) -> None:
    assert list(mutants(policy(tmp_path, RUDE.replace("}", ", mode: observe}"), ALLOWS))) == []


async def test_what_there_is_no_time_to_try_is_not_called_noticed(tmp_path: Path) -> None:
    found = await survey(policy(tmp_path, RUDE, ALLOWS, BLOCKS), seconds=0.0)
    assert (found.tried, len(found.untried), found.passed) == (0, 2, False)
    assert found.as_json()["untried"][0]["rail"] == "input/rude"
