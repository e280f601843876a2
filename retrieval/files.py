"""Which files there are to read, and beside each the sidecar files that describe it.

A sidecar is called as what it describes, with `.meta.yaml` at the end: handbook.pdf.meta.yaml, or handbook.meta.yaml.
It may say who may read a document, so none is overlooked: not for the case of its letters, not for a link, and one
that describes nothing is named. Links lead nowhere outside the folder. Nothing here opens a file.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        beside = _sidecars(sorted(os.listdir(root.parent)), root.parent)
    except OSError as error:
        why = f"its folder cannot be searched for a sidecar: {error.strerror or error}"
        yield DocumentUnreadable(f"{root}: {why}", root.name)
        return
    if not _is_sidecar(root.name):
        yield _file(root, beside, root.parent)
    elif not _describes(root.name, os.listdir(root.parent)):
        yield _orphan(root)


def _walk(folder: Path, root: Path) -> Iterator[File | DocumentUnreadable]:
    """The files under a folder. `root` is what links must stay inside of."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield DocumentUnreadable(f"{folder}: {error.strerror or error}")
        return
    names = [entry.name for entry in entries]
    beside = _sidecars(names, folder)
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
        if not _is_sidecar(entry.name):
            yield _file(found, beside, root)
        elif not _describes(entry.name, names):
            yield _orphan(found)


def _file(path: Path, beside: Mapping[str, Sequence[Path]], root: Path) -> File | DocumentUnreadable:
    """The file with its sidecars: those beside it, and those beside what it is a link to."""
    source = path.relative_to(root).as_posix()
    found = list(_of(path.name, beside))
    if path.is_symlink():
        target = path.resolve()
        try:
            found += _of(target.name, _sidecars(sorted(os.listdir(target.parent)), target.parent))
        except OSError as error:
            why = f"{target.parent} cannot be searched for a sidecar: {error.strerror or error}"
            return DocumentUnreadable(f"{path}: {why}", source)
    if any(not sidecar.resolve().is_relative_to(root.resolve()) for sidecar in found if sidecar.is_symlink()):
        why = "its sidecar is a link that leads out of the folder, which is not followed"
        return DocumentUnreadable(f"{path}: {why}", source)
    return File(path, tuple({sidecar.resolve(): sidecar for sidecar in found}.values()), source)


def _of(name: str, beside: Mapping[str, Sequence[Path]]) -> list[Path]:
    return [path for described in dict.fromkeys(_called(name)) for path in beside.get(described, ())]


def _sidecars(names: Iterable[str], folder: Path) -> dict[str, list[Path]]:
    """The sidecars among these names, by what they describe. Case counts for nothing, so that none is overlooked."""
    found: dict[str, list[Path]] = {}
    for name in names:
        if _is_sidecar(name):
            found.setdefault(_described(name), []).append(folder / name)
    return found


def _is_sidecar(name: str) -> bool:
    return name.casefold().endswith(SIDECARS)


def _described(sidecar: str) -> str:
    return sidecar.casefold().removesuffix(".yaml").removesuffix(".yml").removesuffix(".meta")


def _called(name: str) -> tuple[str, str]:
    """What a sidecar may call a file: handbook.pdf, and handbook."""
    return name.casefold(), Path(name).stem.casefold()


def _describes(sidecar: str, names: Iterable[str]) -> bool:
    return any(_described(sidecar) in _called(name) for name in names if not _is_sidecar(name))


def _orphan(path: Path) -> DocumentUnreadable:
    return DocumentUnreadable(
        f"{path}: describes no file beside it; it is called as that file, handbook.pdf{SIDECARS[0]}"
    )
