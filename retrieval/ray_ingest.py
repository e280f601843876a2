"""Documents read, split and embedded by many processes, on this machine or on a cluster, with Ray Data.

What is here takes files to passages with their vectors, and gives them one document after the other to the ingestion
that asked, which alone decides what is needed and writes. Files are read where the work is done, so all hosts must see
them under the same path. Between processes go numbers and JSON.
"""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trackbed.retrieval.chunk import Chunking, chunk
from trackbed.retrieval.errors import DocumentUnreadable, RetrievalError
from trackbed.retrieval.files import File
from trackbed.retrieval.ingest import Made, Make, embed
from trackbed.retrieval.isolated import Isolated
from trackbed.retrieval.load import ISOLATED, read, read_content
from trackbed.retrieval.searchable import searchable
from trackbed.retrieval.sources import Found
from trackbed.retrieval.types import Embedder, Passage

FILES = 16  # that are read by one task
DOCUMENTS = 16  # that are embedded at once
STORE = 256 * 2**20  # bytes of what is under way, on this machine
Columns = dict[str, Any]  # by name an array, as Ray has a batch


@contextmanager
def on_ray(
    make_embedder: Callable[[], Embedder], chunking: Chunking, address: str = "", processors: int | None = None
) -> Iterator[Make]:
    """What makes passages and vectors on the cluster at that address, or on this machine where there is none.

    `make_embedder` is called in each process that embeds. Raises RetrievalError when Ray cannot be started.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray looks at this when it is imported, and tells nobody of its use
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters comes back as an error
    try:
        import ray
        import ray.data
    except ImportError:
        raise RetrievalError("many processes need the package ray: pip install 'trackbed[ray]'") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # A socket's path has to be short.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        own = {"num_cpus": processors, "include_dashboard": False, "object_store_memory": STORE, "_temp_dir": folder}
        try:
            ray.init(**({"address": address} if address else own), log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            where = f"the cluster at {address}" if address else "Ray on this machine"
            raise RetrievalError(f"{where} could not be reached or started: {' '.join(str(error).split())}") from error
        try:
            yield partial(_make, make_embedder, chunking)
        finally:
            ray.shutdown()


def _make(make_embedder: Callable[[], Embedder], chunking: Chunking, found: Sequence[Found]) -> Iterator[Made]:
    import ray
    import ray.data
    from ray.exceptions import RayError

    if not found:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    embedders = max(1, int(ray.cluster_resources().get("CPU", 1)) - 1)  # type: ignore[no-untyped-call]  # one is left to read
    rows = [{"place": place, "file": _written(one)} for place, one in enumerate(found)]
    made = (
        ray.data.from_items(rows, override_num_blocks=-(-len(rows) // FILES))
        .map_batches(partial(_split, chunking), batch_size=FILES)
        .map_batches(
            _Embedding,
            fn_constructor_args=(make_embedder,),
            batch_size=DOCUMENTS,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=embedders),
        )
    )
    try:
        for row in made.iter_rows():
            if row["failure"]:
                raise RetrievalError(f"nothing was written: {row['failure']}")
            passages = tuple(_passage(one) for one in json.loads(row["passages"]))
            numbers = np.frombuffer(row["vectors"], dtype=np.float32)
            vectors = numbers.reshape(len(passages), numbers.size // max(1, len(passages)))
            yield Made(found[row["place"]], passages, vectors, json.loads(row["error"]))
    except RayError as error:
        raise RetrievalError(f"nothing was written: the work on Ray failed ({type(error).__name__})") from error


def _split(chunking: Chunking, batch: Columns) -> Columns:
    """Files as passages. Runs in a task."""
    passages, errors = [], []
    with Isolated() as isolated:
        for said in batch["file"]:
            file = _file(said)
            try:
                document = read(file, isolated.read if file.path.suffix.lower() in ISOLATED else read_content)
            except DocumentUnreadable as error:
                passages.append("[]")
                errors.append(json.dumps(str(error)))
                continue
            passages.append(json.dumps([asdict(passage) for passage in chunk(document, chunking)]))
            errors.append('""')
    return {"place": batch["place"], "passages": passages, "error": errors}


class _Embedding:
    """Passages with their vectors. Lives in a process that keeps its model."""

    def __init__(self, make_embedder: Callable[[], Embedder]) -> None:
        self.embedder = make_embedder()

    def __call__(self, batch: Columns) -> Columns:
        documents = [[_passage(one) for one in json.loads(said)] for said in batch["passages"]]
        texts = [searchable(passage) for passages in documents for passage in passages]
        try:
            vectors, failure = embed(texts, self.embedder), ""
        except RetrievalError as error:  # Ray would lose its words
            vectors, failure = np.empty((len(texts), 0), dtype=np.float32), str(error)
        ends = np.cumsum([len(passages) for passages in documents])[:-1]
        vectors_of_each = [part.tobytes() for part in np.split(vectors, ends)]
        return {**batch, "vectors": vectors_of_each, "failure": [failure] * len(documents)}


def _written(found: Found) -> str:
    file = found.file
    assert file is not None
    return json.dumps([str(file.path.absolute()), [str(path.absolute()) for path in file.sidecars], file.source])


def _file(said: str) -> File:
    path, sidecars, source = json.loads(said)
    return File(Path(path), tuple(map(Path, sidecars)), source)


def _passage(said: dict[str, Any]) -> Passage:
    metadata = {key: tuple(value) if isinstance(value, list) else value for key, value in said["metadata"].items()}
    return Passage(**{**said, "metadata": metadata, "pages": tuple(said["pages"])})
