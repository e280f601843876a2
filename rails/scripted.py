"""Models, rails, actions and an index that do what a policy's test says.

Nothing is loaded and nothing is sought. This file knows what a test has them say; it knows nothing of what the test
expects.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import ClassVar, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from trackbed.llm.types import Completion, Delta, Prompt, RawPrompt, SamplingParams, Usage
from trackbed.rails.action import Action
from trackbed.rails.config import RailConfig
from trackbed.rails.dialog import Dialog
from trackbed.rails.errors import RailFailed
from trackbed.rails.language import Failure
from trackbed.rails.steps import Call, Step
from trackbed.rails.types import Models, Rail, Stage, Then, Turn, Value, Verdict
from trackbed.retrieval.types import Passage, Query

FAILS_AFTER = 0.01  # seconds until a rail that is made to time out does
UNLIKELY = -50.0  # the log-probability of what a scripted model does not say
TOKEN = re.compile(r"\s{0,99}\S{1,4}|\s{1,99}")  # what a scripted model writes at a time


class Said(NamedTuple):
    """What a scripted model was asked, and what it answered."""

    asked: str
    answer: str


class Scripted:
    """Says what a test has it say, the last of it for ever; else a passage that it was shown, else `otherwise`.

    With `before`, it says again what another has said: the same to the same prompt, and to one that the other was not
    asked, as a judge of unfinished texts asks, what was said to the prompt most like it.
    """

    def __init__(
        self,
        answers: Sequence[str],
        otherwise: str,
        passages: Sequence[Passage] = (),
        before: "Scripted | None" = None,
    ) -> None:
        self.answers = answers
        self.otherwise = otherwise
        self.passages = passages
        self.before = tuple(before.said) if before else ()
        self.said: list[Said] = []  # one for each judgement: a prompt that is scored and answered has one
        self.shown: list[str] = []  # every prompt, as it was written
        self.scored = False  # whether the last prompt was only scored

    @property
    def calls(self) -> int:
        """How often it was asked."""
        return len(self.shown)

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        """What it has to say."""
        text = self._answer(prompt, scored=False)
        return Completion(text, "stop", Usage(len(_written(prompt).split()), len(text.split())))

    async def stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """What it has to say, a few letters at a time."""
        completion = await self.generate(prompt, params)
        for token in TOKEN.findall(completion.text):
            yield Delta(token)
        yield Delta("", completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[float, ...]:
        """Certain of the continuation that it would have said, and of no other."""
        text = self._answer(prompt, scored=True).strip()
        return tuple(0.0 if text.startswith(words.strip()) else UNLIKELY for words in continuations)

    def _answer(self, prompt: Prompt, *, scored: bool) -> str:
        written = _written(prompt)
        asked = " ".join(written.split())
        again = bool(self.said) and self.said[-1].asked == asked and (scored or self.scored)
        self.shown.append(written)
        self.scored = scored
        if not again:
            self.said.append(Said(asked, self._next(asked)))
        return self.said[-1].answer

    def _next(self, asked: str) -> str:
        if self.before:
            nearest = max(self.before, key=lambda said: (said.asked == asked, _shared(said.asked, asked)))
            answers = [said.answer for said in self.before if said.asked == nearest.asked]
            times = sum(said.asked == asked for said in self.said)
            return answers[min(times, len(answers) - 1)]
        if self.answers:
            return self.answers[min(len(self.said), len(self.answers) - 1)]
        seen = (p.text for p in self.passages if " ".join(p.text.split()) in asked)
        return next(seen, self.otherwise)


class Found:
    """Finds what a test says."""

    def __init__(self, passages: tuple[Passage, ...]) -> None:
        self.passages = passages

    async def search(self, query: Query, k: int) -> tuple[Passage, ...]:
        """The passages, whatever is asked."""
        return self.passages[:k]


class Words:
    """An embedder without a model: texts that share words are near each other."""

    name = "words"
    sha256 = hashlib.sha256(b"words").hexdigest()
    dimension = 256

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A row for each text: how often it has words of each hash."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in "".join(c if c.isalnum() else " " for c in text.lower()).split():
                row[hashlib.sha256(word.encode()).digest()[0]] += 1
            row /= np.linalg.norm(row) or 1
        return vectors


class Double:
    """What all that stands in for a rail has in common with one."""

    Config: ClassVar[type[RailConfig]] = RailConfig
    stages: ClassVar[frozenset[Stage]] = frozenset(get_args(Stage))
    actions: ClassVar[frozenset[Then]] = frozenset(get_args(Then))

    def __init__(self, config: object, models: Models) -> None:
        pass


class _Late(Double):
    async def check(self, turn: Turn) -> Verdict:
        await asyncio.Event().wait()
        raise AssertionError


class _Raising(Double):
    async def check(self, turn: Turn) -> Verdict:
        raise RailFailed("made to fail by a test")


class _Babbling(Double):
    async def check(self, turn: Turn) -> Verdict:
        return "nonsense"  # type: ignore[return-value]  # which is the point


FAILING: Mapping[Failure, type[Rail]] = {"timeout": _Late, "error": _Raising, "nonsense": _Babbling}


def _shared(one: str, other: str) -> int:
    """How many characters two texts have in common before they part."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _written(prompt: Prompt) -> str:
    parts = [part.text for part in prompt.parts] if isinstance(prompt, RawPrompt) else [m.content for m in prompt]
    return "\n".join(parts)


class Actions:
    """Return what a test has them return, or fail; nothing of anybody's is called."""

    def __init__(self, results: Mapping[str, Value], fail: Mapping[str, Failure]) -> None:
        self.results = results
        self.fail = fail
        self.missing: list[str] = []  # those that were called, and that the test says nothing of

    def into(self, dialog: Dialog) -> Dialog:
        """The dialog with these in place of its own."""
        flows = {
            name: replace(flow, steps=tuple(self._scripted(step, f"dialog/{name}") for step in flow.steps))
            for name, flow in dialog.flows.items()
        }
        return replace(dialog, flows=flows)

    def _scripted(self, step: Step, flow: str) -> Step:
        if not isinstance(call := step.act, Call):
            return step
        failure, path = self.fail.get(flow), call.action.path

        async def answer(**arguments: Value) -> object:
            if failure == "timeout":
                await asyncio.Event().wait()
            if failure == "error":
                raise RailFailed("made to fail by a test")
            if failure == "nonsense":
                return object()
            if path not in self.results and call.save is not None:
                self.missing.append(path)
            return self.results.get(path)

        timeout = FAILS_AFTER if failure == "timeout" else call.timeout
        return replace(step, act=replace(call, action=Action(path, answer, waits=True), timeout=timeout))
