"""A checkpoint's files become a model: GGUF, or safetensors in a folder, of any storage that QUANTS reads.

Every weight is checked by name and shape. This file knows how weights are stored; what they are for, the
model knows.
"""

import json
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType

import numpy as np
import numpy.typing as npt

from trackbed.llm.config import ModelConfig, read_gguf_config, read_hf_config
from trackbed.llm.errors import ModelLoadError, UnknownQuant
from trackbed.llm.gguf import GgufFile, read_gguf
from trackbed.llm.kernels import kernels_for
from trackbed.llm.mapped import MappedTensor
from trackbed.llm.models import MODELS
from trackbed.llm.models.llama import Llama
from trackbed.llm.safetensors_file import SafetensorsFile, read_folder
from trackbed.llm.stored import CacheDType, DType, Stored, Take

FORMATS = "trackbed.formats"  # the metadata of a safetensors file that names the formats of tensors of bytes
BLOCKS = {"Q8_0": (32, 34), "Q4_1": (32, 20)}  # weights and bytes of a block
Change = Callable[[ModelConfig, Take], tuple[ModelConfig, Take]]
PLAIN = ("F32", "F16", "BF16")  # numbers, as safetensors calls them and GGUF too


def load_model(
    source: Path | GgufFile,
    *,
    device: str = "cpu",
    dtype: DType = "auto",
    cache_dtype: CacheDType = "auto",
    threads: int | None = None,
    kernels: ModuleType | None = None,
    change: Change | None = None,
) -> Llama:
    """The model of a GGUF file, by its path or read already, or of a folder with config.json and safetensors files.

    With `dtype` "auto" weights stay as they are stored where the kernels of the device can; a CPU's can always.
    It runs on so many threads, or on as many as the process has cores, with the kernels of the device unless others are
    named. `change` makes another model of it, of fewer layers perhaps, before weights are packed. Raises
    ModelLoadError, UnknownModel, UnknownQuant.
    """
    path = source if isinstance(source, Path) else source.path
    if not path.exists():
        raise ModelLoadError(f"{path}: there is no such file or folder")
    if path.is_dir():
        weights: Safetensors | _Gguf = Safetensors(path)
    else:
        weights = _Gguf(read_gguf(source) if isinstance(source, Path) else source)
    config, used = weights.config, set[str]()
    architecture: type[Llama] = resolve_name(MODELS[config.architecture])

    def take(name: str, layer: int, shape: tuple[int, ...]) -> Stored:
        theirs = architecture.names[name][weights.column].format(i=layer)
        used.add(theirs)
        if theirs not in weights.tensors:
            raise ModelLoadError(f"{path}: tensor {theirs} is missing")
        if (found := weights.shape(theirs)) != shape:
            raise ModelLoadError(f"{path}: tensor {theirs} is {list(found)}; its config expects {list(shape)}")
        weights.release()
        stored = weights.read(theirs)
        return stored._replace(interleaved=weights.interleaved) if name in ("query", "key") else stored

    given, weigh = change(config, take) if change else (config, take)
    try:
        model = architecture(
            given,
            kernels or kernels_for(device),
            weigh,
            weights.rope_factors(),
            device=device,
            dtype=dtype,
            cache_dtype=cache_dtype,
            threads=threads,
        )
    except UnknownQuant as error:
        raise UnknownQuant(f"{path}: {error}") from None
    if change:  # what it leaves out is its own business
        return model
    if extra := sorted(name for name in set(weights.tensors) - used if not _says_nothing_new(name, config)):
        raise ModelLoadError(f"{path}: {len(extra)} tensors that a {config.architecture} does not have: {extra[0]}")
    return model


class _Gguf:
    """Weights in a GGUF file."""

    column = 1  # of an architecture's names

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.config = read_gguf_config(file)
        self.tensors = file.tensors
        self.interleaved = self.config.head_dim  # llama.cpp interleaves the two halves of each head
        self.last: MappedTensor | None = None

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def read(self, name: str) -> Stored:
        tensor = self.tensors[name]
        self.last = tensor
        return Stored(tensor.kind, np.frombuffer(tensor.data(), np.uint8), tensor.shape)

    def release(self) -> None:
        """Let go of the memory of the tensor that was read last, which is packed by now: the file has it still."""
        if self.last:
            self.last.release()

    def rope_factors(self) -> npt.NDArray[np.float32] | None:
        """Llama 3.1's scaling, which GGUF files hold as a divisor per frequency."""
        name, expected = "rope_freqs.weight", (self.config.head_dim // 2,)
        if name not in self.tensors:
            return None
        if (found := self.shape(name)) != expected:
            raise ModelLoadError(f"{self.file.path}: tensor {name} is {list(found)}; expected is {list(expected)}")
        if (kind := self.tensors[name].kind) != "F32":
            raise UnknownQuant(f"{self.file.path}: tensor {name}: stored as {kind}; F32 is expected")
        return np.frombuffer(self.file.data(name), np.float32)


class Safetensors:
    """Weights in the safetensors files of a folder: what `_Gguf` says of its file, said of these.

    Raises ModelLoadError, UnknownModel.
    """

    column = 0
    interleaved = 0

    def __init__(self, folder: Path) -> None:
        self.config = read_hf_config(folder / "config.json")
        self.tensors = dict[str, MappedTensor]()
        self.formats = dict[str, str]()  # of tensors of bytes
        self.last: MappedTensor | None = None
        for file in read_folder(folder):
            self.tensors |= file.tensors
            self.formats |= _read_formats(file)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the weights, whatever they are stored as."""
        shape = self.tensors[name].shape
        if name in self.formats:
            weights, size = BLOCKS[self.formats[name]]
            return shape[0], shape[1] // size * weights
        return shape

    def read(self, name: str) -> Stored:
        """A tensor's bytes, as they are in the file. Raises UnknownQuant."""
        tensor = self.tensors[name]
        kind = self.formats.get(name, tensor.kind)
        if name not in self.formats and kind not in PLAIN:
            raise UnknownQuant(
                f"{tensor.path}: tensor {name}: stored as {kind}; read from safetensors are: {', '.join(PLAIN)}"
            )
        self.last = tensor
        return Stored(kind, np.frombuffer(tensor.data(), np.uint8), self.shape(name))

    def release(self) -> None:
        """Let go of the memory of the tensor that was read last."""
        if self.last:
            self.last.release()

    def rope_factors(self) -> None:
        """None: RoPE's scaling stands in config.json."""
        return


def _read_formats(file: SafetensorsFile) -> dict[str, str]:
    """Which tensors are blocks, and of what format, by the metadata of a file."""
    try:
        found = json.loads(file.metadata.get(FORMATS, "{}"))
        assert all(isinstance(name, str) and kind in BLOCKS for name, kind in found.items())
    except (ValueError, RecursionError, AttributeError, TypeError, AssertionError):
        raise ModelLoadError(f"{file.path}: {FORMATS}: it does not name formats of: {', '.join(BLOCKS)}") from None
    for name, kind in found.items():
        tensor = file.tensors.get(name)
        if not tensor or tensor.kind != "U8" or len(tensor.shape) != 2 or tensor.shape[1] % BLOCKS[kind][1]:
            raise ModelLoadError(
                f"{file.path}: {FORMATS}: {name[:80]!a} is no tensor of bytes (U8) in rows of whole {kind} blocks"
            )
    return dict(found)


def _says_nothing_new(name: str, config: ModelConfig) -> bool:
    """RoPE's frequencies, and a tied head that is stored all the same."""
    return name.endswith(("rotary_emb.inv_freq", "rope_freqs.weight")) or (config.tied and name == "lm_head.weight")
