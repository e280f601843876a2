"""Files of rich formats are read in a process of their own, so that none can take the ingestion down with it.

A reader may loop, use up memory, or crash inside a library. Then its process is ended, the file is named, and the next
one is read by a new process. This file decides the bounds and the wire: a line of JSON there, one back. The process
itself is retrieval/worker.py. Nothing here knows formats.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from trackbed.retrieval.errors import FormatError
from trackbed.retrieval.types import Document

SECONDS = 900.0  # for one file on a busy machine; the worker bounds its processor time, too
MAX_REPLY = 2**28  # bytes; a text of MAX_CHARACTERS has fewer
CHUNK = 2**20
ENDINGS = {
    -signal.SIGXCPU: "takes too long to be read; split it",
    -signal.SIGKILL: "its reader was ended by the system, as one that uses too much memory is; split it",
}


class Isolated:
    """Reads files in another process, which is started when the first comes, and ended with the block."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Isolated":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def read(self, path: Path, source: str) -> Document:
        """The document. Raises FormatError with what is wrong with it, or with what became of its reader."""
        from trackbed.retrieval.worker import Job, Reply

        worker = self._worker = self._worker or _started()
        assert worker.stdin is not None
        try:
            worker.stdin.write(Job(path=str(path.absolute()), source=source).model_dump_json().encode() + b"\n")
            worker.stdin.flush()
            line = self._line(worker)
        except BaseException:  # an interruption too: what it answers later must not be taken for the next answer
            self._end()
            raise
        reply = Reply.model_validate_json(line)
        if reply.document is None:
            raise FormatError(reply.error)
        return reply.document

    def _line(self, worker: "subprocess.Popen[bytes]") -> bytes:
        """What the worker answers, in time."""
        assert worker.stdout is not None
        deadline = time.monotonic() + self._seconds
        parts: list[bytes] = []
        length = 0
        while not (parts and parts[-1].endswith(b"\n")):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([worker.stdout], [], [], left)[0]:
                raise FormatError(f"was not read within {self._seconds:g} seconds")
            part = os.read(worker.stdout.fileno(), CHUNK)
            length += len(part)
            if not part or length > MAX_REPLY:
                worker.kill()  # where it has not ended
                raise FormatError(ENDINGS.get(worker.wait(), "makes its reader crash; it may be made to do that"))
            parts.append(part)
        return b"".join(parts)

    def _end(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            with contextlib.suppress(BrokenPipeError):
                worker.communicate()


def _started() -> "subprocess.Popen[bytes]":
    # -P: a folder of documents, which may be the current one, is no place to import from.
    command = [sys.executable, "-P", "-m", "trackbed.retrieval.worker"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # noqa: S603
