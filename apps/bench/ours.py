"""Our side of the rails benchmark: policies in a temporary folder, loaded and asked through the public names alone.

Each case measures itself `count` times and gives the figures. It knows nothing of the rival.
"""

import asyncio
import json
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackbed.apps.bench.work import Work, leaked
from trackbed.llm.types import Completion, Delta, Prompt, SamplingParams, Usage
from trackbed.rails import Models, Pipeline, Reply, Turn, load_policy
from trackbed.rails.types import Text

WORDS, SLOW = "trackbed.apps.bench.judges:Words", "trackbed.apps.bench.judges:Slow"


class Instant:
    """A model that answers at once, or at a steady pace, and judges everything harmless."""

    def __init__(self, answer: str, pace: float = 0.0) -> None:
        self.completion = Completion(answer, "stop", Usage(1, 1))
        self.pace = pace
        self.calls = 0

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        """The answer."""
        self.calls += 1
        return self.completion

    async def stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """The answer; a word at a time where the model has a pace."""
        self.calls += 1
        if not self.pace:
            yield Delta(self.completion.text, self.completion)
            return
        started = perf_counter()
        for n, word in enumerate(self.completion.text.split(" ")):
            await asyncio.sleep(started + (n + 1) * self.pace - perf_counter())
            yield Delta(f" {word}" if n else word)
        yield Delta("", self.completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[float, ...]:
        """Sure of `No`, and of no other continuation."""
        self.calls += 1
        return tuple(-0.01 if text.strip().lower() == "no" else -9.0 for text in continuations)


class Hashed:
    """Vectors of hashed words, as the rival is given."""

    name, sha256, dimension = "hashed", "", 64

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A vector of length one for each text."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for word in text.lower().split():
                vector[zlib.crc32(word.encode()) % self.dimension] += 1
            vector /= np.linalg.norm(vector) or 1
        return vectors


@dataclass(frozen=True, slots=True)
class Ours:
    """Our engine at the given work, with its policies in `folder`."""

    work: Work
    folder: Path

    def policy(self, name: str, **keys: Any) -> Path:  # Any: JSON values, as the policy language takes them
        """A policy file; JSON is YAML too."""
        file = self.folder / f"{name}.yaml"
        file.write_text(json.dumps({"policy": 1, "models": {"chat": "smollm2-135m-instruct"}, **keys}))
        return file

    def pipeline(self, model: Instant, name: str, **keys: Any) -> Pipeline:  # Any: as for `policy`
        """A policy at work on that model."""
        return Pipeline(load_policy(self.policy(name, **keys)), Models({"chat": model}, Hashed()))

    def smallest(self) -> Path:
        """A policy with one rail."""
        return self.policy("smallest", input=[{"rail": "regex", "patterns": ["secret"]}])

    @property
    def plain(self) -> list[dict[str, Any]]:  # Any: JSON values
        """Regular expressions and two rails in Python."""
        words = [{"rail": WORDS, "id": f"words{n}", "words": [self.work.forbidden]} for n in (1, 2)]
        return [{"rail": "regex", "patterns": self.work.patterns}, *words]

    async def turn(self, count: int) -> list[float]:
        """Milliseconds of a turn with plain rails in and out."""
        pipeline = self.pipeline(Instant(self.work.answer), "turn", input=self.plain, output=self.plain)
        return await _times(lambda: self._answered(pipeline), count)

    async def crowd(self, count: int) -> list[float]:
        """Turns a second, so many at once."""
        pipeline = self.pipeline(Instant(self.work.answer), "crowd", input=self.plain, output=self.plain)
        places = asyncio.Semaphore(self.work.crowd)

        async def one(n: int) -> None:
            async with places:
                await pipeline.respond(Turn(f"{self.work.question} {n}"))

        started = perf_counter()
        await asyncio.gather(*(one(n) for n in range(count)))
        return [count / (perf_counter() - started)]

    async def growth(self, count: int) -> list[float]:
        """How many times longer the last of `count` turns of a conversation takes than the second."""
        pipeline = self.pipeline(Instant(self.work.answer), "growth", input=self.plain, output=self.plain)
        first = reply = await pipeline.respond(Turn("question number 1"))
        seconds, lasts = [], []
        for n in range(2, count + 1):
            reply, last = await _timed(pipeline, reply.next(f"question number {n}"))
            if n > count - 20:  # side by side, so that a busy moment slows both
                seconds.append((await _timed(pipeline, first.next("question number 2")))[1])
                lasts.append(last)
        return [median(lasts) / median(seconds)]

    async def judges(self, count: int) -> list[float]:
        """Milliseconds of a turn whose question five slow judges look at."""
        slow = [{"rail": SLOW, "id": f"slow{n}", "seconds": self.work.wait} for n in range(5)]
        pipeline = self.pipeline(Instant(self.work.answer), "judges", input=slow)
        return await _times(lambda: pipeline.respond(Turn(self.work.question)), count, warm=1)

    async def load(self, count: int) -> list[float]:
        """Milliseconds from a policy's file to a pipeline at work."""
        half = self.work.rails // 2
        rails = [
            {"rail": WORDS, "id": f"words{n}", "words": [f"forbidden{n}"]}
            if n % 2
            else {"rail": "regex", "id": f"regex{n}", "patterns": [rf"\bsecret{n}\b"]}
            for n in range(half)
        ]
        file = self.policy("load", input=rails, output=rails)
        models = Models({"chat": Instant(self.work.answer)})

        async def one() -> Pipeline:
            return Pipeline(load_policy(file), models)

        return await _times(one, count, warm=1)

    async def self_check(self, count: int) -> list[float]:
        """Milliseconds of a turn whose question and answer a model judges, which takes no time."""
        model = Instant(self.work.answer)
        check = [{"rail": "self_check", "model": "chat"}]
        pipeline = self.pipeline(model, "self_check", input=check, output=check)
        times = await _times(lambda: self._answered(pipeline), count)
        assert model.calls % 3 == 0, "a question, an answer and a draft are three calls"
        return times

    async def dialog(self, count: int) -> list[float]:
        """Milliseconds of a turn whose intent is sure, and whose words stand in a flow."""
        model = Instant(self.work.answer)
        pipeline = self._dialog(model)
        times = await _times(lambda: pipeline.respond(Turn(self.work.greeting)), count)
        reply = await pipeline.respond(Turn(self.work.greeting))
        assert reply.text == "Hello!", reply.text
        return times

    async def dialog_calls(self, count: int) -> list[float]:
        """How often a model is asked in such a turn."""
        model = Instant(self.work.answer)
        await self._dialog(model).respond(Turn(self.work.greeting))
        return [float(model.calls)]

    async def first_token(self, count: int) -> list[float]:
        """Milliseconds until the first piece of an answer that is written at a steady pace leaves."""
        pipeline = self._streaming("first_token", Instant(self.work.streamed, self.work.pace), self.work.patterns)
        times = []
        for _ in range(count):
            started = perf_counter()
            events = pipeline.stream(Turn(self.work.question))
            async for event in events:
                if isinstance(event, Text):
                    times.append(1000 * (perf_counter() - started))
                    break
            await events.aclose()
        return times

    async def leak(self, count: int) -> list[float]:
        """Characters that left of stretches that may not, in all answers together."""
        total = 0
        for answer, forbidden in self.work.leaky:
            model = Instant(answer, 1e-9)  # as quick as can be, and still a word at a time
            pipeline = self._streaming("leak", model, (self.work.long_pattern,))
            pieces = [e.text async for e in pipeline.stream(Turn(self.work.question)) if isinstance(e, Text)]
            total += leaked("".join(pieces), answer, forbidden)
        return [float(total)]

    def _streaming(self, name: str, model: Instant, patterns: Sequence[str]) -> Pipeline:
        rails = [{"rail": "regex", "patterns": patterns}, {"rail": WORDS, "words": [self.work.forbidden]}]
        stream = {"hold_back": self.work.hold_back, "max_delay": "400ms"}
        return self.pipeline(model, name, output={"stream": stream, "rails": rails})

    def _dialog(self, model: Instant) -> Pipeline:
        intents = {
            "greeting": ["hello", "hi there"],
            "weather": ["what is the weather", "will it rain today"],
            "refund": ["I want my money back", "refund my order"],
            "politics": ["who should I vote for", "what do you think about the president"],
            "goodbye": ["bye", "see you later"],
        }
        said = {name: "Hello!" if name == "greeting" else f"About {name}." for name in intents}
        return self.pipeline(
            model,
            "dialog",
            dialog={
                "intents": {name: {"examples": examples} for name, examples in intents.items()},
                "classify": {"threshold": 0.6},
                "flows": [{"intent": name, "do": [{"say": words}]} for name, words in said.items()],
            },
        )

    async def _answered(self, pipeline: Pipeline) -> None:
        reply = await pipeline.respond(Turn(self.work.question))
        assert reply.text == self.work.answer, reply.verdict


async def _timed(pipeline: Pipeline, turn: Turn) -> tuple[Reply, float]:
    started = perf_counter()
    return await pipeline.respond(turn), perf_counter() - started


async def _times(once: Callable[[], Awaitable[object]], count: int, warm: int = 10) -> list[float]:
    """Milliseconds of each time; the first ones warm up and do not count."""
    for _ in range(warm):
        await once()
    times = []
    for _ in range(count):
        started = perf_counter()
        await once()
        times.append(1000 * (perf_counter() - started))
    return times
