"""Wait for asynchronous code from code that cannot await, whatever event loop its thread may be running.

The work is done by one event loop in a thread of its own, begun when it is first needed; it serves all callers.
"""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """What the coroutine comes to. Blocks the calling thread; interrupting that cancels the work.

    Raises what the work raises.
    """
    loop = _loop()
    if threading.current_thread() is _thread:  # work that waits for other work, which so needs a loop of its own
        with ThreadPoolExecutor(1) as other:
            return other.submit(asyncio.run, work).result()
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def iterate_sync(generator: AsyncGenerator[T, None]) -> Iterator[T]:
    """What the generator yields, one after the other; closing this closes it."""
    try:
        while True:
            try:
                yield run_sync(_next(generator))
            except StopAsyncIteration:
                return
    finally:
        run_sync(_closed(generator))


_lock = threading.Lock()
_thread: threading.Thread | None = None
_running: asyncio.AbstractEventLoop | None = None


def _loop() -> asyncio.AbstractEventLoop:
    global _thread, _running
    with _lock:
        if _running is None or _thread is None or not _thread.is_alive():
            # A plain loop, whatever policy the process has set for its own.
            _running = asyncio.SelectorEventLoop()
            _thread = threading.Thread(target=_running.run_forever, name="trackbed-sync", daemon=True)
            _thread.start()
        return _running


def _forget() -> None:
    """In a forked child the thread is gone: the next call begins another."""
    global _lock, _thread, _running
    _lock, _thread, _running = threading.Lock(), None, None


os.register_at_fork(after_in_child=_forget)


async def _next(generator: AsyncGenerator[T, None]) -> T:
    return await generator.__anext__()


async def _closed(generator: AsyncGenerator[T, None]) -> None:
    await generator.aclose()
