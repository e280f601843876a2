"""A pipeline that appends a line for each turn to a trace file.

The file is opened before anything else, so that one that cannot be written is found at the start. Later a turn that
cannot be recorded is a warning, and never a lost answer.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from trackbed.apps.settings import Settings, SettingsError
from trackbed.rails.ahead import Listener
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import Policy
from trackbed.rails.record import Happened, record_line
from trackbed.rails.recording import Notes, RecordedRetriever, noted, recorded
from trackbed.rails.types import Models, Reply, Stage, Trace, Turn, Verdict
from trackbed.retrieval.types import Retriever

MODE = 0o600  # of a file that is made: what was refused, and why, is its owner's to read
Warn = Callable[[str], None]


class TraceFile:
    """A file that lines are appended to, each in one write, so that lines of several programs stay whole."""

    def __init__(self, path: Path, warn: Warn) -> None:
        """Open it. Raises SettingsError where it cannot be written."""
        self.path = path
        self.warn = warn
        flags = os.O_APPEND | os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            self.descriptor = os.open(path, flags, MODE)
        except OSError as error:
            raise SettingsError(f"the setting 'trace': {path} cannot be written: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            self.close()
            raise SettingsError(f"the setting 'trace': {path} is no file")
        size = os.fstat(self.descriptor).st_size
        self.broken = size > 0 and os.pread(self.descriptor, 1, size - 1) != b"\n"  # its last line has no end

    def append(self, line: bytes) -> None:
        """Write a line, or warn that it could not be written."""
        whole = b"\n" + line if self.broken else line
        try:
            written = os.write(self.descriptor, whole)
        except OSError as error:
            self.warn(f"warning: a turn could not be recorded in {self.path}: {error.strerror}")
            return
        self.broken = written < len(whole)
        if self.broken:
            self.warn(f"warning: a turn could not be recorded whole in {self.path}: the disk may be full")

    def close(self) -> None:
        """Write no more."""
        os.close(self.descriptor)


@contextmanager
def trace_file(settings: Settings, warn: Warn) -> Iterator[TraceFile | None]:
    """The file that the settings name, if they name one. Raises SettingsError."""
    if settings.trace is None:
        yield None
        return
    file = TraceFile(settings.trace, warn)
    try:
        yield file
    finally:
        file.close()


class RecordedPipeline(Pipeline):
    """A pipeline whose turns are recorded."""

    def __init__(
        self, policy: Policy, models: Models, retriever: Retriever | None, file: TraceFile, *, full: bool
    ) -> None:
        self.file = file
        self.full = full or policy.trace == "full"
        if self.full:
            sources = {name: str(source) for name, source in policy.models.items()}
            models = recorded(models, sources, policy.drafts)
            if retriever and policy.knowledge:
                retriever = RecordedRetriever(retriever, policy.knowledge.index)
        super().__init__(policy, models, retriever)

    async def respond(self, turn: Turn, listen: Listener | None = None) -> Reply:
        """As a pipeline does."""
        at, started = datetime.now(UTC), perf_counter()
        with noted() as notes:
            try:
                reply = await super().respond(turn, listen)
            except Exception as error:
                spent = 1000 * (perf_counter() - started)
                self._record(turn, Happened(at, spent, Trace(), error=type(error).__name__), notes)
                raise
        spent = 1000 * (perf_counter() - started)
        self._record(turn, Happened(at, spent, reply.trace, reply.verdict), notes, reply.text)
        return reply

    async def judge(self, stage: Stage, turn: Turn) -> tuple[Turn, Verdict, Trace]:
        """As a pipeline does."""
        at, started = datetime.now(UTC), perf_counter()
        with noted() as notes:
            left, verdict, trace = await super().judge(stage, turn)
        spent = 1000 * (perf_counter() - started)
        self._record(turn, Happened(at, spent, trace, verdict, stage=stage), notes)
        return left, verdict, trace

    def _record(self, turn: Turn, happened: Happened, notes: Notes, reply: str = "") -> None:
        try:
            line = record_line(self.policy, turn, happened, notes if self.full else None, reply)
        except Exception as error:  # noqa: BLE001 - rails are anyone's, and so is what they say of a text
            self.file.warn(f"warning: a turn could not be recorded: {type(error).__name__}")
            return
        self.file.append(line)
