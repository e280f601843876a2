"""BERT (Devlin et al. 2019, arXiv:1810.04805), the encoder of MiniLM, one text at a time.

Products and GELU are native; what is left is small, and NumPy's. Weights come from a checkpoint in safetensors as
transformers writes it; an adapter's changes (LoRA, Hu et al. 2021, arXiv:2106.09685) are added to them while loading.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trackbed.llm.errors import ModelLoadError
from trackbed.llm.kernels import cpu
from trackbed.llm.kernels.cpu import _cpu
from trackbed.llm.safetensors_file import SafetensorsFile, read_safetensors
from trackbed.llm.stored import DType, Stored

Floats = npt.NDArray[np.float32]
Change = Callable[[str, Floats], Floats]  # a weight's name and the weight -> the weight as it is to be


@dataclass(frozen=True, slots=True)
class BertConfig:
    """What a checkpoint's config.json says."""

    hidden: int
    layers: int
    heads: int
    wide: int
    positions: int
    epsilon: float

    @classmethod
    def load(cls, file: Path) -> "BertConfig":
        """Raises ModelLoadError where it describes no such encoder."""
        try:
            found: Mapping[str, Any] = json.loads(file.read_bytes())
            activation, kind = found["hidden_act"], found.get("position_embedding_type", "absolute")
            config = cls(
                hidden=int(found["hidden_size"]),
                layers=int(found["num_hidden_layers"]),
                heads=int(found["num_attention_heads"]),
                wide=int(found["intermediate_size"]),
                positions=int(found["max_position_embeddings"]),
                epsilon=float(found["layer_norm_eps"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelLoadError(f"{file} does not describe a BERT: {error!r}") from error
        if activation != "gelu" or kind != "absolute" or config.hidden % config.heads or config.wide % 32:
            raise ModelLoadError(
                f"{file}: an encoder that runs here has hidden_act gelu, absolute positions, heads that divide "
                f"hidden_size, and an intermediate_size that is a multiple of 32"
            )
        return config


@dataclass(frozen=True, slots=True)
class _Layer:
    products: tuple[tuple[_cpu.Weight, Floats], ...]  # query, key, value; output; up; down: weight and bias
    norms: tuple[tuple[Floats, Floats], ...]  # after attention, and at the end: scale and shift


class Bert:
    """An encoder with its weights packed, ready to run."""

    def __init__(
        self, folder: Path, *, dtype: DType = "float32", threads: int | None = None, change: Change | None = None
    ) -> None:
        """Loads a folder's config.json and model.safetensors. Raises ModelLoadError."""
        self.config = config = BertConfig.load(folder / "config.json")
        self.threads = threads or _cpu.cores()
        file = read_safetensors(folder / "model.safetensors")

        def dense(name: str, *shape: int) -> Floats:
            found = _floats(file, name, shape)
            return change(name, found) if change else found

        def product(name: str, rows: int, columns: int) -> tuple[_cpu.Weight, Floats]:
            weight = np.ascontiguousarray(dense(f"{name}.weight", rows, columns))
            stored = Stored("F32", weight.view(np.uint8).reshape(-1), weight.shape)
            return cpu.pack(stored, dtype, self.threads), dense(f"{name}.bias", rows)

        def norm(name: str) -> tuple[Floats, Floats]:
            return dense(f"{name}.weight", config.hidden), dense(f"{name}.bias", config.hidden)

        h, wide, embeddings = config.hidden, config.wide, "embeddings."
        words = file.tensors.get(embeddings + "word_embeddings.weight")
        self.words = dense(embeddings + "word_embeddings.weight", words.shape[0] if words else 0, h)
        self.places = dense(embeddings + "position_embeddings.weight", config.positions, h)
        self.kinds = dense(embeddings + "token_type_embeddings.weight", 2, h)
        self.first_norm = norm(embeddings + "LayerNorm")
        self.layers = []
        for i in range(config.layers):
            at = f"encoder.layer.{i}."
            products = [product(f"{at}attention.self.{name}", h, h) for name in ("query", "key", "value")]
            products += [
                product(at + "attention.output.dense", h, h),
                product(at + "intermediate.dense", wide, h),
                product(at + "output.dense", h, wide),
            ]
            norms = (norm(at + "attention.output.LayerNorm"), norm(at + "output.LayerNorm"))
            self.layers.append(_Layer(tuple(products), norms))

    def forward(self, tokens: npt.ArrayLike, kinds: npt.ArrayLike | None = None) -> Floats:
        """The last states of a text's tokens: [tokens], and which of two texts each is of -> float32 [tokens, hidden].

        Raises ValueError where there are more tokens than positions, or one that is not in the vocabulary.
        """
        ids = np.asarray(tokens, np.int64)
        if not 0 < len(ids) <= self.config.positions:
            raise ValueError(f"{len(ids)} tokens; the encoder reads 1 to {self.config.positions}")
        if ids.min() < 0 or ids.max() >= len(self.words):
            raise ValueError("a token is not in the vocabulary")
        of_kind = self.kinds[np.asarray(kinds, np.int64)] if kinds is not None else self.kinds[0]
        x = self._norm(self.words[ids] + self.places[: len(ids)] + of_kind, self.first_norm)
        for layer in self.layers:
            query, key, value, output, up, down = layer.products
            q, k, v = (self._heads(self._product(x, of)) for of in (query, key, value))
            scores = q @ k.transpose(0, 2, 1) / np.float32(math.sqrt(q.shape[2]))  # [heads, tokens, tokens]
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = (weights / weights.sum(-1, keepdims=True)) @ v
            attended = np.ascontiguousarray(mixed.transpose(1, 0, 2)).reshape(x.shape)
            x = self._norm(x + self._product(attended, output), layer.norms[0])
            wide = self._product(x, up)
            _cpu.gelu(wide)
            x = self._norm(x + self._product(wide, down), layer.norms[1])
        return x

    def _product(self, x: Floats, of: tuple[_cpu.Weight, Floats]) -> Floats:
        weight, bias = of
        out = cpu.linear(x, weight, self.threads)
        out += bias
        return out

    def _heads(self, x: Floats) -> Floats:
        """[tokens, hidden] -> [heads, tokens, hidden / heads]."""
        return x.reshape(len(x), self.config.heads, -1).transpose(1, 0, 2)

    def _norm(self, x: Floats, by: tuple[Floats, Floats]) -> Floats:
        """Layer normalisation (Ba et al. 2016, arXiv:1607.06450)."""
        centred = x - x.mean(-1, keepdims=True)
        spread = np.sqrt(np.square(centred).mean(-1, keepdims=True) + np.float32(self.config.epsilon))
        normed: Floats = centred / spread * by[0] + by[1]
        return normed


def _floats(file: SafetensorsFile, name: str, shape: tuple[int, ...]) -> Floats:
    """A tensor in float32. Raises ModelLoadError where it is missing, or of another shape or kind."""
    found = file.tensors.get(name) or file.tensors.get(f"bert.{name}")
    if found is None:
        raise ModelLoadError(f"{file.path} has no tensor {name!r}; a BERT as transformers writes it does")
    if found.shape != shape:
        raise ModelLoadError(f"{file.path}: {name} is {list(found.shape)}; expected is {list(shape)}")
    kind = str(found.kind)
    if kind not in ("F32", "F16", "BF16"):
        raise ModelLoadError(f"{file.path}: {name} is stored as {kind}; F32, F16 and BF16 are read")
    raw = np.frombuffer(found.data(), np.uint8)
    return cpu.unpack(Stored(kind, raw, shape)).reshape(shape)
