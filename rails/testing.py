"""The `tests:` of a policy, run with its real rails and scripted models.

This file knows a policy, a pipeline and what a test may expect. It knows nothing of how a report is shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from trackbed.rails.compare import Difference, differences, stream_differences, watch
from trackbed.rails.coverage import Row, covered
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import Policy, PolicyTest, RailUse
from trackbed.rails.scripted import FAILING, FAILS_AFTER, Found, Scripted, Words
from trackbed.rails.types import Models, Reply, Turn
from trackbed.retrieval.types import Passage

INNOCUOUS = "I don't know."  # the chat model's answer where a test does not say: it claims nothing
SAFE = "safe"  # any other model's


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one test."""

    test: PolicyTest
    differences: tuple[Difference, ...]
    milliseconds: float
    reply: Reply | None = None  # None: the turn could not be run

    @property
    def passed(self) -> bool:
        """Whether all was as expected."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all tests of a policy."""

    policy: str
    outcomes: tuple[Outcome, ...]
    coverage: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return all(outcome.passed for outcome in self.outcomes)

    @property
    def unexercised(self) -> tuple[str, ...]:
        """The rails, as stage/id, that objected in no test."""
        return next((row.missed for row in self.coverage if row.part == "rails"), ())

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "policy": self.policy,
            "passed": sum(outcome.passed for outcome in self.outcomes),
            "failed": sum(not outcome.passed for outcome in self.outcomes),
            "tests": [
                {
                    "place": str(outcome.test.place),
                    "user": outcome.test.messages[-1].content,
                    "passed": outcome.passed,
                    "ms": round(outcome.milliseconds, 3),
                    "differences": [difference._asdict() for difference in outcome.differences],
                }
                for outcome in self.outcomes
            ],
            "coverage": {row.part: {"of": row.of, "missed": list(row.missed)} for row in self.coverage},
            "unexercised": list(self.unexercised),
        }


async def run_tests(policy: Policy) -> Report:
    """Run the policy's tests, one after the other."""
    outcomes = [await run_test(policy, test) for test in policy.tests]
    replies = [outcome.reply for outcome in outcomes if outcome.reply]
    return Report(policy.name, tuple(outcomes), covered(policy, replies))


async def run_test(policy: Policy, test: PolicyTest, *, streamed: bool = True) -> Outcome:
    """Run one test of the policy; and once more as a stream, which must come to the same."""
    started, reply = perf_counter(), None
    models = _models(policy, test)
    try:
        reply = await _pipeline(policy, test, models).respond(_turn(test))
        found = differences(test, reply, models, policy.generation.model)
        if streamed:
            again = _models(policy, test, models)
            shown = await watch(_pipeline(policy, test, again).stream(_turn(test)))
            found += stream_differences(test, reply, shown)
    except Exception as error:  # noqa: BLE001 - whatever a turn raises is what this test found
        found = [Difference("error", None, f"{type(error).__name__}: {error}")]
    return Outcome(test, tuple(found), 1000 * (perf_counter() - started), reply)


def _models(policy: Policy, test: PolicyTest, before: Mapping[str, Scripted] | None = None) -> dict[str, Scripted]:
    """The policy's models, which say what the test has them say, or what they have said before."""
    chat, passages, said = policy.generation.model, _passages(test), before or {}
    return {
        name: Scripted(
            test.model.get(name, ()),
            INNOCUOUS if name == chat else SAFE,
            passages if name == chat else (),
            said.get(name),
        )
        for name in policy.models
    }


def _pipeline(policy: Policy, test: PolicyTest, models: dict[str, Scripted]) -> Pipeline:
    """The policy at work over these models, with the rails that the test has fail."""
    rails = {stage: tuple(_failing(use, test) for use in uses) for stage, uses in policy.rails.items()}
    retriever = None if test.passages is None else Found(_passages(test))
    return Pipeline(replace(policy, rails=rails), Models(models, Words()), retriever)


def _turn(test: PolicyTest) -> Turn:
    *history, asked = test.messages
    return Turn(asked.content, tuple(history), vars=test.vars)


def _passages(test: PolicyTest) -> tuple[Passage, ...]:
    return tuple(Passage(text, "test", 0, len(text), score=1.0) for text in test.passages or ())


def _failing(use: RailUse, test: PolicyTest) -> RailUse:
    """The rail, made to fail where the test says so, with all else that the policy says of it."""
    if (failure := test.fail.get(use.name)) is None:
        return use
    return replace(use, rail_class=FAILING[failure], timeout=FAILS_AFTER if failure == "timeout" else use.timeout)
