"""Which files there are to read, and beside each the sidecar files that describe it.

A sidecar is called as what it describes, with `.meta.yaml` at the end: handbook.pdf.meta.yaml, or handbook.meta.yaml.
It may say who may read a document, so none is overlooked: not for the case of its letters, not for a link, and one
that describes nothing is named. Links lead nowhere outside the folder. Nothing here opens a file.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from trackbed.retrieval.errors import DocumentUnreadable

SIDECARS = (".meta.yaml", ".meta.yml")


class File(NamedTuple):
    """A file to read, and what describes it: one sidecar, or none; of more it is open which counts."""

    path: Path
    sidecars: tuple[Path, ...]
    source: str  # its path inside the folder, or its name


def files(root: Path) -> Iterator[File | DocumentUnreadable]:
    """The files at and under `root`, in sorted order."""
    if root.is_dir():
        yield from _walk(root, root)
        return
    try:
        beside = _Beside.of(root.parent)
    except OSError as error:
        why = f"its folder cannot be searched for a sidecar: {error.strerror or error}"
        yield DocumentUnreadable(f"{root}: {why}", root.name)
        return
    yield from _found(root, beside, root.parent)


def _walk(folder: Path, root: Path) -> Iterator[File | DocumentUnreadable]:
    """The files under a folder. `root` is what links must stay inside of."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        beside = _Beside.of(folder)
    except OSError as error:
        yield DocumentUnreadable(f"{folder}: {error.strerror or error}")
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        found = folder / entry.name
        if entry.is_symlink():
            if not found.resolve().is_relative_to(root.resolve()):
                why = "a link that leads out of the folder is not followed"
                yield DocumentUnreadable(f"{found}: {why}", found.relative_to(root).as_posix())
                continue
            if not found.is_file():  # a folder inside is walked under its own name
                continue
        elif entry.is_dir():
            yield from _walk(found, root)
            continue
        yield from _found(found, beside, root)


class _Beside(NamedTuple):
    """The sidecars of a folder by what they describe, and all that a sidecar there may describe: its files.

    Case counts for nothing, so that none is overlooked. A folder is not described by a sidecar.
    """

    sidecars: Mapping[str, Sequence[Path]]
    files: frozenset[str]

    @classmethod
    def of(cls, folder: Path) -> "_Beside":
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        sidecars: dict[str, list[Path]] = {}
        for entry in entries:
            if _is_sidecar(entry.name):
                sidecars.setdefault(_described(entry.name), []).append(folder / entry.name)
        names = [entry.name for entry in entries if not entry.is_dir() and not _is_sidecar(entry.name)]
        return cls(sidecars, frozenset(called for name in names for called in _called(name)))

    def describing(self, name: str) -> list[Path]:
        return [path for called in dict.fromkeys(_called(name)) for path in self.sidecars.get(called, ())]


def _found(path: Path, beside: _Beside, root: Path) -> Iterator[File | DocumentUnreadable]:
    """A file, save for a sidecar; but one that describes no file is named."""
    if not _is_sidecar(path.name):
        yield _file(path, beside, root)
    elif _described(path.name) not in beside.files:
        why = f"describes no file beside it; it is called as that file, handbook.pdf{SIDECARS[0]}"
        yield DocumentUnreadable(f"{path}: {why}", path.relative_to(root).as_posix())


def _file(path: Path, beside: _Beside, root: Path) -> File | DocumentUnreadable:
    """The file with its sidecars: those beside it, and those beside what it is a link to."""
    source = path.relative_to(root).as_posix()
    found = beside.describing(path.name)
    if path.is_symlink():
        target = path.resolve()
        try:
            found += _Beside.of(target.parent).describing(target.name)
        except OSError as error:
            why = f"{target.parent} cannot be searched for a sidecar: {error.strerror or error}"
            return DocumentUnreadable(f"{path}: {why}", source)
    if any(not sidecar.resolve().is_relative_to(root.resolve()) for sidecar in found if sidecar.is_symlink()):
        why = "its sidecar is a link that leads out of the folder, which is not followed"
        return DocumentUnreadable(f"{path}: {why}", source)
    return File(path, tuple({sidecar.resolve(): sidecar for sidecar in found}.values()), source)


def _is_sidecar(name: str) -> bool:
    return name.casefold().endswith(SIDECARS)


def _described(sidecar: str) -> str:
    return sidecar.casefold().removesuffix(".yaml").removesuffix(".yml").removesuffix(".meta")


def _called(name: str) -> tuple[str, str]:
    """What a sidecar may call a file: handbook.pdf, and handbook."""
    return name.casefold(), Path(name).stem.casefold()
