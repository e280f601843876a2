"""Call asynchronous code from synchronous code, whatever loop the caller's thread may be running."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import TypeVar

from anyio.from_thread import start_blocking_portal

T = TypeVar("T")


def wait_for(call: Callable[[], Awaitable[T]]) -> T:
    """The call's result, from an event loop in a thread of its own."""
    with start_blocking_portal() as portal:
        return portal.call(call)


def iterate(generator: AsyncGenerator[T, None]) -> Iterator[T]:
    """What the generator yields, from an event loop in a thread of its own; closing this closes it."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(aclosing(generator)):
        while True:
            try:
                yield portal.call(generator.__anext__)
            except StopAsyncIteration:
                return
