"""Begin the rest of a turn while its question is still judged; nothing of it leaves before the question has passed."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from trackbed.rails.types import Event, Trace, Turn, Verdict

Listener = Callable[[Event], None]
Prepare = Callable[[Turn, Trace, Listener | None], Awaitable[tuple[Turn, Verdict]]]


def tell(listen: Listener | None, event: Event) -> None:
    """Let the listener know, if there is one."""
    if listen:
        listen(event)


class Ahead:
    """A turn prepared ahead, or not: `prepared` gives what was begun, or begins it."""

    def __init__(self, prepare: Prepare, turn: Turn, listen: Listener | None, *, wanted: bool) -> None:
        self.prepare = prepare
        self.listen = listen
        self.trace = Trace()
        self.task: asyncio.Future[tuple[Turn, Verdict]] | None = None
        if wanted:
            self.valve = _Valve(listen)
            self.task = asyncio.ensure_future(prepare(turn, self.trace, self.valve if listen else None))

    async def prepared(self, turn: Turn, trace: Trace) -> tuple[Turn, Verdict]:
        """The turn with its passages and its draft. Raises what preparing raises."""
        if self.task is None:
            return await self.prepare(turn, trace, self.listen)
        self.valve.open()
        prepared = await self.task
        trace.spans += self.trace.spans
        return prepared

    async def __aenter__(self) -> "Ahead":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._give_up()

    def _give_up(self) -> None:
        if self.task and not self.task.done():
            self.task.cancel()
            self.task.add_done_callback(_forget)
        elif self.task:
            _forget(self.task)


def _forget(task: "asyncio.Future[tuple[Turn, Verdict]]") -> None:
    """Take note of a failure that nobody waits for, so that nobody warns of it."""
    if not task.cancelled():
        task.exception()


class _Valve:
    """Keeps events until it is opened, and then lets them through."""

    def __init__(self, listen: Listener | None) -> None:
        self.listen = listen
        self.kept: list[Event] = []
        self.is_open = False

    def __call__(self, event: Event) -> None:
        if self.is_open:
            tell(self.listen, event)
        else:
            self.kept.append(event)

    def open(self) -> None:
        self.is_open = True
        for event in self.kept:
            tell(self.listen, event)
        self.kept.clear()
