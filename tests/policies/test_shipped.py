"""The policies that ship keep what they promise; their own tests say what that is."""

import pytest

from trackbed.rails.extends import shipped
from trackbed.rails.lint import lint
from trackbed.rails.mutate import survey
from trackbed.rails.policy import load_policy
from trackbed.rails.testing import run_tests


@pytest.mark.parametrize("name", shipped())
async def test_a_shipped_policy_passes_its_own_tests(name: str) -> None:
    report = await run_tests(load_policy(name))
    assert [(str(o.test.place), o.differences) for o in report.outcomes if not o.passed] == []


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_policy_leaves_nothing_to_remark(name: str) -> None:
    assert lint(load_policy(name)) == []


@pytest.mark.parametrize("name", shipped())
async def test_the_tests_of_a_shipped_policy_exercise_every_rail_and_refusal(name: str) -> None:
    report = await run_tests(load_policy(name))
    assert [row for row in report.coverage if row.missed and row.part != "hazards"] == []


@pytest.mark.parametrize("name", shipped())
async def test_the_tests_of_a_shipped_policy_notice_every_rail_that_is_made_wrong(name: str) -> None:
    found = await survey(load_policy(name))
    assert [(m.rail, m.change) for m in (*found.survived, *found.untried)] == []
