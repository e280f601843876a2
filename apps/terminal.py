"""What commands write: results on standard output or to a file, all else on standard error.

Texts of users, models and documents are shown without control characters, so that none can steer the terminal.
"""

import json
import os
import secrets
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

out, err = Console(), Console(stderr=True)
Report = Callable[[str, int, int], None]  # what is being done, how much is done, of how much (0: unknown)


def say(words: str, console: Console = out) -> None:
    """Print words as they are, one line for each of theirs."""
    console.print(plain(words), markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:  # Any: a JSON value
    """Print a value for programs, in ASCII, whatever the terminal's encoding."""
    print(json.dumps(value, indent=2))  # noqa: T201  rich would wrap it


def write_whole(file: Path, text: str) -> None:
    """Write a file whole or not at all, so that who reads it meanwhile finds the old one. Raises OSError."""
    part = file.with_name(f".{file.name}-{secrets.token_hex(8)}")
    try:
        with part.open("x", encoding="utf-8") as opened:
            opened.write(text)
        os.replace(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def plain(text: str) -> str:
    r"""The text without control characters other than line breaks and tabs.

    >>> plain("a\x1b[2Jb\n")
    'a[2Jb\n'
    """
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def whole(text: str) -> str:
    r"""An argument of the command line as valid text: bytes that are no UTF-8 become marks of replacement.

    >>> whole("caf\udce9")
    'caf\ufffd'
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@contextmanager
def progress_bar(*, hidden: bool = False) -> Iterator[Report]:
    """A bar for the step that is being done, on standard error; nothing where that is no terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=hidden or not err.is_terminal) as bar:
        task = bar.add_task("", total=None, visible=False)

        def report(step: str, done: int, total: int) -> None:
            bar.update(task, description=step, completed=done, total=total or None, visible=True)

        yield report
