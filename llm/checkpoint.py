"""A checkpoint's files become a model: GGUF, or safetensors in a folder, of any storage that QUANTS reads.

Every weight is checked by name and shape. This file knows how weights are stored; what they are for, the
model knows.
"""

import json
import math
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open

from trackbed.llm.config import ModelConfig, read_gguf_config, read_hf_config
from trackbed.llm.errors import ModelLoadError, UnknownQuant
from trackbed.llm.gguf import GgufFile, read_gguf
from trackbed.llm.kernels import kernels_for
from trackbed.llm.models import MODELS
from trackbed.llm.models.llama import Llama
from trackbed.llm.quant import PLAIN, quant

DTypeName = Literal["float32", "bfloat16"]


def load_model(path: Path, *, device: str = "cpu", dtype: DTypeName = "float32") -> Llama:
    """The model of a GGUF file, or of a folder with config.json and safetensors files; weights become `dtype`.

    Raises ModelLoadError, UnknownModel, UnknownQuant.
    """
    if not path.exists():
        raise ModelLoadError(f"{path}: there is no such file or folder")
    source = _Safetensors(path) if path.is_dir() else _Gguf(read_gguf(path))
    config, used = source.config, set[str]()
    architecture: type[Llama] = resolve_name(MODELS[config.architecture])

    def take(name: str, layer: int, shape: tuple[int, ...]) -> torch.Tensor:
        theirs = architecture.names[name][source.column].format(i=layer)
        used.add(theirs)
        if theirs not in source.tensors:
            raise ModelLoadError(f"{path}: tensor {theirs} is missing")
        if (found := source.shape(theirs)) != shape:
            raise ModelLoadError(f"{path}: tensor {theirs} is {list(found)}; its config expects {list(shape)}")
        weights = source.read(theirs)
        if name in ("query", "key"):
            weights = source.in_order(weights)
        return weights.to(device, getattr(torch, dtype))

    model = architecture(config, kernels_for(device), take, source.rope_factors())
    if extra := sorted(name for name in set(source.tensors) - used if not _says_nothing_new(name, config)):
        raise ModelLoadError(f"{path}: {len(extra)} tensors that a {config.architecture} does not have: {extra[0]}")
    return model


class _Gguf:
    """Weights in a GGUF file."""

    column = 1  # of an architecture's names

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.config = read_gguf_config(file)
        self.tensors = file.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def read(self, name: str) -> torch.Tensor:
        tensor = self.tensors[name]
        # A copy, since a tensor can be written to, and the map of the file cannot.
        raw = torch.frombuffer(bytearray(self.file.data(name)), dtype=torch.uint8)
        if tensor.kind in PLAIN:
            return raw.view(PLAIN[tensor.kind]).view(tensor.shape)
        try:
            return quant(tensor.kind).unpack(raw.view(math.prod(tensor.shape[:-1]), -1)).view(tensor.shape)
        except UnknownQuant as error:
            raise UnknownQuant(f"{self.file.path}: tensor {name}: {error}") from None

    def in_order(self, weights: torch.Tensor) -> torch.Tensor:
        """Query or key rows as the model wants them: llama.cpp interleaves the two halves of each head."""
        pairs = weights.view(-1, self.config.head_dim // 2, 2, weights.shape[1])
        return pairs.transpose(1, 2).reshape(weights.shape)

    def rope_factors(self) -> torch.Tensor | None:
        """Llama 3.1's scaling, which GGUF files hold as a divisor per frequency."""
        name, expected = "rope_freqs.weight", (self.config.head_dim // 2,)
        if name not in self.tensors:
            return None
        if (found := self.shape(name)) != expected:
            raise ModelLoadError(f"{self.file.path}: tensor {name} is {list(found)}; expected is {list(expected)}")
        return self.read(name).float()


class _Safetensors:
    """Weights in the safetensors files of a folder: what `_Gguf` says of its file, said of these."""

    column = 0

    def __init__(self, folder: Path) -> None:
        self.config = read_hf_config(folder / "config.json")
        self.tensors = dict[str, Path]()  # name -> file
        self.opened = dict[Path, Any]()  # Any: safetensors' handles have no types
        for file in _weight_files(folder):
            try:
                self.opened[file] = safe_open(file, "pt")
            except (SafetensorError, OSError) as error:
                raise ModelLoadError(f"{file}: cannot be read: {error}") from None
            self.tensors |= dict.fromkeys(self.opened[file].keys(), file)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.opened[self.tensors[name]].get_slice(name).get_shape())

    def read(self, name: str) -> torch.Tensor:
        file = self.tensors[name]
        if (kind := self.opened[file].get_slice(name).get_dtype()) not in PLAIN:
            raise UnknownQuant(
                f"{file}: tensor {name}: stored as {kind}; read from safetensors are: {', '.join(PLAIN)}"
            )
        weights: torch.Tensor = self.opened[file].get_tensor(name)
        return weights

    def in_order(self, weights: torch.Tensor) -> torch.Tensor:
        return weights

    def rope_factors(self) -> torch.Tensor | None:
        return None


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return [folder / "model.safetensors"]
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
        raise ModelLoadError(f"{index}: cannot be read: {type(error).__name__}: {error}") from None
    if foreign := [shard for shard in shards if not isinstance(shard, str) or Path(shard).name != shard]:
        raise ModelLoadError(f"{index}: {foreign[0]!r} is not a file of this folder")
    return [folder / shard for shard in sorted(shards)]


def _says_nothing_new(name: str, config: ModelConfig) -> bool:
    """RoPE's frequencies, and a tied head that is stored all the same."""
    return name.endswith(("rotary_emb.inv_freq", "rope_freqs.weight")) or (config.tied and name == "lm_head.weight")
