"""Texts to vectors, with a sentence-transformers model from the catalogue.

The encoder knows files, batches and threads. It knows nothing of passages or indexes: it fits
retrieval's Embedder by shape.
"""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trackbed.llm.catalogue import digest, locate
from trackbed.llm.errors import ModelLoadError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BATCH = 32  # texts in one pass; they are sorted by length first, so little of it is padding
WIDTHS = ("out_features", "word_embedding_dimension", "embedding_dimension", "hidden_size")


class Encoder:
    """A model that turns texts into vectors of unit length.

    Making one checks the files; the model itself is loaded when first needed, which takes seconds. It may
    be used from any thread: one at a time is served. Raises UnknownModel and ModelLoadError.
    """

    def __init__(self, name: str, cache: Path) -> None:
        self.name = name
        self.sha256 = digest(name, cache)
        self._folder = locate(name, cache)
        self.dimension = _dimension(self._folder)
        self._lock = threading.Lock()
        self._model: SentenceTransformer | None = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One vector a text, of unit length: [texts, dimension]. Of a text that is too long, the end is not read."""
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        with self._lock:
            if self._model is None:
                self._model = _load(self._folder)
            return self._model.encode(
                [_encodable(text) for text in texts],
                batch_size=BATCH,
                normalize_embeddings=True,
                show_progress_bar=False,
            )


def _dimension(folder: Path) -> int:
    """The length of the vectors as the model's last module that has a width says it, without loading anything."""
    try:
        listed = folder / "modules.json"
        modules = [module["path"] for module in json.loads(listed.read_bytes())] if listed.exists() else [""]
        for module in reversed(modules):
            config = folder / module / "config.json"
            described = json.loads(config.read_bytes()) if config.exists() else {}
            for key in WIDTHS:
                if isinstance(width := described.get(key), int):
                    return width
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"{folder} is not a sentence-transformers model: {error!r}") from error
    raise ModelLoadError(f"{folder} is not a sentence-transformers model: no config.json in it says a width")


def _load(folder: Path) -> "SentenceTransformer":
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return SentenceTransformer(str(folder), local_files_only=True, model_kwargs={"use_safetensors": True})
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelLoadError(f"{folder} is not a model that sentence-transformers loads: {error}") from error


def _encodable(text: str) -> str:
    """The text without lone surrogates, which JSON can carry and a tokenizer cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
