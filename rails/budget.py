"""What a turn may spend, and what it has spent: model calls, tokens, time, and a place among the turns that run.

Rails are built once and asked by many turns at once, and a rail is given nothing but the turn. So which turn a
model call belongs to is kept in a context variable: each task that asks a model carries its meter with it. This
file knows nothing of rails.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

from trackbed.llm.types import Completion, Delta, Generator, Prompt, SamplingParams, Usage
from trackbed.rails.errors import BudgetSpent, TooBusy

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Budget:
    """What one turn may take, and how many turns may run at once; None is without a bound."""

    wall: float | None = None  # seconds
    model_calls: int | None = None
    max_turns: int | None = None  # that run at once
    max_wait: float = 5.0  # seconds that a turn waits for a place before it is turned away


class Meter:
    """Counts the model calls of a turn, or of a step of it: what a step counts, its turn counts too."""

    __slots__ = ("calls", "completion_tokens", "limit", "prompt_tokens", "turn")

    def __init__(self, limit: int | None = None, turn: "Meter | None" = None) -> None:
        self.limit = limit
        self.turn = turn
        self.calls = self.prompt_tokens = self.completion_tokens = 0

    def call(self) -> None:
        """Count a call that is about to be made. Raises BudgetSpent where it is one too many."""
        if self.turn:
            self.turn.call()
        if self.limit is not None and self.calls >= self.limit:
            raise BudgetSpent(f"the turn may ask models {self.limit} times, and has")
        self.calls += 1

    def read(self, usage: Usage) -> None:
        """Count the tokens of an answer."""
        if self.turn:
            self.turn.read(usage)
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens

    @property
    def usage(self) -> Usage | None:
        """The tokens of all answers; None where none were counted."""
        read = Usage(self.prompt_tokens, self.completion_tokens)
        return read if any(read) else None


METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


def metered(work: Coroutine[Any, Any, Result], meter: Meter) -> "asyncio.Task[Result]":
    """A task whose model calls this meter counts."""
    context = copy_context()
    context.run(METER.set, meter)
    return asyncio.get_running_loop().create_task(work, context=context)


class Metered:
    """A generator whose calls count towards whoever asks."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        """As the generator does. Raises BudgetSpent too."""
        if meter := METER.get():
            meter.call()
        completion = await self.generator.generate(prompt, params)
        if meter:
            meter.read(completion.usage)
        return completion

    async def stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """As the generator does. Raises BudgetSpent too."""
        if meter := METER.get():
            meter.call()
        async with aclosing(self.generator.stream(prompt, params)) as deltas:
            async for delta in deltas:
                if meter and delta.completion:
                    meter.read(delta.completion.usage)
                yield delta

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[float, ...]:
        """As the generator does. Raises BudgetSpent too."""
        if meter := METER.get():
            meter.call()
        return await self.generator.score(prompt, continuations)


class Admission:
    """Lets so many turns run at once, and others wait a while for a place; turns may run on different event loops."""

    def __init__(self, budget: Budget) -> None:
        self.places = budget.max_turns
        self.max_wait = budget.max_wait
        self.lock = threading.Lock()
        self.running = 0
        self.waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    async def __aenter__(self) -> None:
        """Take a place among the running turns. Raises TooBusy when none becomes free in time."""
        with self.lock:
            if self.places is None or self.running < self.places:
                self.running += 1
                return
            loop = asyncio.get_running_loop()
            turn = loop, loop.create_future()
            self.waiting.append(turn)
        try:
            await asyncio.wait_for(asyncio.shield(turn[1]), self.max_wait)
        except BaseException as error:
            with self.lock:
                left = turn in self.waiting
                if left:
                    self.waiting.remove(turn)
            if not left:  # the place came in the moment of giving up
                self._leave()
            if isinstance(error, TimeoutError):
                raise TooBusy(
                    f"{self.places} turns are running, and none ended within {self.max_wait:g} s; try again later"
                ) from None
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        """Give the place to the turn that has waited longest, if there is one."""
        with self.lock:
            while self.waiting:
                loop, future = self.waiting.popleft()
                try:
                    loop.call_soon_threadsafe(_give, future)
                except RuntimeError:  # that loop is closed, and nobody waits there any more
                    continue
                return
            self.running -= 1


def _give(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
