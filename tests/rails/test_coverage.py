"""What the tests of a policy leave untried."""

from pathlib import Path

from trackbed.rails.coverage import Row
from trackbed.rails.policy import load_policy
from trackbed.rails.testing import run_tests

POLICY = """policy: 1
models: {guard: llama-guard-3-1b}
input:
  - {rail: regex, patterns: [rude]}
  - {rail: length, max_chars: 99, mode: observe}
  - {rail: llama_guard, model: guard, taxonomy: llama-guard-3-1b, block: [S1, S2, S10]}
output:
  - {rail: regex, id: leak, patterns: [secret], then: mask}
refuse: {default: no, regex: rude, input/llama_guard: unsafe, timeout: late}
tests:
"""


async def rows(tmp_path: Path, *tests: str) -> tuple[Row, ...]:
    file = tmp_path / "acme.yaml"
    file.write_text(POLICY + "".join(f"  - {test}\n" for test in tests))
    return (await run_tests(load_policy(file))).coverage


async def test_what_no_test_tries_is_named(tmp_path: Path) -> None:
    rails, hazards, refusals = await rows(tmp_path, "{user: hello, expect: {action: allow}}")
    assert rails == Row("rails", 4, ("input/regex", "input/length", "input/llama_guard", "output/leak"))
    assert hazards == Row("hazards", 3, ("S1", "S2", "S10"))
    assert refusals == Row("refusals", 4, ("default", "regex", "input/llama_guard", "timeout"))


async def test_what_a_test_tries_is_not_named(tmp_path: Path) -> None:
    rails, hazards, refusals = await rows(
        tmp_path,
        "{user: rude, expect: {action: block}}",
        '{user: a, model: {guard: "unsafe\\nS1,S10"}, expect: {action: block}}',
        "{user: a, fail: {output/leak: timeout}, expect: {action: block}}",
        "{user: a, fail: {output/leak: error}, expect: {action: block}}",
    )
    assert rails.missed == ("input/length", "output/leak")  # a rail that fails has judged nothing
    assert hazards.missed == ("S2",)
    assert refusals.missed == ()


async def test_a_policy_without_a_guard_has_no_hazards_to_try(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("policy: 1\ninput: [{rail: jailbreak}]")
    report = await run_tests(load_policy(tmp_path / "p.yaml"))
    assert [row.part for row in report.coverage] == ["rails"]
