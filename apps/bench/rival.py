"""The rival in a process of its own, with the Python that has it, asked by lines of JSON so that rounds alternate.

This file finds that Python and talks to it. It knows nothing of what is measured.
"""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from trackbed.apps.bench.work import Work

NAME, VERSION = "nemoguardrails", "0.24.1"
PROGRAM = Path(__file__).with_name("nemo.py")
HOW = (
    f"{NAME} {VERSION} is not in this environment, so its column is empty. To have it in one of its own: "
    f"`python3.11 -m venv rival && rival/bin/pip install {NAME}=={VERSION}`, then "
    "`trackbed bench rails --rival-python rival/bin/python` (or TRACKBED_BENCH_PYTHON)"
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

    def measure(self, engine: str, case: str, count: int) -> list[float]:
        """The figures of one case. Raises RivalFailed with the reason."""
        return [float(value) for value in self._ask(engine=engine, case=case, count=count)]

    def texts(self, engine: str, case: str) -> list[str]:
        """What one case let out. Raises RivalFailed with the reason."""
        return [str(text) for text in self._ask(engine=engine, case=case, count=1)]

    def _ask(self, **request: object) -> Any:  # Any: a JSON value
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


def find_python(asked: Path | None) -> Path | None:
    """The Python to run the rival with: the one asked for, else this one where it has the rival, else none."""
    if asked:
        return asked
    return Path(sys.executable) if importlib.util.find_spec(NAME) else None


@contextmanager
def open_rival(python: Path, work: Work) -> Iterator[Rival]:
    """Start the rival, and end it with the block. Raises RivalFailed where it does not start."""
    with TemporaryFile("w+", encoding="utf-8") as errors:
        try:
            process = subprocess.Popen(  # noqa: S603  the program is ours, and the Python is the user's choice
                [str(python), "-I", str(PROGRAM), json.dumps(work.as_json())],
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


def import_seconds(python: Path, statement: str, first: str) -> tuple[float, float]:
    """How long an import takes in a fresh process, and then the first use."""
    lines = ["from time import perf_counter as now", "times = [now()]", statement, "times.append(now())"]
    code = "\n".join([*lines, first, "times.append(now())", "print(times[1] - times[0], times[2] - times[1])"])
    done = subprocess.run(  # noqa: S603  as above
        [str(python), "-I", "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, env=QUIET
    )
    imported, used = done.stdout.splitlines()[-1].split()
    return float(imported), float(used)
