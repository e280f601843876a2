"""Somebody's function at work: found, run within its time, and never in the way of anything else."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from trackbed.rails.action import MAX_THREADS, Action, find_action
from trackbed.rails.errors import Place, PolicyError

GATE = threading.Event()
LATE: list[str] = []


def plain(a: int, b: int = 2) -> int:
    return a + b


async def waiting(a: int) -> int:
    await asyncio.sleep(0)
    return a


class Shop:
    async def __call__(self, a: int) -> int:
        return a

    def status(self, a: int) -> int:
        return a


shop = Shop()


def shut() -> str:
    GATE.wait(10)
    return "open"


async def ignores_its_cancellation() -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0.01)
        LATE.append("late")
        raise ValueError("late") from None
    return "late"


@pytest.fixture(autouse=True)
def _gate() -> Iterator[None]:
    GATE.clear()
    LATE.clear()
    yield
    GATE.set()


def found(name: str, **arguments: int) -> Action:
    return find_action(f"{__name__}:{name}", arguments, Place("acme.yaml", 1, 1))


@pytest.mark.parametrize(
    ("name", "arguments", "result"),
    [
        ("plain", {"a": 1}, 3),
        ("plain", {"a": 1, "b": 1}, 2),
        ("waiting", {"a": 1}, 1),
        ("shop", {"a": 1}, 1),
        ("shop.status", {"a": 1}, 1),
    ],
)
async def test_anything_that_can_be_called_is_an_action(name: str, arguments: dict[str, Any], result: int) -> None:
    assert await found(name, **arguments).run(arguments, 5.0) == result


@pytest.mark.parametrize("name", ["plain", "waiting", "shop", "shop.status"])
def test_an_action_takes_the_arguments_it_is_given(name: str) -> None:
    with pytest.raises(PolicyError, match="cannot be called with these arguments"):
        found(name, c=1)


async def test_a_plain_function_leaves_the_event_loop_free() -> None:
    work = asyncio.ensure_future(found("shut").run({}, 5.0))
    await asyncio.sleep(0.01)
    assert not work.done()
    GATE.set()
    assert await work == "open"


@pytest.mark.parametrize("name", ["shut", "ignores_its_cancellation"])
async def test_a_function_that_takes_too_long_is_not_waited_for(name: str) -> None:
    started = time.perf_counter()
    with pytest.raises(TimeoutError):
        await found(name).run({}, 0.02)
    assert time.perf_counter() - started < 5
    GATE.set()
    await asyncio.sleep(0.05)  # what comes late is taken note of, and raises nowhere
    assert (["late"] if name == "ignores_its_cancellation" else []) == LATE


@pytest.mark.parametrize("name", ["shut", "ignores_its_cancellation"])
async def test_who_waits_for_an_action_can_go(name: str) -> None:
    work = asyncio.ensure_future(found(name).run({}, 60.0))
    await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    GATE.set()
    await asyncio.sleep(0.05)


async def test_functions_that_hang_take_so_many_threads_and_no_more() -> None:
    def hanging() -> int:
        return sum(thread.name == "action" for thread in threading.enumerate())

    while hanging():
        await asyncio.sleep(0.01)
    action = found("shut")
    results = await asyncio.gather(*(action.run({}, 0.2) for _ in range(MAX_THREADS + 3)), return_exceptions=True)
    assert [type(result) for result in results].count(RuntimeError) == 3
    assert hanging() == MAX_THREADS
    GATE.set()
    while hanging():
        await asyncio.sleep(0.01)
    assert await action.run({}, 5.0) == "open"


def test_a_result_for_a_loop_that_is_gone_is_lost(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(TimeoutError):
        asyncio.run(found("shut").run({}, 0.01))
    GATE.set()
    while any(thread.name == "action" for thread in threading.enumerate()):
        time.sleep(0.01)
    assert not list(recwarn)
