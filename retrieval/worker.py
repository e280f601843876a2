"""The process that reads files of rich formats: a line of JSON in, a line of JSON out, until its input ends.

It bounds its own memory, and its processor time, so that it ends even where nobody is left to end it.
"""

import contextlib
import os
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from trackbed.retrieval.errors import FormatError
from trackbed.retrieval.types import Document

MEMORY = 3 * 2**30  # bytes beside what it begins with
SECONDS = 300  # of processor time for one file


class Job(BaseModel):
    """A file to read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str
    source: str


class Reply(BaseModel):
    """Its document, or what is wrong with it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    document: Document | None = None
    error: str = ""


def main() -> None:
    """Answer each line of the standard input on the standard output, which nothing else may write to."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _bound_memory()
    for line in sys.stdin.buffer:
        answers.write(_reply(Job.model_validate_json(line)).model_dump_json().encode() + b"\n")
        answers.flush()


def _reply(job: Job) -> Reply:
    from trackbed.retrieval.load import read_content

    _bound_time()
    try:
        return Reply(document=read_content(Path(job.path), job.source))
    except FormatError as error:
        return Reply(error=str(error))
    except MemoryError:
        return Reply(error=f"needs more than {MEMORY} bytes of memory; split it")
    except RecursionError:
        return Reply(error="nested too deeply")
    except OSError as error:
        return Reply(error=error.strerror or str(error))
    except Exception as error:  # noqa: BLE001  # a file that a library was not written for is named like any other
        return Reply(error=f"cannot be read ({type(error).__name__})")


def _bound_memory() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # there are systems without either
        import resource

        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _bound_time() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + SECONDS, most))


if __name__ == "__main__":
    main()
