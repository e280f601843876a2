"""The manifest of an index: what it is made of, file by file, with the digest of each.

A folder is an index because of its manifest, and holds what the manifest names and nothing else. Replacing it is
the one step that makes a new generation count. This file knows names, sizes and digests, and not what is in the files.
"""

import hashlib
import json
import os
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from trackbed.retrieval.errors import IndexMismatch, IndexMissing, RetrievalError
from trackbed.retrieval.types import Embedder

FORMAT = 2
MANIFEST = "manifest.json"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EmbedderRecord(_Record):
    """The embedder that made an index's vectors."""

    name: str
    sha256: str
    dimension: int

    @classmethod
    def of(cls, embedder: "Embedder | EmbedderRecord") -> "EmbedderRecord":
        """What tells this embedder from others."""
        return cls(name=embedder.name, sha256=embedder.sha256, dimension=embedder.dimension)

    def same(self, other: "EmbedderRecord") -> bool:
        """Whether both give the same vectors; a name is only a name."""
        return (self.sha256, self.dimension) == (other.sha256, other.dimension)

    def __str__(self) -> str:
        return f"{self.name} (sha256 {self.sha256[:12]}, {self.dimension} dimensions)"


class FileRecord(_Record):
    """A file as it was written."""

    bytes: int
    sha256: str


class ListsRecord(_Record):
    """How the vectors of a large segment are searched: the nearest of many lists."""

    kind: str  # the name that FAISS gives to such an index
    lists: int
    probes: int  # how many lists are looked at, as measured when it was made
    recall: float  # of the ten best, with so many, over some of its own vectors moved a little
    trained: int  # the rows that it was trained for


class DeletedRecord(_Record):
    """The documents of a segment that are in it no more."""

    name: str  # the file in the segment's folder: a bit for each document
    file: FileRecord
    documents: int
    rows: int


class SegmentRecord(_Record):
    """A part of an index that never changes, save that documents may be taken out of it."""

    name: str  # of its folder
    documents: int
    rows: int
    words: int  # in all rows
    terms: int  # different words
    keys: tuple[str, ...]  # of its documents' metadata
    files: dict[str, FileRecord]
    lists: ListsRecord | None = None
    deleted: DeletedRecord | None = None

    @property
    def live_documents(self) -> int:
        """The documents that are still in it."""
        return self.documents - (self.deleted.documents if self.deleted else 0)

    @property
    def live_rows(self) -> int:
        """The passages that are still in it."""
        return self.rows - (self.deleted.rows if self.deleted else 0)


class Manifest(_Record):
    """What an index is made of."""

    format: int
    generation: int  # counts the times that it was changed
    created: datetime  # this generation
    embedder: EmbedderRecord
    chunking: dict[str, int]
    segments: tuple[SegmentRecord, ...]
    sha256: str = ""  # of all the rest

    @property
    def documents(self) -> int:
        """How many documents can be found."""
        return sum(segment.live_documents for segment in self.segments)

    @property
    def passages(self) -> int:
        """How many passages can be found."""
        return sum(segment.live_rows for segment in self.segments)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the index at `path`. Raises IndexMissing, IndexMismatch, RetrievalError."""
    file = path / MANIFEST
    try:
        written = file.read_bytes()
        raw = json.loads(written)
        if raw["format"] != FORMAT:
            raise IndexMismatch(
                f"the index at {path} is in format {raw['format']}, and this trackbed reads format {FORMAT}; "
                f"make it anew: {command(path, anew=True)}"
            )
        manifest = Manifest.model_validate(raw)
    except (FileNotFoundError, NotADirectoryError):
        raise IndexMissing(f"there is no index at {path}; this makes one: {command(path)}") from None
    except OSError as error:
        raise RetrievalError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise damaged(path, file) from error
    if manifest_bytes(manifest) != written:
        raise damaged(path, file)
    return manifest


def manifest_bytes(manifest: Manifest) -> bytes:
    """A manifest as it is written, with the digest of itself."""
    text = manifest.model_copy(update={"sha256": ""}).model_dump_json(indent=2)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return (manifest.model_copy(update={"sha256": digest}).model_dump_json(indent=2) + "\n").encode()


def damaged(path: Path, file: Path) -> RetrievalError:
    """The error that names a damaged file of the index at `path`."""
    return RetrievalError(f"{file} is damaged; make the index anew: {command(path, anew=True)}")


def check_embedder(path: Path, manifest: Manifest, embedder: Embedder | EmbedderRecord) -> None:
    """Raises IndexMismatch, which names both, when another embedder made the index."""
    in_use = EmbedderRecord.of(embedder)
    if not manifest.embedder.same(in_use):
        raise IndexMismatch(
            f"the index at {path} was made with the embedder {manifest.embedder}, and {in_use} is in use; "
            f"use the former, or make it anew: {command(path, anew=True)}"
        )


def command(path: Path, *, anew: bool = False) -> str:
    """The words to type for an index at `path`."""
    return f"`trackbed ingest PATHS --to {path}{' --rebuild' if anew else ''}`"


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
