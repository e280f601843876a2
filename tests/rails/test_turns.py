"""Tests of a policy that take several turns, with flows that wait between them and actions that nobody really calls."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trackbed.rails.errors import PolicyError
from trackbed.rails.lint import lint
from trackbed.rails.policy import Policy, load_policy
from trackbed.rails.testing import Report, run_tests

Load = Callable[[str], Policy]
POLICY = f"""policy: 1
vars: {{order_id: {{type: string, pattern: '\\d{{6}}'}}, tier: {{type: string, default: guest}}}}
input: [{{rail: regex, patterns: [rude]}}]
dialog:
  intents:
    refund: {{examples: [I want my money back]}}
    tier: {{examples: [which tier have I]}}
  flows:
    - intent: refund
      do:
        - ask: {{var: order_id, say: Which order?}}
        - call: {{action: '{__name__}:status', args: {{id: '{{{{ vars.order_id }}}}'}}, save: status}}
        - if: vars.status == 'open'
          then: [{{say: Done.}}]
          else: [{{refuse: Too late.}}]
    - {{intent: tier, do: [{{say: 'You are {{{{ vars.tier }}}}.'}}]}}
tests:
"""


def status(id: str) -> str:
    raise AssertionError("a test calls no action")


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(tests: str) -> Policy:
        file = tmp_path / "acme.yaml"
        file.write_text(POLICY + tests)
        return load_policy(file)

    return load


async def run(load: Load, *tests: str) -> Report:
    return await run_tests(load("".join(f"  - {test.replace('ACT', __name__)}\n" for test in tests)))


@pytest.mark.parametrize(
    "test",
    [
        "{turns: [I want my money back, '123456'], actions: {'ACT:status': open}, expect: {model_calls: 0}}",
        "{turns: [I want my money back, '123456'], actions: {'ACT:status': no}, expect: {stage: dialog}}",
        "{turns: [I want my money back, '123456'], actions: {'ACT:status': shut}, expect: {text: Too late.}}",
        "{turns: [I want my money back, '123456'], fail: {dialog/refund: timeout}, expect: {reason: timeout}}",
        "{turns: [I want my money back, '123456'], fail: {dialog/refund: error}, expect: {reason: error}}",
        "{turns: [I want my money back, '123456'], fail: {dialog/refund: nonsense}, expect: {reason: error}}",
        "{turns: [{user: rude, expect: {by: input/regex}}, I want my money back], expect: {text: 'Which order?'}}",
        "{turns: [which tier have I, which tier have I], vars: {tier: staff}, expect: {text: You are staff.}}",
        "{turns: [hello, hello again], model: {chat: [Hi., Hi again.]}, expect: {text: Hi again., model_calls: 2}}",
    ],
)
async def test_a_test_of_several_turns_carries_the_conversation(load: Load, test: str) -> None:
    (outcome,) = (await run(load, test)).outcomes
    assert outcome.differences == ()


@pytest.mark.parametrize(
    ("test", "key", "found"),
    [
        ("{turns: [{user: hello, expect: {by: input/regex}}, rude], expect: {by: input/regex}}", "by of turn 1", ""),
        ("{turns: [I want my money back, '123456'], expect: {reason: error}}", "actions", "no result"),
        ("{turns: [I want my money back, '1'], expect: {text: Done.}}", "text", ["Which order?", "1"]),
    ],
)
async def test_a_turn_that_is_wrong_is_told_by_its_number(load: Load, test: str, key: str, found: Any) -> None:
    ((difference,),) = [outcome.differences for outcome in (await run(load, test)).outcomes]
    assert (difference.key, difference.found) == (key, found)


async def test_a_report_names_the_steps_that_no_test_took(load: Load) -> None:
    report = await run(
        load, "{turns: [I want my money back, '123456'], actions: {'ACT:status': open}, expect: {text: Done.}}"
    )
    (row,) = [row for row in report.coverage if row.part == "steps"]
    assert (row.of, row.missed) == (6, ("refund.do[2].else[0]", "tier.do[0]"))


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("{turns: [hello], expect: {action: allow}}", "'tests[0].turns' is"),
        ("{turns: [hello, 3], expect: {action: allow}}", "'tests[0].turns[1]' is 3"),
        ("{turns: [a, {usr: b}], expect: {action: allow}}", "'usr' is not a key of a turn; did you mean 'user'?"),
        ("{turns: [a, {user: b, expect: {action: allow}}], expect: {action: allow}}", "of the last turn stands under"),
        ("{turns: [{user: b, expect: {by: input/x}}, a], expect: {action: allow}}", "'input/x' is not a rail"),
        (
            "{user: a, turns: [a, b], expect: {action: allow}}",
            "a test has either 'user', 'messages', 'turns', 'call' or 'result'",
        ),
        ("{user: a, expect: {by: dialog/refnud}}", "did you mean 'dialog/refund'?"),
        ("{user: a, actions: {'a:b': 1}, expect: {action: allow}}", "'a:b' is not an action of the dialog"),
        ("{user: a, fail: {dialog/refnud: error}, expect: {action: block}}", "did you mean 'dialog/refund'?"),
    ],
)
def test_a_mistake_in_a_test_of_several_turns_is_told(load: Load, test: str, expected: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(f"  - {test}\n")
    assert expected in str(caught.value)


def test_flows_that_nothing_begins_and_examples_of_two_intents_are_remarked(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "acme.yaml"
    file.write_text(
        "policy: 1\ndialog:\n  intents: {a: {examples: [hi]}, b: {examples: [Hi!]}}\n"
        "  flows: [{intent: a, do: [stop]}, {id: c, do: [stop]}]\n"
    )
    told = [remark.message for remark in lint(load_policy(file)) if "judges" not in remark.message]
    assert told[1:] == [
        "example 'Hi!' of intent 'b' is also an example of 'a'; leave one out",
        "flow 'c' is never begun: it has no intent, and no 'goto' comes to it; leave it out",
    ]


def test_drafting_ahead_beside_a_dialog_is_remarked(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "acme.yaml"
    file.write_text("policy: 1\ngeneration: {ahead: true}\ndialog: {flows: [{id: a, do: [stop]}]}\n")
    assert any(str(remark).startswith(f"{file}:2:14: 'ahead' drafts nothing") for remark in lint(load_policy(file)))
