"""The generation of an index that a search uses: the newest that could be opened."""

import os
import threading
from pathlib import Path

from trackbed.retrieval.errors import RetrievalError
from trackbed.retrieval.index import Index
from trackbed.retrieval.manifest import MANIFEST, EmbedderRecord, check_embedder
from trackbed.retrieval.types import Embedder


class Current:
    """An index that is kept up to date while it is used.

    Before a search it costs a look at the manifest's date. A newer generation is opened by the search that sees it
    first, which is quick, since files are only mapped; the others go on with the one they have, and so do all where
    the new one cannot be opened or is of another embedder.
    """

    def __init__(self, path: Path, embedder: Embedder) -> None:
        """Open the index. Raises IndexMissing, IndexMismatch and RetrievalError."""
        self.path = path
        self._embedder = EmbedderRecord.of(embedder)
        self._opening = threading.Lock()
        self._seen = _stamp(path)
        self._index = Index.open(path)
        check_embedder(path, self._index.manifest, embedder)

    @property
    def index(self) -> Index:
        """The newest generation."""
        if (stamp := _stamp(self.path)) != self._seen and self._opening.acquire(blocking=False):
            try:
                self._seen = stamp
                newer = Index.open(self.path, self._index)
                if newer.manifest.embedder.same(self._embedder):
                    self._index = newer
            except (RetrievalError, OSError, ValueError):
                pass  # what is open serves on; the next change is looked at again
            finally:
                self._opening.release()
        return self._index


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when the manifest is replaced; nothing where there is none."""
    try:
        found = os.stat(path / MANIFEST)
    except OSError:
        return ()
    return (found.st_ino, found.st_mtime_ns, found.st_size)
