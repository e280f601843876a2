"""A turn for callers that cannot await, wherever they stand."""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.fakes import ScriptedGenerator
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import load_policy
from trackbed.rails.sync import iterate_sync, run_sync
from trackbed.rails.types import Models, Turn


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    file = tmp_path / "policy.yaml"
    file.write_text("policy: 1\nmodels: {chat: smollm2-135m-instruct}\n")
    return Pipeline(load_policy(file), Models({"chat": ScriptedGenerator("fine", delay=0.001)}))


def test_from_plain_code(pipeline: Pipeline) -> None:
    assert [pipeline.respond_sync(Turn("hi")).text for _ in range(3)] == ["fine"] * 3


async def test_inside_a_running_event_loop(pipeline: Pipeline) -> None:
    assert pipeline.respond_sync(Turn("hi")).text == "fine"


def test_from_many_threads_at_once(pipeline: Pipeline) -> None:
    told: list[str] = []
    threads = [threading.Thread(target=lambda: told.append(pipeline.respond_sync(Turn("hi")).text)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == ["fine"] * 8


def test_the_same_pipeline_serves_both_ways(pipeline: Pipeline) -> None:
    async def both() -> list[str]:
        awaited = asyncio.ensure_future(pipeline.respond(Turn("hi")))
        return [pipeline.respond_sync(Turn("hi")).text, (await awaited).text]

    assert asyncio.run(both()) == ["fine", "fine"]


def test_work_may_wait_for_other_work() -> None:
    async def inner() -> int:
        await asyncio.sleep(0)
        return 7

    async def outer() -> int:
        return run_sync(inner())

    assert run_sync(outer()) == 7


def test_what_the_turn_raises_reaches_the_caller(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("policy: 1\nmodels: {chat: smollm2-135m-instruct}\n")
    failing = Pipeline(load_policy(file), Models({"chat": ScriptedGenerator(fails=ZeroDivisionError())}))
    with pytest.raises(ZeroDivisionError):
        failing.respond_sync(Turn("hi"))


def test_closing_an_iteration_closes_its_generator() -> None:
    closed = threading.Event()

    async def count() -> AsyncGenerator[int, None]:
        try:
            for i in range(10):
                yield i
        finally:
            closed.set()

    numbers = iterate_sync(count())
    assert [next(numbers), next(numbers)] == [0, 1]
    numbers.close()  # type: ignore[attr-defined]
    assert closed.is_set()
    assert list(iterate_sync(count())) == list(range(10))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_a_loop_of_its_own(pipeline: Pipeline) -> None:
    assert pipeline.respond_sync(Turn("hi")).text == "fine"
    child = os.fork()
    if child == 0:
        os._exit(0 if pipeline.respond_sync(Turn("hi")).text == "fine" else 1)
    assert os.waitpid(child, 0)[1] == 0
