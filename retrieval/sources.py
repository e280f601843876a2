"""Which documents there are to ingest: where each comes from, and a digest that changes when it has to be read anew.

A document of a root, which is a folder or file that was named, is found again by its source and that root. This file
decides what counts as the same, as taken and as gone. It reads no formats, and knows nothing of passages or indexes.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from trackbed.retrieval.errors import DocumentUnreadable
from trackbed.retrieval.files import File, files
from trackbed.retrieval.isolated import Isolated
from trackbed.retrieval.load import ISOLATED, MAX_BYTES, read, read_content
from trackbed.retrieval.types import Document, Known

# Their own text says who may read them, so one that cannot be read leaves that open.
MARKED = frozenset({".md", ".markdown", ".txt", ".rst", ".html", ".htm"})


@dataclass(frozen=True, slots=True)
class Found:
    """A document that is there."""

    source: str
    root: str  # absolute; empty for one that is no file
    digest: str  # of all that it is made of, unread
    read: Callable[[], Document]  # raises DocumentUnreadable
    plain: bool = True  # whether nothing but its metadata in an index says who may read it
    file: File | None = None  # what it is read from, where it is one


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What is not ingested, and why."""

    why: str  # names it
    source: str = ""  # of the document that it would be, where it would be one


def find(paths: Sequence[Path], known: Mapping[str, Known]) -> Iterator[Found | LeftOut]:
    """The documents of these files and folders, each once.

    One that another root, which is still there, already has under its name is left out.
    """
    roots = roots_of(paths)
    seen: set[Path] = set()
    taken: dict[str, str] = {}
    with Isolated() as isolated:
        for path, root in zip(paths, roots, strict=True):
            for file in files(path):
                if isinstance(file, DocumentUnreadable):
                    yield LeftOut(str(file), file.source)
                    continue
                resolved = file.path.resolve()
                if resolved in seen:
                    continue
                seen.add(resolved)
                if owner := taken.get(file.source) or _owner(file.source, roots, known):
                    yield LeftOut(
                        f"{file.path}: another document is called {file.source!r}, that of {owner}; ingest the folder "
                        "above both, or delete that one first"
                    )
                    continue
                taken[file.source] = root
                content = isolated.read if file.path.suffix.lower() in ISOLATED else read_content
                yield Found(file.source, root, _digest(file), partial(read, file, content), _plain(file), file)


def _owner(source: str, roots: Sequence[str], known: Mapping[str, Known]) -> str:
    """The root that has a document of this name, where that is another one and the document is still there."""
    before = known.get(source)
    if before is None or before.root in ("", *roots) or gone(source, before.root):
        return ""
    return before.root


def _plain(file: File) -> bool:
    """Whether nothing in the file or beside it can say who may read it."""
    return not file.sidecars and file.path.suffix.lower() not in MARKED


def _digest(file: File) -> str:
    """Of a file's bytes and those of its sidecars; empty where they cannot be read, as `read` will tell."""
    digest = hashlib.sha256()
    try:
        for path in (file.path, *file.sidecars):
            # What is no plain file might never end.
            if not path.is_file() or path.stat().st_size > MAX_BYTES:
                return ""
            content = path.read_bytes()
            digest.update(f"{path.name}\0{len(content)}\0".encode("utf-8", "surrogateescape") + content)
    except OSError:
        return ""
    return digest.hexdigest()


def roots_of(paths: Iterable[Path]) -> list[str]:
    """What these paths are remembered as: links in them are not followed, so that what they lead to may change."""
    return [os.path.abspath(path) for path in paths]


def gone(source: str, root: str) -> bool:
    """Whether a document is no more where it was found, or only a link; what cannot be looked at is not gone."""
    path = Path(root)
    try:
        return stat.S_ISLNK(os.lstat(path / source).st_mode) if path.is_dir() else not path.exists()
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)


def document_digest(document: Document) -> str:
    """Changes with anything of a document."""
    return hashlib.sha256(json.dumps(asdict(document), sort_keys=True, default=dict).encode()).hexdigest()
