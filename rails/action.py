"""Somebody's function, called by a flow: found by its import path, within its time, and never trusted.

This file knows how a function is found and run. What it returns is the caller's business.
"""

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trackbed.rails.deadline import within
from trackbed.rails.errors import Place, PolicyError
from trackbed.rails.types import Value
from trackbed.rails.use import resolved

MAX_THREADS = 64  # plain functions that run at once; a thread whose function hangs is one of them for good

THREADS = threading.BoundedSemaphore(MAX_THREADS)


@dataclass(frozen=True, slots=True)
class Action:
    """A function that a policy may call."""

    path: str  # package.module:function
    function: Callable[..., Any] = field(compare=False)  # Any: anyone's
    waits: bool = False  # it is async

    async def run(self, arguments: Mapping[str, Value], seconds: float) -> object:
        """What the function returns, within so many seconds. Raises TimeoutError, or whatever the function raises."""
        if self.waits:
            work: asyncio.Future[object] = asyncio.ensure_future(self.function(**arguments))
        else:
            work = _in_thread(self.function, arguments)
        return await within(seconds, work)


def find_action(path: str, arguments: Mapping[str, object], place: Place) -> Action:
    """The function at an import path, which takes arguments of these names. Raises PolicyError."""
    function = resolved(path, place)
    if not callable(function) or inspect.isclass(function):
        raise PolicyError(f"{path!r} is no function", place)
    try:
        inspect.signature(function).bind(**arguments)
    except (TypeError, ValueError) as error:
        raise PolicyError(f"{path!r} cannot be called with these arguments: {error}", place) from None
    waits = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
    return Action(path, function, waits)


def _in_thread(function: Callable[..., object], arguments: Mapping[str, Value]) -> "asyncio.Future[object]":
    """The function at work in a thread of its own, which neither a full pool delays nor the program's end waits for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[object] = loop.create_future()

    def settle(result: object, error: BaseException | None) -> None:
        if not future.done():
            future.set_exception(error) if error else future.set_result(result)

    def work() -> None:
        result, failure = None, None
        try:
            result = function(**arguments)
        except BaseException as error:  # noqa: BLE001 - whatever it raises, somebody waits for it
            # A future refuses StopIteration, and what would end the program ends only this call.
            failure = RuntimeError(type(error).__name__) if not _plain(error) else error
        finally:
            THREADS.release()
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:  # that loop is closed, and nobody waits there any more
            return

    if not THREADS.acquire(blocking=False):
        raise RuntimeError(f"{MAX_THREADS} actions are running")
    threading.Thread(target=work, daemon=True, name="action").start()
    return future


def _plain(error: BaseException) -> bool:
    return isinstance(error, Exception) and not isinstance(error, StopIteration)
