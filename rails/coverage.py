"""What the tests of a policy left untried: rails that never objected, hazards that no model named, words never said,
and steps never taken.

This file reads replies and their traces. It runs nothing, and judges no test.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from trackbed.rails.library.llama_guard import LlamaGuard
from trackbed.rails.policy import REFUSAL, Policy
from trackbed.rails.types import Reply


class Row(NamedTuple):
    """One kind of thing that a policy has, and those of it that no test exercised."""

    part: str  # rails, hazards, refusals, steps
    of: int  # how many there are
    missed: tuple[str, ...]


def covered(policy: Policy, replies: Sequence[Reply]) -> tuple[Row, ...]:
    """A row for each kind of thing that the policy has."""
    rails = [use.name for uses in policy.rails.values() for use in uses]
    rows = (
        _row("rails", rails, _objected(replies)),
        _row("hazards", _hazards(policy), _named(policy, replies)),
        _row("refusals", _refusals(policy), _refused(policy, replies)),
        _row("steps", _steps(policy), _taken(replies)),
    )
    return tuple(row for row in rows if row.of)


def _row(part: str, known: Sequence[str], exercised: set[str]) -> Row:
    return Row(part, len(known), tuple(name for name in known if name not in exercised))


def _objected(replies: Iterable[Reply]) -> set[str]:
    """The rails that objected to something; one that failed has judged nothing."""
    return {
        f"{span.stage}/{span.name}"
        for reply in replies
        for span in reply.trace.spans
        if span.verdict and span.verdict.action != "allow" and not span.error
    }


def _hazards(policy: Policy) -> list[str]:
    """The hazards that some guard of the policy blocks, by their codes."""
    configs = [use.config for uses in policy.rails.values() for use in uses]
    guards = [config for config in configs if isinstance(config, LlamaGuard.Config)]
    return list(dict.fromkeys(code for c in guards for code in c.refused))


def _named(policy: Policy, replies: Iterable[Reply]) -> set[str]:
    """The hazards that guards answered with."""
    guards = {use.name for uses in policy.rails.values() for use in uses if isinstance(use.config, LlamaGuard.Config)}
    return {
        code
        for reply in replies
        for span in reply.trace.spans
        if span.verdict and f"{span.stage}/{span.name}" in guards
        for code in span.verdict.categories
    }


def _refusals(policy: Policy) -> list[str]:
    """The words of refusal that the policy writes."""
    return [key for key, template in policy.refuse.items() if key != "default" or template.source != REFUSAL]


def _refused(policy: Policy, replies: Iterable[Reply]) -> set[str]:
    """The words of refusal that were said."""
    verdicts = [reply.verdict for reply in replies if reply.verdict.action == "block"]
    return {policy.refusal_key(v) for v in verdicts if v.stage != "dialog" or v.reason != "policy"}


def _steps(policy: Policy) -> list[str]:
    """The steps of the policy's flows."""
    flows = policy.dialog.flows.values() if policy.dialog else ()
    return [step.path for flow in flows for step in flow.steps if step.path]


def _taken(replies: Iterable[Reply]) -> set[str]:
    """The steps that were run."""
    spans = [span for reply in replies for span in reply.trace.spans if span.stage == "dialog"]
    return {path for span in spans for path in span.notes["steps"]}
