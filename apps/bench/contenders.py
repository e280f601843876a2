"""Those who are measured, under one protocol: ours, llama.cpp in its process, transformers in this one.

Each opens its file when it is first asked, and in the form that the case needs. This file knows how each is called.
It knows nothing of rounds and ratios.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Protocol

from trackbed.apps.bench.case import Case
from trackbed.apps.bench.engine import Endless, Passes, Runtime, Writer
from trackbed.apps.bench.limits import Weights
from trackbed.apps.bench.rival import LLAMA_CPP, Rival, RivalFailed, open_rival
from trackbed.apps.bench.transformers_rival import Transformers
from trackbed.llm.config import EngineConfig
from trackbed.llm.errors import ModelLoadError

# Seconds, and those of all threads on the processor; of a cold process all its seconds, and those after the imports.
Taken = tuple[float, float]
Prompts = Sequence[tuple[str, list[int]]]  # texts and their tokens
DENSE = {"float32": 4, "bfloat16": 2}  # bytes of a weight where none keeps the bits of its file

OUR_COLD = """
import asyncio, sys
from pathlib import Path
from time import perf_counter
from trackbed.llm import Engine, EngineConfig, SamplingParams
from trackbed.llm.types import Part, RawPrompt
path, threads, text = sys.argv[1:]
started = perf_counter()
with Engine.open(Path(path), EngineConfig(threads=int(threads))) as engine:
    asyncio.run(engine.generate(RawPrompt((Part(text),)), SamplingParams(max_tokens=1)))
    print(perf_counter() - started, flush=True)
"""


class Impossible(Exception):
    """This contender does not do this; the message says why."""


class Contender(Protocol):
    """A runtime that has one file."""

    def measure(self, case: Case, prompts: Prompts) -> Taken:
        """What the case takes, with these prompts. Raises Impossible."""
        ...

    def close(self) -> None:
        """Give the model back."""
        ...


class Ours:
    """Our runtime, in this process."""

    def __init__(self, path: Path, tokenizer: Endless, threads: int) -> None:
        self._path = path
        self._tokenizer = tokenizer
        self._config = EngineConfig(threads=threads)
        self._runtime: Runtime | None = None
        self._why = ""
        self._opened = ExitStack()
        self._writer: Writer | None = None
        self._passes: Passes | None = None

    def measure(self, case: Case, prompts: Prompts) -> Taken:
        """As the protocol says."""
        (text, ids), *_ = prompts
        if case.is_cold:
            return self._cold(text)
        if case.work == "prefill at":
            return self._open_passes(case).prefill_at(ids, case.depth)
        writer = self._open_engine(case)
        if case.work == "prefill":
            return writer.prefill(text)
        if case.work == "batch":
            return writer.batch([text for text, _ in prompts], case.count)
        return writer.decode(text, case.count)

    def close(self) -> None:
        """As the protocol says."""
        self._opened.close()
        self._writer = self._passes = self._runtime = None

    def _open(self) -> Runtime:
        if self._why:
            raise Impossible(self._why)
        if self._runtime is None:
            try:
                self._check_memory()
                self._runtime = Runtime(self._path, self._tokenizer, self._config)
            except (ModelLoadError, Impossible) as error:
                self._why = str(error)
                raise Impossible(self._why) from None
        return self._runtime

    def _open_engine(self, case: Case) -> Writer:
        if self._writer is None or self._passes:
            runtime = self._open()
            self._opened.close()
            self._passes, self._writer = None, self._opened.enter_context(runtime.engine())
        return self._writer

    def _open_passes(self, case: Case) -> Passes:
        if self._passes is None:
            runtime = self._open()
            self._opened.close()
            self._writer, self._passes = None, self._opened.enter_context(runtime.passes(case.context))
        return self._passes

    def _check_memory(self) -> None:
        """Whether the model fits, for a process that takes too much is killed without a word."""
        weights, size = Weights.read(self._path), DENSE.get(self._config.dtype)
        if not weights or not size:
            return
        needed, free = weights.values * size, _free_memory()
        if free is not None and needed > 0.9 * free:
            raise Impossible(
                f"as {self._config.dtype} it takes {needed / 1e9:.0f} GB of memory, and {free / 1e9:.0f} GB are free"
            )

    def _cold(self, text: str) -> Taken:
        arguments = [str(self._path), str(self._config.threads), text]
        started = perf_counter()
        with subprocess.Popen(  # noqa: S603  our own Python, and our own code
            [sys.executable, "-c", OUR_COLD, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout
            line = process.stdout.readline()
            whole = perf_counter() - started
        if not line:
            raise Impossible("its process ended before the first token")
        return whole, float(line)


class LlamaCpp:
    """llama.cpp, in a process of its own."""

    def __init__(self, rival: Rival, python: Path, path: Path, threads: int) -> None:
        self._rival = rival
        self._python = python
        self._file = {"path": str(path), "threads": threads}
        self._room = (0, 0)  # tokens of a sequence, and sequences

    def measure(self, case: Case, prompts: Prompts) -> Taken:
        """As the protocol says."""
        ids = prompts[0][1]
        try:
            if case.is_cold:
                return self._cold(case, ids)
            self._open(case)
            return _pair(self._asked(case, prompts))
        except RivalFailed as error:
            raise Impossible(f"llama.cpp: {error}") from None

    def close(self) -> None:
        """As the protocol says."""
        self._rival.figures(case="close")

    def _asked(self, case: Case, prompts: Prompts) -> list[float]:
        ids = prompts[0][1]
        if case.work == "batch":
            return self._rival.figures(case="batch", prompts=[each for _, each in prompts], count=case.count)
        if case.work in ("prefill", "prefill at"):
            return self._rival.figures(case="prefill", tokens=ids, depth=case.depth)
        return self._rival.figures(case="decode", tokens=ids, count=case.count)

    def _open(self, case: Case) -> None:
        sequences = case.tokens if case.work == "batch" else 1
        if self._room[1] != sequences or self._room[0] < case.context:
            self._rival.figures(case="open", **self._file, context=case.context, sequences=sequences)
            self._room = (case.context, sequences)

    def _cold(self, case: Case, ids: list[int]) -> Taken:
        started = perf_counter()
        with open_rival(self._python, LLAMA_CPP.program) as fresh:
            opened = fresh.figures(case="open", **self._file, context=case.context)
            read = fresh.figures(case="prefill", tokens=ids)
            whole = perf_counter() - started
        return whole, opened[0] + read[0]


class InProcess:
    """transformers, which only reads a prompt and writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._model: Transformers | None = None

    def measure(self, case: Case, prompts: Prompts) -> Taken:
        """As the protocol says."""
        works: dict[str, Callable[[Transformers, list[int]], Taken]] = {
            "prefill": lambda model, ids: model.prefill(ids),
            "decode": lambda model, ids: model.decode(ids, case.count),
        }
        if case.work not in works:
            raise Impossible("it is measured on plain prompts alone")
        if self._model is None:
            self._model = Transformers(self._path)
        return works[case.work](self._model, prompts[0][1])

    def close(self) -> None:
        """As the protocol says."""
        self._model = None


def _pair(figures: list[float]) -> Taken:
    seconds, spent = figures
    return seconds, spent


def _free_memory() -> int | None:
    """Bytes that processes can still take, where the system says so."""
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    except OSError:
        return None
    told = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return 1024 * int(told["MemAvailable"][0])
