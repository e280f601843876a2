"""A checkpoint's files become a model: GGUF, or safetensors in a folder, of any storage that QUANTS reads.

Every weight is checked by name and shape. This file knows how weights are stored; what they are for, the
model knows.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from pkgutil import resolve_name
from typing import Literal, Protocol

import torch
from safetensors import SafetensorError, safe_open

from trackbed.llm.config import ModelConfig, read_gguf_config, read_hf_config
from trackbed.llm.errors import ModelLoadError, UnknownModel, UnknownQuant
from trackbed.llm.gguf import GgufFile, read_gguf
from trackbed.llm.kernels import kernels_for
from trackbed.llm.models import MODELS
from trackbed.llm.models.llama import NAMES, Llama
from trackbed.llm.quant import quant

DTypeName = Literal["float32", "bfloat16"]
PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load_model(path: Path, *, device: str = "cpu", dtype: DTypeName = "float32") -> Llama:
    """The model of a GGUF file, or of a folder with config.json and safetensors files; weights become `dtype`.

    Raises ModelLoadError, UnknownModel, UnknownQuant.
    """
    if not path.exists():
        raise ModelLoadError(f"{path}: there is no such file or folder")
    source: _Source = _Safetensors(path) if path.is_dir() else _Gguf(read_gguf(path))
    config, used = source.config, set[str]()

    def take(name: str, layer: int, shape: tuple[int, ...]) -> torch.Tensor:
        theirs = NAMES[name][source.names].format(i=layer)
        used.add(theirs)
        if theirs not in source.tensors:
            raise ModelLoadError(f"{path}: tensor {theirs} is missing")
        found = source.shape(theirs)
        if found != shape:
            raise ModelLoadError(f"{path}: tensor {theirs} is {list(found)}; its config expects {list(shape)}")
        weights = source.read(theirs)
        if source.names == 1 and name in ("query", "key"):
            weights = _unpermuted(weights, config.head_dim)
        return weights.to(device, getattr(torch, dtype))

    if config.architecture not in MODELS:
        raise UnknownModel(f"{path}: architecture {config.architecture!r}; known are: {', '.join(MODELS)}")
    model: Llama = resolve_name(MODELS[config.architecture])(config, kernels_for(device), take, source.rope_factors())
    if extra := sorted(name for name in set(source.tensors) - used if not _ignored(name, config)):
        raise ModelLoadError(f"{path}: {len(extra)} tensors that a {config.architecture} does not have: {extra[0]}")
    return model


class _Source(Protocol):
    """Where weights are read from."""

    names: int  # which of NAMES' columns it uses

    @property
    def config(self) -> ModelConfig: ...
    @property
    def tensors(self) -> Iterable[str]: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def read(self, name: str) -> torch.Tensor: ...
    def rope_factors(self) -> torch.Tensor | None: ...


class _Gguf:
    names = 1

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.config = read_gguf_config(file)
        self.tensors = set(file.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.file.tensors[name].shape

    def read(self, name: str) -> torch.Tensor:
        tensor = self.file.tensors[name]
        # torch wants to be told that nobody writes to a read-only map; we copy on unpacking.
        raw = torch.frombuffer(bytearray(self.file.data(name)), dtype=torch.uint8)
        if tensor.kind in PLAIN:
            return raw.view(PLAIN[tensor.kind]).view(tensor.shape)
        try:
            return quant(tensor.kind).unpack(raw.view(tensor.shape[0], -1))
        except UnknownQuant as error:
            raise UnknownQuant(f"{self.file.path}: tensor {name}: {error}") from None

    def rope_factors(self) -> torch.Tensor | None:
        """Llama 3.1's scaling, which GGUF files hold as a divisor per frequency."""
        name = "rope_freqs.weight"
        if name not in self.tensors:
            return None
        if self.shape(name) != (self.config.head_dim // 2,):
            raise ModelLoadError(f"{self.file.path}: tensor {name} is {list(self.shape(name))}")
        return self.read(name).float()


class _Safetensors:
    names = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_hf_config(folder / "config.json")
        self.tensors = dict[str, Path]()  # name -> file
        for file in self._files():
            try:
                with safe_open(file, "pt") as opened:
                    self.tensors |= dict.fromkeys(opened.keys(), file)
            except (SafetensorError, OSError) as error:
                raise ModelLoadError(f"{file}: cannot be read: {error}") from None

    def _files(self) -> list[Path]:
        index = self.folder / "model.safetensors.index.json"
        if not index.exists():
            return [self.folder / "model.safetensors"]
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelLoadError(f"{index}: cannot be read: {type(error).__name__}: {error}") from None
        if foreign := sorted(s for s in shards if not isinstance(s, str) or Path(s).name != s):
            raise ModelLoadError(f"{index}: {foreign[0]!r} is not a file of this folder")
        return [self.folder / shard for shard in sorted(shards)]

    def shape(self, name: str) -> tuple[int, ...]:
        with safe_open(self.tensors[name], "pt") as opened:
            return tuple(opened.get_slice(name).get_shape())

    def read(self, name: str) -> torch.Tensor:
        with safe_open(self.tensors[name], "pt") as opened:
            weights: torch.Tensor = opened.get_tensor(name)
        if weights.dtype not in PLAIN.values():
            raise UnknownQuant(f"{self.tensors[name]}: tensor {name} is {weights.dtype}; read are: {', '.join(PLAIN)}")
        return weights

    def rope_factors(self) -> torch.Tensor | None:
        return None


def _unpermuted(weights: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows in Hugging Face's order: llama.cpp interleaves the two halves of each head of Q and K."""
    heads = weights.shape[0] // head_dim
    return weights.view(heads, head_dim // 2, 2, -1).transpose(1, 2).reshape(weights.shape)


def _ignored(name: str, config: ModelConfig) -> bool:
    """Tensors that say nothing new: RoPE's frequencies, and a tied head that is stored all the same."""
    return name.endswith(("rotary_emb.inv_freq", "rope_freqs.weight")) or (config.tied and name == "lm_head.weight")
