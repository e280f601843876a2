"""The `tests:` of a policy, run with its real rails and scripted models.

This file knows a policy, a pipeline and what a test may expect. It knows nothing of how a report is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, NamedTuple

from trackbed.rails.coverage import Row, covered
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import Policy, PolicyTest, RailUse
from trackbed.rails.scripted import FAILING, FAILS_AFTER, Found, Scripted, Words
from trackbed.rails.types import Models, Reply, Turn
from trackbed.retrieval.types import Passage

INNOCUOUS = "I don't know."  # the chat model's answer where a test does not say: it claims nothing
SAFE = "safe"  # any other model's


class Difference(NamedTuple):
    """Something that a test expected and did not find."""

    key: str  # of `expect`, or `error` where the turn could not be run
    expected: Any  # Any: a JSON value
    found: Any


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


async def run_test(policy: Policy, test: PolicyTest) -> Outcome:
    """Run one test of the policy."""
    started, reply = perf_counter(), None
    try:
        models = _models(policy, test)
        reply = await _pipeline(policy, test, models).respond(_turn(test))
    except Exception as error:  # noqa: BLE001 - whatever a turn raises is what this test found
        differences = [Difference("error", None, f"{type(error).__name__}: {error}")]
    else:
        differences = _differences(policy, test, reply, models)
    return Outcome(test, tuple(differences), 1000 * (perf_counter() - started), reply)


def _models(policy: Policy, test: PolicyTest) -> dict[str, Scripted]:
    """The policy's models, which say what the test has them say."""
    chat, passages = policy.generation.model, _passages(test)
    return {
        name: Scripted(answers, INNOCUOUS, passages) if name == chat else Scripted(answers, SAFE)
        for name in policy.models
        for answers in [test.model.get(name, ())]
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


def _differences(policy: Policy, test: PolicyTest, reply: Reply, models: dict[str, Scripted]) -> list[Difference]:
    """What the test expects and the reply does not bear out, in the order of the language."""
    expect, verdict = test.expect, reply.verdict
    # Several rails may rewrite one turn; the verdict names the first of them.
    enforced = [
        span
        for span in reply.trace.spans
        if span.verdict and span.enforced and span.verdict.action == verdict.action != "allow"
    ]
    rails = list(dict.fromkeys(f"{span.stage}/{span.name}" for span in enforced))
    stages = list(dict.fromkeys(span.stage for span in enforced))
    # Of a turn that is not blocked, the last two messages are the question as the rails left it, and the reply.
    texts = [reply.text] if verdict.action == "block" else [reply.text, reply.messages[-2].content]
    leaked = _leaked(test, reply, models[policy.generation.model].shown)
    citations, calls = len(reply.citations), sum(model.calls for model in models.values())
    checks: tuple[tuple[str, Any, Any, bool], ...] = (
        ("action", expect.action, verdict.action, expect.action == verdict.action),
        ("by", expect.by, ", ".join(rails), expect.by in rails),
        ("stage", expect.stage, ", ".join(stages), expect.stage in stages),
        ("reason", expect.reason, verdict.reason, expect.reason == verdict.reason),
        ("text", expect.text, texts, expect.text in texts),
        ("leaked", [], leaked, not leaked),
        ("citations", expect.citations, citations, expect.citations == citations),
        ("model_calls", expect.model_calls, calls, calls <= (expect.model_calls or 0)),
    )
    return [
        Difference(key, expected, found)
        for key, expected, found, as_expected in checks
        if expected is not None and not as_expected
    ]


def _leaked(test: PolicyTest, reply: Reply, shown: Sequence[str]) -> list[str]:
    """What leaked, and where it stood.

    All that leaves is looked at: the reply and the verdict's words. Where rails
    rewrote what the user said, so is what the model that answers was shown of it.
    """
    places = [
        ("the reply", reply.text),
        ("the verdict's words", reply.verdict.detail),
    ]
    masked = any(
        span.stage == "input" and span.enforced and span.verdict and span.verdict.action == "rewrite"
        for span in reply.trace.spans
    )
    said = "\n".join(message.content for message in test.messages)
    return [
        f"{text!r} in {place}"
        for text in test.expect.leaked
        for place, words in [
            *places,
            *(("what the model was shown", prompt) for prompt in shown if masked and text in said),
        ]
        if text in words
    ]
