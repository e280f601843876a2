"""The `tests:` of a policy, run with its real rails and scripted models.

Nothing is loaded and nothing is sought: models answer what a test says, retrieval finds what it says. This file
knows a policy, a pipeline and what a test may expect. It knows nothing of how a report is shown.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, ClassVar, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from trackbed.llm.types import Completion, Delta, Prompt, RawPrompt, SamplingParams, Usage
from trackbed.rails.errors import RailFailed
from trackbed.rails.language import Failure
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import Expectation, Policy, PolicyTest, RailUse
from trackbed.rails.types import Models, Rail, RailConfig, Reply, Stage, Then, Turn, Verdict
from trackbed.retrieval.types import Passage

INNOCUOUS = "I don't know."  # the chat model's answer where a test does not say: it claims nothing
SAFE = "safe"  # any other model's
FAILS_AFTER = 0.01  # seconds until a rail that is made to time out does
UNLIKELY = -50.0  # the log-probability of what a scripted model does not say


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

    @property
    def passed(self) -> bool:
        """Whether all was as expected."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all tests of a policy."""

    policy: str
    outcomes: tuple[Outcome, ...]
    unexercised: tuple[str, ...]  # rails, as stage/id, that objected in no test

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return all(outcome.passed for outcome in self.outcomes)

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
            "unexercised": list(self.unexercised),
        }


async def run_tests(policy: Policy) -> Report:
    """Run the policy's tests, one after the other."""
    outcomes, objected = [], set[str]()
    for test in policy.tests:
        started = perf_counter()
        try:
            reply, calls = await _respond(policy, test)
        except Exception as error:  # noqa: BLE001 - whatever a turn raises is what this test found
            differences = [Difference("error", None, f"{type(error).__name__}: {error}")]
        else:
            differences = _differences(test.expect, reply, calls)
            objected |= {name for name, action, error in _objections(reply) if not error}
        outcomes.append(Outcome(test, tuple(differences), 1000 * (perf_counter() - started)))
    names = [use.name for uses in policy.rails.values() for use in uses]
    return Report(policy.name, tuple(outcomes), tuple(name for name in names if name not in objected))


async def _respond(policy: Policy, test: PolicyTest) -> tuple[Reply, int]:
    """The reply to a test's conversation, and how often models were asked."""
    chat = policy.generation.model
    passages = tuple(Passage(text, "test", 0, len(text), score=1.0) for text in test.passages or ())
    models = {
        name: _Scripted(answers, INNOCUOUS, passages) if name == chat else _Scripted(answers, SAFE)
        for name in policy.models
        for answers in [test.model.get(name, ())]
    }
    rails = {
        stage: tuple(_failing(use, test.fail[use.name]) if use.name in test.fail else use for use in uses)
        for stage, uses in policy.rails.items()
    }
    retriever = None if test.passages is None else _Found(passages)
    pipeline = Pipeline(replace(policy, rails=rails), Models(models, _Words()), retriever)
    *history, asked = test.messages
    reply = await pipeline.respond(Turn(asked.content, tuple(history), vars=test.vars))
    return reply, sum(model.calls for model in models.values())


def _objections(reply: Reply) -> list[tuple[str, str, str]]:
    """What rails objected, as (stage/id, action, kind of error), in the order of the story."""
    return [
        (f"{span.stage}/{span.name}", span.verdict.action, span.error)
        for span in reply.trace.spans
        if span.verdict and span.verdict.action != "allow"
    ]


def _differences(expect: Expectation, reply: Reply, calls: int) -> list[Difference]:
    verdict = reply.verdict
    found = []
    if expect.action not in (None, verdict.action):
        found.append(Difference("action", expect.action, verdict.action))
    # Several rails may rewrite one turn; the verdict names the first of them.
    enforced = [
        f"{span.stage}/{span.name}"
        for span in reply.trace.spans
        if span.verdict and span.enforced and span.verdict.action == verdict.action != "allow"
    ]
    if expect.by is not None and expect.by not in enforced:
        found.append(Difference("by", expect.by, ", ".join(dict.fromkeys(enforced))))
    if expect.reason not in (None, verdict.reason):
        found.append(Difference("reason", expect.reason, verdict.reason))
    # Of a turn that is not blocked, the last two messages are the question as the rails left it, and the reply.
    texts = [reply.text] if verdict.action == "block" else [reply.text, reply.messages[-2].content]
    if expect.text is not None and expect.text not in texts:
        found.append(Difference("text", expect.text, texts))
    if leaked := [text for text in expect.leaked if text in reply.text]:
        found.append(Difference("leaked", [], leaked))
    if expect.model_calls is not None and calls > expect.model_calls:
        found.append(Difference("model_calls", expect.model_calls, calls))
    return found


def _failing(use: RailUse, failure: Failure) -> RailUse:
    """The rail made to fail, with all else that the policy says of it."""
    return replace(use, rail_class=FAILING[failure], timeout=FAILS_AFTER if failure == "timeout" else use.timeout)


class _Failing:
    """What all rails that are made to fail have in common with a rail."""

    Config: ClassVar[type[RailConfig]] = RailConfig
    stages: ClassVar[frozenset[Stage]] = frozenset(get_args(Stage))
    actions: ClassVar[frozenset[Then]] = frozenset(get_args(Then))

    def __init__(self, config: object, models: Models) -> None:
        pass


class _Late(_Failing):
    async def check(self, turn: Turn) -> Verdict:
        await asyncio.Event().wait()
        raise AssertionError


class _Raising(_Failing):
    async def check(self, turn: Turn) -> Verdict:
        raise RailFailed("made to fail by a test")


class _Babbling(_Failing):
    async def check(self, turn: Turn) -> Verdict:
        return "nonsense"  # type: ignore[return-value]  # which is the point


FAILING: Mapping[Failure, type[Rail]] = {"timeout": _Late, "error": _Raising, "nonsense": _Babbling}


class _Scripted:
    """Says what a test has it say, the last of it for ever; else a passage that it was shown, else `otherwise`."""

    def __init__(self, answers: Sequence[str], otherwise: str, passages: Sequence[Passage] = ()) -> None:
        self.answers = answers
        self.otherwise = otherwise
        self.passages = passages
        self.calls = 0
        self.judged = 0  # prompts that had an answer; one that is scored and answered has one
        self.last: tuple[str, bool] | None = None  # the last prompt, and whether it was scored

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        text = self._answer(prompt, scored=False)
        return Completion(text, "stop", Usage(len(_words(prompt)), len(text.split())))

    async def stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        completion = await self.generate(prompt, params)
        yield Delta(completion.text)
        yield Delta("", completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[float, ...]:
        text = self._answer(prompt, scored=True).strip()
        return tuple(0.0 if text.startswith(words.strip()) else UNLIKELY for words in continuations)

    def _answer(self, prompt: Prompt, *, scored: bool) -> str:
        shown = " ".join(_words(prompt))
        same = self.last is not None and self.last[0] == shown and (scored or self.last[1])
        self.calls += 1
        self.judged += not same
        self.last = shown, scored
        if self.answers:
            return self.answers[min(self.judged, len(self.answers)) - 1]
        seen = (p.text for p in self.passages if " ".join(p.text.split()) in shown)
        return next(seen, self.otherwise)


def _words(prompt: Prompt) -> list[str]:
    parts = [part.text for part in prompt.parts] if isinstance(prompt, RawPrompt) else [m.content for m in prompt]
    return " ".join(parts).split()


class _Found:
    """Finds what a test says."""

    def __init__(self, passages: tuple[Passage, ...]) -> None:
        self.passages = passages

    async def search(self, query: str, k: int) -> tuple[Passage, ...]:
        return self.passages[:k]


class _Words:
    """An embedder without a model: texts that share words are near each other."""

    name = "words"
    sha256 = hashlib.sha256(b"words").hexdigest()
    dimension = 256

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in "".join(c if c.isalnum() else " " for c in text.lower()).split():
                row[hashlib.sha256(word.encode()).digest()[0]] += 1
            row /= np.linalg.norm(row) or 1
        return vectors
