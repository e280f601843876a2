"""What gives a logit for each label of a text: a model with an adapter of a judge in it, and the adapter's head.

An encoder's head reads the mean of a window's tokens; a decoder's reads the last token of a question about the text.
This file knows windows of tokens and logits. It knows nothing of roles, or of what a logit means.
"""

import threading
from itertools import takewhile
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from trackbed.llm.asker import Asker
from trackbed.llm.batch import BLOCK, Batch
from trackbed.llm.checkpoint import load_model
from trackbed.llm.errors import ModelLoadError
from trackbed.llm.lora import adapted, tensor, with_head
from trackbed.llm.models.bert import Bert
from trackbed.llm.safetensors_file import read_safetensors
from trackbed.llm.stored import DType
from trackbed.llm.windows import Reader, Window

Floats = npt.NDArray[np.float32]


class Shape(BaseModel):
    """What has to be known of an adapter to put it into its model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: tuple[str, ...] = Field(min_length=1)
    layers: int | None = Field(default=None, ge=1)  # of a decoder, as many as are read; None: an encoder, all of it
    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    tokens: int = Field(ge=8)  # of a window


class Classifier(Protocol):
    """A model with an adapter in it. May be used from any thread."""

    def windows(self, text: str, before: str = "") -> list[Window]:
        """All of a text, and what it answers: at least one window."""

    def logits(self, window: Window) -> Floats:
        """[labels]"""


def classifier(file: Path, base: Path, shape: Shape, dtype: DType | None, threads: int | None) -> Classifier:
    """The adapter of a file in the model that it was made for. Raises ModelLoadError where they do not fit."""
    if shape.layers:
        return Decoded(file, base, shape, shape.layers, dtype or "auto", threads)
    return Encoded(file, base, shape, dtype or "float32", threads)


class Encoded:
    """An encoder of MiniLM's kind."""

    def __init__(self, file: Path, base: Path, shape: Shape, dtype: DType, threads: int | None) -> None:
        tensors = read_safetensors(file)
        self.windows = Reader(base, shape.tokens).windows
        self.encoder = Bert(base, dtype=dtype, threads=threads, change=adapted(tensors, shape.rank, shape.alpha))
        hidden, count = self.encoder.config.hidden, len(shape.labels)
        if shape.tokens > self.encoder.config.positions:
            raise ModelLoadError(
                f"{file}: its windows have {shape.tokens} tokens; {base} reads no more than "
                f"{self.encoder.config.positions}"
            )
        self.head, self.bias = tensor(tensors, "head.weight", (count, hidden)), tensor(tensors, "head.bias", (count,))

    def logits(self, window: Window) -> Floats:
        """[labels]"""
        found: Floats = self.encoder.forward(window.ids, window.kinds).mean(0) @ self.head.T + self.bias
        return found


class Layers:
    """The first layers of a Llama with an adapter in them, one window at a time.

    What a window has in common with the one before it is read from the cache.
    """

    def __init__(self, file: Path, base: Path, shape: Shape, layers: int, dtype: DType, threads: int | None) -> None:
        tensors, count = read_safetensors(file), len(shape.labels)
        change = with_head(tensors, shape.rank, shape.alpha, layers, count, coded=dtype == "auto")
        self.model = load_model(base, dtype=dtype, threads=threads, change=change)
        self.bias = tensor(tensors, "head.bias", (count,))
        self._lock = threading.Lock()
        self._read: list[int] = []  # the tokens whose keys and values are in the cache
        self._blocks = 0
        self._cache = self.model.empty_cache(self._blocks)

    def logits(self, window: Window) -> Floats:
        """[labels]"""
        ids = window.ids
        with self._lock:
            if len(ids) > self._blocks * BLOCK:
                self._blocks, self._read = -(-len(ids) // BLOCK), []
                self._cache = self.model.empty_cache(self._blocks)
            pairs = zip(ids[:-1], self._read, strict=False)
            known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            self._read = ids[:known]  # and no more, should the pass fail
            new = ids[known:]
            batch = Batch(new, (len(new),), (len(ids),), (list(range(self._blocks)),), [len(new) - 1])
            found: Floats = self.model.forward(batch, self._cache)[0] + self.bias
            self._read = ids
        return found


class Decoded(Layers):
    """Those of a judge of messages: all questions begin with the same words."""

    def __init__(self, file: Path, base: Path, shape: Shape, layers: int, dtype: DType, threads: int | None) -> None:
        super().__init__(file, base, shape, layers, dtype, threads)
        self.windows = Asker(base, shape.tokens).windows
