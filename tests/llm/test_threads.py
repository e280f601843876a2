"""Native threads: shared by all models, at rest when nothing runs, and no trouble after a fork or at the end."""

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from trackbed.llm.kernels import cpu
from trackbed.llm.kernels.cpu import _cpu
from trackbed.llm.stored import Stored

SETUP = """
    import os, sys, time
    import numpy as np
    from trackbed.llm.kernels import cpu
    from trackbed.llm.stored import Stored
    rows = np.random.default_rng(0).standard_normal((512, 256), np.float32)
    weight = cpu.pack(Stored("F32", rows.view(np.uint8).reshape(-1), rows.shape))
    x = np.ones((3, 256), np.float32)
    once = cpu.linear(x, weight, 2)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(SETUP) + textwrap.dedent(program)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def weight() -> _cpu.Weight:
    rows = np.random.default_rng(0).standard_normal((515, 256)).astype(np.float32)
    return cpu.pack(Stored("F32", rows.view(np.uint8).reshape(-1), rows.shape))


@pytest.mark.parametrize("threads", [1, 2, 3, 64])
def test_any_number_of_threads_gives_the_same_numbers(weight: _cpu.Weight, threads: int) -> None:
    x = np.random.default_rng(1).standard_normal((5, 256)).astype(np.float32)
    for _ in range(50):
        np.testing.assert_array_equal(cpu.linear(x, weight, threads), cpu.linear(x, weight, 1))


def test_callers_on_many_threads_get_what_they_asked_for(weight: _cpu.Weight) -> None:
    inputs = [np.full((2, 256), n, np.float32) for n in range(8)]
    alone = [cpu.linear(x, weight, 1) for x in inputs]
    found: dict[int, bool] = {}

    def call(n: int) -> None:
        found[n] = all(np.array_equal(cpu.linear(inputs[n], weight, 2), alone[n]) for _ in range(100))

    callers = [threading.Thread(target=call, args=(n,)) for n in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == dict.fromkeys(range(8), True)


def test_threads_rest_when_nothing_runs() -> None:
    done = run("""
        time.sleep(0.2)
        before = time.process_time()
        time.sleep(1)
        print(time.process_time() - before)
    """)
    assert float(done.stdout) < 0.1, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_of_a_fork_has_threads_of_its_own() -> None:
    done = run("""
        child = os.fork()
        same = np.array_equal(cpu.linear(x, weight, 2), once)
        if child == 0:
            os._exit(0 if same else 1)
        print(same, os.waitpid(child, 0)[1])
    """)
    assert done.stdout == "True 0\n", done.stderr


def test_threads_whose_cores_are_taken_finish_and_give_the_same_numbers() -> None:
    done = run("""
        import subprocess
        spin = [sys.executable, "-c", "import time; end = time.time() + 20\\nwhile time.time() < end: pass"]
        busy = [subprocess.Popen(spin) for _ in range(2 * os.cpu_count())]
        try:
            same = all(np.array_equal(cpu.linear(x, weight, 2 + n % 3), once) for n in range(300))
        finally:
            for process in busy:
                process.kill()
                process.wait()
        print(same)
    """)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
def test_threads_that_are_left_with_one_core_go_on() -> None:
    done = run("""
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        print(all(np.array_equal(cpu.linear(x, weight, 4), once) for _ in range(300)))
    """)
    assert done.stdout == "True\n", done.stderr


def test_a_program_ends_quietly() -> None:
    done = run("kept = [weight] * 3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
