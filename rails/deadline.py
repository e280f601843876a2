"""A result within its time, from work that may ignore that it is cancelled.

This file knows futures and seconds, and nothing of what is waited for.
"""

import asyncio
from typing import Any, TypeVar

Result = TypeVar("Result")


async def within(seconds: float, work: "asyncio.Future[Result]") -> Result:
    """What the work gives. Raises TimeoutError where it takes longer, or what it raises."""
    try:
        # Unlike asyncio.timeout, this does not wait for work that goes on after its cancellation.
        _, late = await asyncio.wait({work}, timeout=seconds)
    finally:
        if not work.done():
            work.cancel()
            work.add_done_callback(_forget)
    if late:
        raise TimeoutError
    if work.cancelled():
        raise RuntimeError("the work cancelled itself")
    return work.result()


def _forget(work: "asyncio.Future[Any]") -> None:
    """Take note of a late result, so that nobody warns of an exception that was never looked at."""
    if not work.cancelled():
        work.exception()
