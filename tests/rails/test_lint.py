"""Remarks about a policy: what may not be meant, with its place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from trackbed.rails.cost import Cost, worst_case
from trackbed.rails.errors import PolicyError
from trackbed.rails.lint import lint
from trackbed.rails.policy import load_policy

FULL = """policy: 1
input: [{rail: length, max_chars: 9}]
output: [{rail: length, max_chars: 9}]
tests: [{user: a, expect: {action: allow}}]
"""

Remarks = Callable[[str], list[str]]


@pytest.fixture
def remarks(tmp_path: Path) -> Remarks:
    def remarks(text: str) -> list[str]:
        file = tmp_path / "acme.yaml"
        file.write_text(text)
        return [str(remark).removeprefix(f"{tmp_path}/") for remark in lint(load_policy(file))]

    return remarks


def test_a_policy_that_judges_what_it_can_has_no_remarks(remarks: Remarks) -> None:
    assert remarks(FULL) == []


def test_a_grounding_that_needs_no_passages_may_have_none(remarks: Remarks) -> None:
    assert remarks(FULL.replace("length, max_chars: 9}]\nt", "grounding, require_passages: false}]\nt")) == []


RUDE = "{rail: regex, patterns: [rude]}"
ODD = "{rail: regex, id: odd, patterns: [rude, odd]}"
MASKS = "{rail: regex, patterns: [rude], then: mask}"
REGENERATES = ", then: regenerate"
KB = "knowledge: {index: kb}\nretrieval: [{rail: injection}]"
REDRAFTS = f"generation: {{cite: {{mode: required{REGENERATES}}}, sampling: {{temperature: 1}}}}\n{KB}"
GUARD = "{rail: llama_guard, model: guard, timeout: 3s}"


def policy(input: str = RUDE, output: str = RUDE, expect: str = "{action: allow}", rest: str = "") -> str:
    """A policy of one rail or more on each side, and what else it says."""
    guard = "models: {guard: llama-guard-3-8b}\n" if "guard" in input + output else ""
    output = output if output.startswith("{rails") else f"[{output}]"
    tests = f"tests: [{{user: hello, expect: {expect}}}]"
    return f"policy: 1\n{guard}input: [{input}]\noutput: {output}\n{tests}\n{rest}"


def when(condition: str, vars: str = "tier: {type: string}") -> str:
    return policy(input=RUDE.replace("}", f', when: "{condition}"}}'), rest=f"vars: {{{vars}}}\n")


@pytest.mark.parametrize(
    ("text", "expected", "twin"),
    [
        (
            policy(input=f"{GUARD}, {MASKS}", rest="generation: {ahead: true}\n"),
            "nothing is drafted ahead before rail 'input/regex' has masked; put it above 'input/llama_guard'",
            policy(input=f"{MASKS}, {GUARD}", rest="generation: {ahead: true}\n"),
        ),
        (
            policy(input=f"{RUDE}, {RUDE.replace('}', ', id: again}')}"),
            "2:42: rail 'input/again' never fires: 'input/regex' before it finds the same",
            policy(input=f"{RUDE}, {ODD}"),
        ),
        (
            policy(input=f"{MASKS}, {RUDE.replace('}', ', id: again}')}"),
            "2:54: rail 'input/again' never fires",
            policy(input=f"{MASKS.replace('}', ', mode: observe, id: seen}').replace(', then: mask', '')}, {RUDE}"),
        ),
        (
            when("vars.tier == 'staff' and vars.tier == 'guest'"),
            "2:9: rail 'input/regex' never fires: no value makes its 'when' true",
            when("vars.tier == 'staff' or vars.tier == 'guest'"),
        ),
        (
            when("vars.tier == 'staf'", "tier: {type: string, pattern: '^(staff|guest)$'}"),
            "2:9: rail 'input/regex' never fires",
            when("vars.tier != 'staff'", "tier: {type: string, pattern: '^(staff|guest)$'}"),
        ),
        (
            when("vars.n > 3 and vars.n < 4", "n: {type: integer}"),
            "rail 'input/regex' never fires",
            when("vars.n > 3 and vars.n < 4", "n: {type: number}"),
        ),
        (
            when("vars.on or not vars.on", "on: {type: boolean}"),
            "the 'when' of rail 'input/regex' is always true",
            when("vars.on", "on: {type: boolean}"),
        ),
        (
            policy(output="{rails: [{rail: grounding, require_passages: false}], stream: {hold_back: 8}}"),
            "makes a stream wait for the whole answer: ",
            policy(output=f"{{rails: [{RUDE}], stream: {{hold_back: 8}}}}"),
        ),
        (
            policy(output=f"{GUARD.replace('}', ', then: regenerate}')}", rest="budget: {model_calls: 3}"),
            "4:10: rail 'output/llama_guard' cannot have a second draft made: that takes 4 model calls",
            "",
        ),
        (
            policy(rest="generation: {cite: required}"),
            "5:14: 'cite: required' lets no answer pass: the policy names no 'knowledge'",
            policy(rest=f"generation: {{cite: required}}\n{KB}"),
        ),
        (
            policy(rest="generation: {cite: none}"),
            "5:14: 'cite: none' leaves out nothing",
            policy(rest=f"generation: {{cite: none}}\n{KB}"),
        ),
        (
            policy(rest=f"{REDRAFTS}\nbudget: {{model_calls: 1}}"),
            "5:37: 'cite' cannot have a second draft made: that takes 2 model calls",
            policy(rest=f"{REDRAFTS}\nbudget: {{model_calls: 2}}"),
        ),
        (
            policy(rest=REDRAFTS.replace("temperature: 1", "temperature: 0")),
            "5:14: the second draft of 'cite' is mostly the first again",
            policy(rest=REDRAFTS),
        ),
        (
            policy(output=f"{{rails: [{RUDE}], stream: {{hold_back: 8}}}}", rest=REDRAFTS),
            "5:14: 'cite' makes a stream wait: a draft that may be made again cannot be shown",
            policy(output=f"{{rails: [{RUDE}], stream: {{hold_back: 8}}}}", rest=REDRAFTS.replace(REGENERATES, "")),
        ),
        (
            policy(input=GUARD, rest="budget: {model_calls: 2}"),
            "6:10: a turn may have to ask models 3 times, and 'model_calls' lets it ask 2",
            policy(input=GUARD, rest="budget: {model_calls: 3}"),
        ),
        (
            policy(input=GUARD, output=GUARD, rest="budget: {wall: 5s}"),
            "6:10: the rails of a turn may take 6 s, and 'wall' gives the turn 5 s",
            policy(input=GUARD, output=GUARD, rest="budget: {wall: 6s}"),
        ),
        (
            policy(rest="vars: {tier: {type: string}}"),
            "5:8: variable 'tier' is never read",
            policy(rest="vars: {tier: {type: string}}\nrefuse: {default: 'not for {{ vars.tier }}'}"),
        ),
        (
            policy(output=MASKS.replace("mask", "block, mode: observe"), rest="refuse: {output/regex: no}"),
            "5:10: nothing leads to the words of refusal 'output/regex'",
            policy(rest="refuse: {output/regex: no}"),
        ),
        (
            policy(rest="refuse: {regex: no, input/regex: never, output/regex: never}"),
            "5:10: nothing leads to the words of refusal 'regex'",
            policy(rest="refuse: {regex: no, input/regex: never}"),
        ),
        (
            policy(expect="{leaked: [secret]}"),
            "4:32: nothing in this test says 'secret', so it cannot leak",
            policy(expect="{leaked: [hello]}"),
        ),
        (
            policy(expect="{model_calls: 1}"),
            "4:32: this turn asks models 1 times at most, so 'model_calls: 1' expects nothing",
            policy(expect="{model_calls: 0}"),
        ),
        (
            policy(rest="models: {big: llama-guard-3-8b}").replace("user: hello", "user: hello, model: {big: safe}"),
            "model 'big' is never asked, so what it is to answer shows nothing",
            policy().replace("user: hello", "user: hello, model: {chat: hi}"),
        ),
    ],
)  # fmt: skip
def test_what_is_remarked_is_not_remarked_of_a_policy_without_it(
    remarks: Remarks, text: str, expected: str, twin: str
) -> None:
    assert [remark for remark in remarks(text) if expected in remark] != []
    assert not twin or remarks(twin) == []


@pytest.mark.parametrize("calls", [4, 3])
def test_a_second_draft_needs_as_many_calls_as_a_turn_with_two_takes_at_least(remarks: Remarks, calls: int) -> None:
    text = policy(output=GUARD.replace("}", ", then: regenerate}"), rest=f"budget: {{model_calls: {calls}}}")
    assert any("cannot have a second draft made" in remark for remark in remarks(text)) == (calls < 4)


@pytest.mark.parametrize(
    ("text", "calls", "per_message", "streamed", "seconds"),
    [
        (policy(), 1, 0, 0, 0.0),
        (policy(input=GUARD), 3, 2, 0, 3.0),
        (policy(input=f"{GUARD}, {GUARD.replace('}', ', id: b, threshold: 0.9}')}"), 5, 4, 0, 3.0),
        (policy(input=f"{GUARD}, {MASKS}, {GUARD.replace('}', ', id: b, threshold: 0.9}')}"), 5, 4, 0, 6.0),
        (policy(output=GUARD.replace("}", ", then: regenerate}")), 6, 0, 0, 6.0),
        (policy(output=GUARD, rest=REDRAFTS), 6, 0, 0, 6.0),
        (policy(output=f"{{rails: [{GUARD}], stream: {{hold_back: 64}}}}"), 3, 0, 8, 3.0),
    ],
)
def test_the_worst_case_of_a_turn_is_counted(
    tmp_path: Path, text: str, calls: int, per_message: int, streamed: int, seconds: float
) -> None:
    (tmp_path / "p.yaml").write_text(text)
    assert worst_case(load_policy(tmp_path / "p.yaml")) == Cost(calls, per_message, streamed, seconds)


@pytest.mark.parametrize(
    "text", ["generation: {prompt: '{{ vars.tier }}'}", "input: [{rail: regex, patterns: ['(?=a)']}]"]
)
def test_what_cannot_work_is_no_remark_but_an_error(remarks: Remarks, text: str) -> None:
    with pytest.raises(PolicyError):
        remarks(f"policy: 1\n{text}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FULL.replace("tests", "x-tests").partition("x-tests")[0], "acme.yaml:1:1: no tests"),
        (FULL.replace("output", "retrieval"), "acme.yaml:1:1: nothing judges output"),
        (
            FULL.replace("output", "retrieval"),
            "acme.yaml:3:1: rails on retrieval never run: the policy names no 'knowledge'",
        ),
        (FULL + "knowledge: {index: kb}", "acme.yaml:1:1: nothing judges retrieval"),
        (
            FULL.replace("length, max_chars: 9}]\nt", "grounding}]\nt"),
            "acme.yaml:3:10: rail 'output/grounding' supports no",
        ),
        (FULL + "models: {guard: llama-guard-3-1b}", "acme.yaml:5:10: model 'guard' is named and never asked"),
        (FULL.replace("9}", "9, mode: observe}", 1), "acme.yaml:2:1: nothing is enforced on input"),
        (
            FULL.replace("9}", "9, on_error: allow}", 1),
            "acme.yaml:2:9: rail 'input/length' lets through what it cannot judge",
        ),
    ],
)
def test_what_may_not_be_meant_is_remarked(remarks: Remarks, text: str, expected: str) -> None:
    assert any(remark.startswith(expected) for remark in remarks(text))
