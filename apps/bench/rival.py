"""The rival in a process of its own, with the Python that has it, asked by lines of JSON so that rounds alternate.

This file finds that Python and talks to it. It knows nothing of what is measured.
"""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any


@dataclass(frozen=True, slots=True)
class Package:
    """A rival: how its package and its module are called, what runs it, and which benchmark asks for it."""

    name: str
    version: str  # that the benchmark was written for
    module: str
    program: Path  # of ours; it answers in the rival's process
    benchmark: str
    build: str = ""  # the environment that its installation needs

    @property
    def missing(self) -> str:
        """What is said where no Python has it."""
        return (
            f"{self.name} {self.version} is not in this environment, so its column is empty. To have it in one of its "
            f"own: `python3.11 -m venv rival && {self.build}rival/bin/pip install {self.name}=={self.version}`, then "
            f"`trackbed bench {self.benchmark} --rival-python rival/bin/python` (or TRACKBED_BENCH_PYTHON)"
        )


HERE = Path(__file__).parent
NEMO = Package("nemoguardrails", "0.24.1", "nemoguardrails", HERE / "nemo.py", "rails")
LLAMA_CPP = Package(
    "llama-cpp-python", "0.3.36", "llama_cpp", HERE / "llama_cpp_rival.py", "runtime", "CMAKE_ARGS=-DGGML_NATIVE=on "
)
# No library of its environment may report usage or fetch models, and none sees this one's packages.
QUIET = {
    "DO_NOT_TRACK": "1",
    "NEMO_GUARDRAILS_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OPENAI_API_KEY": "none",
    "PATH": "/usr/bin:/bin",
}


class RivalFailed(Exception):
    """The rival cannot be measured."""


class Rival:
    """The other end of the pipe."""

    def __init__(self, process: "subprocess.Popen[str]", errors: IO[str]) -> None:
        self.process = process
        self.errors = errors
        self.versions: dict[str, str] = self._read()

    def figures(self, **request: object) -> list[float]:
        """The figures that are asked for. Raises RivalFailed with the reason."""
        return [float(value) for value in self._ask(request)]

    def texts(self, **request: object) -> list[str]:
        """The texts that are asked for. Raises RivalFailed with the reason."""
        return [str(text) for text in self._ask(request)]

    def _ask(self, request: Mapping[str, object]) -> Any:  # Any: a JSON value
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise RivalFailed(self._last_words()) from None
        answer = self._read()
        if "error" in answer:
            raise RivalFailed(answer["error"])
        return answer["values"]

    def _read(self) -> Any:  # Any: a JSON value
        assert self.process.stdout
        if not (line := self.process.stdout.readline()):
            raise RivalFailed(self._last_words())
        return json.loads(line)

    def _last_words(self) -> str:
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        return lines[-1] if lines else "the rival's process ended"


def find_python(asked: Path | None, package: Package) -> Path | None:
    """The Python to run the rival with: the one asked for, else this one where it has the rival, else none."""
    if asked:
        return asked
    return Path(sys.executable) if importlib.util.find_spec(package.module) else None


@contextmanager
def open_rival(python: Path, program: Path, given: object = None) -> Iterator[Rival]:
    """Start the program with what it is given, a JSON value; end it with the block. Raises RivalFailed."""
    with TemporaryFile("w+", encoding="utf-8") as errors:
        try:
            process = subprocess.Popen(  # noqa: S603  the program is ours, and the Python is the user's choice
                [str(python), "-I", str(program), json.dumps(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=QUIET,
            )
        except OSError as error:
            raise RivalFailed(f"{python}: {error.strerror}") from None
        with process:
            try:
                yield Rival(process, errors)
            finally:
                process.kill()
                assert process.stdin
                with suppress(BrokenPipeError):  # what it has not read is lost, and nobody misses it
                    process.stdin.close()


def import_seconds(python: Path, statement: str, first: str) -> tuple[float, float]:
    """How long an import takes in a fresh process, and then the first use."""
    lines = ["from time import perf_counter as now", "times = [now()]", statement, "times.append(now())"]
    code = "\n".join([*lines, first, "times.append(now())", "print(times[1] - times[0], times[2] - times[1])"])
    done = subprocess.run(  # noqa: S603  as above
        [str(python), "-I", "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, env=QUIET
    )
    imported, used = done.stdout.splitlines()[-1].split()
    return float(imported), float(used)
