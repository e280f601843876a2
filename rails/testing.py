"""The `tests:` of a policy, run with its real rails and scripted models.

This file knows a policy, a pipeline and what a test may expect. It knows nothing of how a report is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from trackbed.llm.types import Message
from trackbed.rails.compare import Difference, differences, stream_differences, watch
from trackbed.rails.coverage import Row, covered
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import Policy, PolicyTest, RailUse
from trackbed.rails.scripted import FAILING, FAILS_AFTER, Actions, Found, Scripted, Words
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
    replies: tuple[Reply, ...] = ()  # of each turn, as far as turns could be run

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
    replies = [reply for outcome in outcomes for reply in outcome.replies]
    return Report(policy.name, tuple(outcomes), covered(policy, replies))


async def run_test(policy: Policy, test: PolicyTest, *, streamed: bool = True) -> Outcome:
    """Run one test of the policy, turn after turn; the last once more as a stream, which must come to the same."""
    started, replies, found = perf_counter(), list[Reply](), list[Difference]()
    models, actions, chat = _models(policy, test), Actions(test.actions, test.fail), policy.generation.model
    try:
        pipeline = _pipeline(policy, test, models, actions)
        for n, said in enumerate(test.before, start=1):
            turn = replace(test, messages=(Message("user", said.text),), expect=said.expect)
            replies.append(await pipeline.respond(_turn(turn, replies)))
            told = differences(turn, replies[-1], models, chat)
            found += [difference._replace(key=f"{difference.key} of turn {n}") for difference in told]
        asked = _turn(test, replies)
        replies.append(await pipeline.respond(asked) if test.call is None else await _checked(pipeline, test))
        found += differences(test, replies[-1], models, chat)
        if streamed and test.call is None:
            again = _models(policy, test, models)
            shown = await watch(_pipeline(policy, test, again, actions).stream(asked))
            found += stream_differences(test, replies[-1], shown)
    except Exception as error:  # noqa: BLE001 - whatever a turn raises is what this test found
        found.append(Difference("error", None, f"{type(error).__name__}: {error}"))
    found += [Difference("actions", path, "no result") for path in dict.fromkeys(actions.missing)]
    return Outcome(test, tuple(found), 1000 * (perf_counter() - started), tuple(replies))


async def _checked(pipeline: Pipeline, test: PolicyTest) -> Reply:
    """What the judgement of a call or of a result came to, as the reply of a turn that has nothing else."""
    assert test.call is not None
    turn = Turn("", vars=test.vars)
    if test.result is not None:
        check = await pipeline.check_result(test.call, test.result, turn)
    else:
        check = await pipeline.check_call(test.call, turn)
        if test.confirmed and check.to_confirm:
            check = await pipeline.check_call(test.call, replace(turn, confirmed=frozenset({check.call.digest})))
    left = check.call.text if test.result is None else check.result
    text = left if check.passes else check.refusal
    return Reply(text, (), check.trace, check.verdict, (Message("user", text), Message("assistant", text)))


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


def _pipeline(policy: Policy, test: PolicyTest, models: dict[str, Scripted], actions: Actions) -> Pipeline:
    """The policy at work over these models and actions, with the rails that the test has fail."""
    dialog = actions.into(policy.dialog) if policy.dialog else None
    rails = {stage: tuple(_failing(use, test) for use in uses) for stage, uses in policy.rails.items()}
    retriever = None if test.passages is None else Found(_passages(test))
    return Pipeline(replace(policy, rails=rails, dialog=dialog), Models(models, Words()), retriever)


def _turn(test: PolicyTest, replies: Sequence[Reply]) -> Turn:
    *history, asked = test.messages
    if replies:
        return replace(replies[-1].next(asked.content), vars=test.vars)
    return Turn(asked.content, tuple(history), vars=test.vars)


def _passages(test: PolicyTest) -> tuple[Passage, ...]:
    return tuple(Passage(text, "test", 0, len(text), score=1.0) for text in test.passages or ())


def _failing(use: RailUse, test: PolicyTest) -> RailUse:
    """The rail, made to fail where the test says so, with all else that the policy says of it."""
    if (failure := test.fail.get(use.name)) is None:
        return use
    return replace(use, rail_class=FAILING[failure], timeout=FAILS_AFTER if failure == "timeout" else use.timeout)
