"""Would a test notice? Change a policy in one place, run its tests, and name the changes that none of them notices.

A change makes a rail wrong in one way: it never objects, it always does, its condition is left out, an objection
blocks where it should rewrite, or a number that the policy sets is at its lowest and at its highest. A rail that only
observes is left out, since what it says has no effect that a test could see. This file knows what to change; what a
test is, and how it runs, is `testing.py`'s business.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, nextafter
from time import perf_counter
from typing import Any

from trackbed.rails.config import RailConfig
from trackbed.rails.errors import Place
from trackbed.rails.policy import Policy, RailUse
from trackbed.rails.scripted import Double
from trackbed.rails.testing import run_test
from trackbed.rails.types import Finding, Turn, Verdict

LIMIT = 60.0  # seconds for all changes of a policy


@dataclass(frozen=True, slots=True)
class Mutant:
    """A rail made wrong in one way; of several variants, a test has to notice one."""

    rail: str  # stage/id
    change: str  # in words, to follow the rail's name
    place: Place
    variants: tuple[RailUse, ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """What came of all mutants of a policy."""

    tried: int
    survived: tuple[Mutant, ...]  # in the order of the policy
    untried: tuple[Mutant, ...]  # time was over

    @property
    def passed(self) -> bool:
        """Whether every change was noticed."""
        return not self.survived and not self.untried

    def as_json(self) -> dict[str, Any]:
        """The survey as JSON values."""
        rows = {"survived": self.survived, "untried": self.untried}
        return {"tried": self.tried} | {
            key: [{"place": str(m.place), "rail": m.rail, "change": m.change} for m in mutants]
            for key, mutants in rows.items()
        }


async def survey(policy: Policy, seconds: float = LIMIT) -> Survey:
    """Try every mutant of a policy whose tests pass, for so long at most."""
    until = perf_counter() + seconds
    survived, untried, tried = [], [], 0
    for mutant in mutants(policy):
        try:
            noticed = await _noticed(policy, mutant, until)
        except TimeoutError:
            untried.append(mutant)
            continue
        tried += 1
        if not noticed:
            survived.append(mutant)
    return Survey(tried, tuple(survived), tuple(untried))


def mutants(policy: Policy) -> Iterator[Mutant]:
    """Every change to be tried, in the order of the policy."""
    for use in (use for uses in policy.rails.values() for use in uses if use.mode == "enforce"):
        yield _mutant(use, "never objects", replace(use, rail_class=_Never))
        yield _mutant(use, "objects to everything", replace(use, rail_class=_Always))
        if use.when is not None:
            yield _mutant(use, "judges without its 'when'", replace(use, when=None))
        if use.then != "block":
            yield _mutant(use, f"blocks instead of 'then: {use.then}'", replace(use, then="block"))
        for key, extremes in _extremes(use.config):
            variants = [replace(use, config=config) for config in extremes]
            yield _mutant(use, f"has its {key!r} at either extreme", *variants)


async def _noticed(policy: Policy, mutant: Mutant, until: float) -> bool:
    """Whether a test fails with the changed rail. Raises TimeoutError when time is over."""
    for variant in mutant.variants:
        rails = {
            stage: tuple(variant if use.name == mutant.rail else use for use in uses)
            for stage, uses in policy.rails.items()
        }
        changed = replace(policy, rails=rails)
        for test in policy.tests:
            if perf_counter() > until:
                raise TimeoutError
            if not (await run_test(changed, test, streamed=False)).passed:
                return True
    return False


def _mutant(use: RailUse, change: str, *variants: RailUse) -> Mutant:
    return Mutant(use.name, change, use.place, variants)


def _extremes(config: RailConfig) -> Iterator[tuple[str, Sequence[RailConfig]]]:
    """The numbers that the policy sets and that have bounds, each with the config at its lowest and at its highest."""
    for key, info in type(config).model_fields.items():
        if info.annotation is not float or key not in config.model_fields_set:
            continue
        low = [bound.ge for bound in info.metadata if hasattr(bound, "ge")]
        low += [nextafter(bound.gt, inf) for bound in info.metadata if hasattr(bound, "gt")]
        high = [bound.le for bound in info.metadata if hasattr(bound, "le")]
        high += [nextafter(bound.lt, -inf) for bound in info.metadata if hasattr(bound, "lt")]
        if low and high:
            yield key, [config.model_copy(update={key: bound}) for bound in (low[0], high[0])]


class _Never(Double):
    async def check(self, turn: Turn) -> Verdict:
        return Verdict.allow()


class _Always(Double):
    async def check(self, turn: Turn) -> Verdict:
        everything = (Finding("EVERYTHING", 0, len(turn.text)),) if turn.text else ()
        return Verdict.block(findings=everything)
