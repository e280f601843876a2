"""Remarks about a policy: what may not be meant, with its place."""

from collections.abc import Callable
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FULL.replace("tests", "x-tests").partition("x-tests")[0], "acme.yaml: no tests"),
        (FULL.replace("output", "retrieval"), "acme.yaml: nothing judges output"),
        (
            FULL.replace("output", "retrieval"),
            "acme.yaml:3:1: rails on retrieval never run: the policy names no 'knowledge'",
        ),
        (FULL + "knowledge: {index: kb}", "acme.yaml: nothing judges retrieval"),
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
