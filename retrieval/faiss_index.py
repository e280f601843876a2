"""An index in a folder, and the exact search in it.

The folder holds a manifest, which says what the index was made of, and one generation: the passages as
lines of JSON and their vectors as a FAISS index. A new generation is complete on disk before the manifest
is replaced, which is the one step that makes it count; so a crash at any point leaves the old index.
Nothing here knows files of documents or how they are split.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from trackbed.retrieval.allowed import allowed
from trackbed.retrieval.errors import IndexMismatch, IndexMissing, RetrievalError
from trackbed.retrieval.types import Embedder, Passage, Query

FORMAT = 1
MANIFEST = "manifest.json"
LOCK = ".lock"
GENERATION = "generation-"
PASSAGES = "passages.jsonl"
VECTORS = "vectors.faiss"


class EmbedderRecord(BaseModel):
    """The embedder that made an index's vectors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    dimension: int

    def __str__(self) -> str:
        return f"{self.name} (sha256 {self.sha256[:12]}, {self.dimension} dimensions)"


class Manifest(BaseModel):
    """What an index is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    generation: str  # the folder that holds the data
    created: datetime
    embedder: EmbedderRecord
    documents: int
    passages: int
    chunking: dict[str, int]
    files: dict[str, str]  # sha256 by name


class FaissRetriever:
    """Finds the passages whose vectors are nearest to the question's, by comparing with every one."""

    def __init__(self, passages: Sequence[Passage], index: Any, embedder: Embedder) -> None:
        self.passages = passages
        self.index = index  # a faiss.IndexFlatIP, which has no type that mypy knows
        self.embedder = embedder

    @classmethod
    def open(cls, path: Path, embedder: Embedder) -> "FaissRetriever":
        """The index that `ingest` wrote to this folder.

        Raises IndexMissing, IndexMismatch when it was made with another embedder or in a newer format, and
        RetrievalError when a file of it is damaged.
        """
        manifest = read_manifest(path)
        made_with, in_use = manifest.embedder, _record(embedder)
        if (made_with.sha256, made_with.dimension) != (in_use.sha256, in_use.dimension):
            raise IndexMismatch(
                f"the index at {path} was made with the embedder {made_with}, and {in_use} is in use; "
                f"use the former, or make it anew: {_command(path)}"
            )
        try:
            passages, index = _read_generation(path, manifest)
        except FileNotFoundError as error:
            # An ingestion may have replaced the index since its manifest was read; then the new one is there.
            if read_manifest(path).generation != manifest.generation:
                return cls.open(path, embedder)
            raise RetrievalError(f"{error.filename} is missing; make the index anew: {_command(path)}") from None
        return cls(passages, index, embedder)

    async def search(self, query: Query, k: int) -> tuple[Passage, ...]:
        """The `k` passages most like the query, best first, with their cosine similarity as score."""
        return await asyncio.to_thread(self._search, query, k)

    def _search(self, query: Query, k: int) -> tuple[Passage, ...]:
        import faiss

        rows = [row for row, passage in enumerate(self.passages) if allowed(passage, query)]
        k = min(k, len(rows))
        if k < 1:
            return ()
        # Any: its keywords are not in the types of faiss
        parameters: Any = faiss.SearchParameters
        selected = faiss.IDSelectorBatch(np.array(rows, dtype=np.int64))
        among = None if len(rows) == len(self.passages) else parameters(sel=selected)
        best: dict[int, float] = {}
        scores, found = self.index.search(self.embedder.embed(query.texts), k, params=among)
        for score, row in zip(scores.ravel(), found.ravel(), strict=True):
            best[int(row)] = max(float(np.clip(score, -1, 1)), best.get(int(row), -1.0))
        order = sorted(best, key=lambda row: -best[row])[:k]
        return tuple(replace(self.passages[row], score=best[row]) for row in order)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the index at `path`. Raises IndexMissing, IndexMismatch, RetrievalError."""
    file = path / MANIFEST
    try:
        raw = json.loads(file.read_bytes())
        found = raw["format"]
        if found != FORMAT:
            raise IndexMismatch(
                f"the index at {path} is in format {found}, and this trackbed reads format {FORMAT}; "
                f"make it anew: {_command(path)}"
            )
        return Manifest.model_validate(raw)
    except (FileNotFoundError, NotADirectoryError):
        raise IndexMissing(f"there is no index at {path}; this makes one: {_command(path)}") from None
    except OSError as error:
        raise RetrievalError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RetrievalError(f"{file} is damaged; make the index anew: {_command(path)}") from error


def write_index(
    path: Path,
    passages: Sequence[Passage],
    vectors: NDArray[np.float32],  # [passages, dimension], of unit length
    embedder: Embedder,
    *,
    documents: int,
    chunking: Mapping[str, int],
) -> Manifest:
    """Put a new index in place of the one at `path`, if any, in one step.

    Raises RetrievalError when that folder holds other things, or cannot be written to; then what was there
    is there still.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if others := [name for name in os.listdir(path) if not _ours(name)]:
                raise RetrievalError(
                    f"{path} holds other things than an index, such as {sorted(others)[0]!r}; name another folder"
                )
            generation = path / f"{GENERATION}{secrets.token_hex(8)}"
            try:
                return _write(path, generation, passages, vectors, embedder, documents, chunking)
            finally:
                _tidy(path)
    # What faiss cannot write is a RuntimeError.
    except (OSError, RuntimeError) as error:
        raise RetrievalError(f"the index at {path} could not be written: {error}") from error


def _write(
    path: Path,
    generation: Path,
    passages: Sequence[Passage],
    vectors: NDArray[np.float32],
    embedder: Embedder,
    documents: int,
    chunking: Mapping[str, int],
) -> Manifest:
    import faiss

    generation.mkdir()
    with (generation / PASSAGES).open("w", encoding="utf-8") as lines:
        for passage in passages:
            lines.write(json.dumps(_row(passage)) + "\n")
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(generation / VECTORS))
    manifest = Manifest(
        format=FORMAT,
        generation=generation.name,
        created=datetime.now(UTC),
        embedder=_record(embedder),
        documents=documents,
        passages=len(passages),
        chunking=dict(chunking),
        files={name: _sha256(generation / name) for name in (PASSAGES, VECTORS)},
    )
    (generation / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    # All that the manifest speaks of is on the disk before the manifest itself counts.
    for written in (generation / PASSAGES, generation / VECTORS, generation / MANIFEST, generation, path):
        _sync(written)
    os.replace(generation / MANIFEST, path / MANIFEST)
    _sync(path)
    return manifest


def _read_generation(path: Path, manifest: Manifest) -> tuple[list[Passage], Any]:
    import faiss

    generation = path / manifest.generation
    for name in (PASSAGES, VECTORS):
        if _sha256(generation / name) != manifest.files.get(name):
            raise RetrievalError(f"{generation / name} is damaged; make the index anew: {_command(path)}")
    try:
        with (generation / PASSAGES).open(encoding="utf-8") as lines:
            passages = [_passage(json.loads(line)) for line in lines]
        index = faiss.read_index(str(generation / VECTORS))
    except (ValueError, TypeError, RuntimeError) as error:
        raise RetrievalError(f"{generation} does not hold an index; make it anew: {_command(path)}") from error
    if (index.d, index.ntotal, len(passages)) != (manifest.embedder.dimension, manifest.passages, manifest.passages):
        raise RetrievalError(
            f"{generation} holds other counts than its manifest; make the index anew: {_command(path)}"
        )
    return passages, index


def _tidy(path: Path) -> None:
    """Remove the generations that do not count: the one before, and what a crash has left."""
    with contextlib.suppress(RetrievalError):
        current = read_manifest(path).generation
        for folder in path.glob(f"{GENERATION}*"):
            if folder.name != current:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time; the next one waits. A process that dies gives the lock back."""
    with (path / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _ours(name: str) -> bool:
    return name == MANIFEST or name.startswith((".", GENERATION))


def _record(embedder: Embedder) -> EmbedderRecord:
    return EmbedderRecord(name=embedder.name, sha256=embedder.sha256, dimension=embedder.dimension)


def _row(passage: Passage) -> dict[str, Any]:
    """A passage as JSON values. Its score belongs to a search, not to the index."""
    return {
        "text": passage.text,
        "source": passage.source,
        "start": passage.start,
        "end": passage.end,
        "heading": passage.heading,
        "page": passage.page,
        "metadata": dict(passage.metadata),
    }


def _passage(row: dict[str, Any]) -> Passage:
    said = {key: tuple(value) if isinstance(value, list) else value for key, value in row["metadata"].items()}
    return Passage(**{**row, "metadata": said})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _command(path: Path) -> str:
    return f"`trackbed ingest PATHS --to {path}`"
