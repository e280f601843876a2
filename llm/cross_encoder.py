"""How well texts answer a question, by a model that reads both at once: a cross-encoder (Nogueira and Cho 2019,
arXiv:1901.04085) as sentence-transformers loads it.

It knows pairs of texts and batches. It knows nothing of passages or indexes: it fits retrieval's PairScorer by shape.
"""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trackbed.llm.catalogue import locate
from trackbed.llm.errors import LLMError, ModelLoadError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder as Loaded

BATCH = 16  # pairs in one pass


class CrossEncoder:
    """A model that gives one logit for a question and a text; its sigmoid is the score.

    Making one checks the files; the model itself is loaded when first needed, which takes seconds. It may be used from
    any thread: one at a time is served. Raises UnknownModel and ModelLoadError.
    """

    def __init__(self, name: str, cache: Path) -> None:
        self.name = name
        self._folder = locate(name, cache)
        _check(self._folder)
        self._lock = threading.Lock()
        self._model: Loaded | None = None

    def score(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """How well each text answers the question, 0 to 1: [texts]. Of what is too long for it, the end is not read.

        Raises ModelLoadError, and LLMError where it gives no number.
        """
        if not texts:
            return np.empty(0, dtype=np.float32)
        asked = _encodable(question)
        with self._lock:
            if self._model is None:
                self._model = _load(self._folder)
            logits = self._model.predict(
                [(asked, _encodable(text)) for text in texts], batch_size=BATCH, show_progress_bar=False
            )
        found = np.asarray(logits, dtype=np.float64).reshape(-1)
        if len(found) != len(texts) or not np.isfinite(found).all():
            raise LLMError(f"{self.name} gives no score for some of {len(texts)} pairs")
        return (1 / (1 + np.exp(-np.clip(found, -60, 60)))).astype(np.float32)


def _check(folder: Path) -> None:
    """Raises ModelLoadError where the folder's config.json is not that of a model with one label."""
    try:
        described = json.loads((folder / "config.json").read_bytes())
        # transformers writes labels by name, and leaves out their number; two labels go without saying.
        labels = len(described["id2label"]) if "id2label" in described else int(described.get("num_labels", 2))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"{folder} is not a cross-encoder: {error!r}") from error
    if labels != 1:
        raise ModelLoadError(f"{folder} is not a cross-encoder that ranks: it has {labels} labels, and 1 is expected")


def _load(folder: Path) -> "Loaded":
    from safetensors import SafetensorError
    from sentence_transformers import CrossEncoder as Loaded
    from torch import nn
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        loaded: Loaded = Loaded(
            str(folder),
            local_files_only=True,
            activation_fn=nn.Identity(),  # some checkpoints name a sigmoid, others nothing; ours comes after
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelLoadError(f"{folder} is not a cross-encoder that sentence-transformers loads: {error}") from error
    return loaded


def _encodable(text: str) -> str:
    """The text without lone surrogates, which JSON can carry and a tokenizer cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
