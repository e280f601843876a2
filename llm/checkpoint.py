"""A checkpoint's files become a model: GGUF, or safetensors in a folder, of any storage that QUANTS reads.

Every weight is checked by name and shape. This file knows how weights are stored; what they are for, the
model knows.
"""

import json
import mmap
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from trackbed.llm.config import ModelConfig, read_gguf_config, read_hf_config
from trackbed.llm.errors import ModelLoadError, UnknownQuant
from trackbed.llm.gguf import GgufFile, GgufTensor, read_gguf
from trackbed.llm.kernels import kernels_for
from trackbed.llm.models import MODELS
from trackbed.llm.models.llama import Llama
from trackbed.llm.stored import CacheDType, DType, Stored

FORMATS = "trackbed.formats"  # the metadata of a safetensors file that names the formats of tensors of bytes
BLOCKS = {"Q8_0": (32, 34), "Q4_1": (32, 20)}  # weights and bytes of a block
PLAIN = ("F32", "F16", "BF16")  # numbers, as safetensors calls them and GGUF too


def load_model(
    source: Path | GgufFile,
    *,
    device: str = "cpu",
    dtype: DType = "auto",
    cache_dtype: CacheDType = "auto",
    threads: int | None = None,
    kernels: ModuleType | None = None,
) -> Llama:
    """The model of a GGUF file, by its path or read already, or of a folder with config.json and safetensors files.

    With `dtype` "auto" weights stay as they are stored where the kernels of the device can; a CPU's can always.
    It runs on so many threads, or on as many as the process has cores, with the kernels of
    the device unless others are named. Raises ModelLoadError, UnknownModel,
    UnknownQuant.
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

    try:
        model = architecture(
            config,
            kernels or kernels_for(device),
            take,
            weights.rope_factors(),
            device=device,
            dtype=dtype,
            cache_dtype=cache_dtype,
            threads=threads,
        )
    except UnknownQuant as error:
        raise UnknownQuant(f"{path}: {error}") from None
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
        self.last: GgufTensor | None = None

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def read(self, name: str) -> Stored:
        tensor = self.tensors[name]
        self.last = tensor
        return Stored(tensor.kind, np.frombuffer(self.file.data(name), np.uint8), tensor.shape)

    def release(self) -> None:
        """Let go of the memory of the tensor that was read last, which is packed by now: the file has it still."""
        if self.last:
            forget(self.last.mapped, self.last.offset, self.last.size)

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
        self.tensors = dict[str, Path]()  # name -> file
        self.headers = dict[Path, dict[str, Any]]()
        self.formats = dict[str, str]()  # of tensors of bytes
        self.mapped = dict[Path, mmap.mmap]()
        self.last: tuple[Path, int, int] | None = None
        for file in _weight_files(folder):
            try:
                with safe_open(file, "np") as opened, file.open("rb") as raw:  # which checks the whole header
                    names = list(opened.keys())
                    self.mapped[file] = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
            except (SafetensorError, OSError, ValueError) as error:
                raise ModelLoadError(f"{file}: cannot be read: {error}") from None
            self.headers[file] = json.loads(self.mapped[file][8 : self._begin(file)])
            self.formats |= _read_formats(self.headers[file].get("__metadata__", {}).get(FORMATS), file)
            self.tensors |= dict.fromkeys(names, file)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the weights, whatever they are stored as."""
        shape = tuple(self.headers[self.tensors[name]][name]["shape"])
        if name in self.formats and len(shape) == 2:
            weights, size = BLOCKS[self.formats[name]]
            return shape[0], shape[1] // size * weights
        return shape

    def read(self, name: str) -> Stored:
        """A tensor's bytes, as they are in the file. Raises UnknownQuant."""
        file = self.tensors[name]
        entry = self.headers[file][name]
        kind = entry["dtype"]
        if kind == "U8" and name in self.formats:
            kind = self.formats[name]
        elif kind not in PLAIN:
            raise UnknownQuant(
                f"{file}: tensor {name}: stored as {kind}; read from safetensors are: {', '.join(PLAIN)}"
            )
        begin, end = (self._begin(file) + offset for offset in entry["data_offsets"])
        self.last = file, begin, end
        return Stored(kind, np.frombuffer(memoryview(self.mapped[file])[begin:end], np.uint8), self.shape(name))

    def release(self) -> None:
        """Let go of the memory of the tensor that was read last."""
        if self.last:
            file, begin, end = self.last
            forget(self.mapped[file], begin, end - begin)

    def rope_factors(self) -> None:
        """None: RoPE's scaling stands in config.json."""
        return

    def _begin(self, file: Path) -> int:
        """Where the weights begin: after the header's length and the header (safetensors' format)."""
        return 8 + int.from_bytes(self.mapped[file][:8], "little")


def forget(mapped: mmap.mmap, begin: int, size: int) -> None:
    """Give a part of a mapped file's memory back; it is read again from the file where somebody looks."""
    first, last = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, (begin + size) // mmap.PAGESIZE * mmap.PAGESIZE
    if hasattr(mmap, "MADV_DONTNEED") and last > first:
        mapped.madvise(mmap.MADV_DONTNEED, first, last - first)


def _read_formats(text: object, file: Path) -> dict[str, str]:
    """Which tensors are blocks, and of what format, by the metadata of a file."""
    if text is None:
        return {}
    try:
        found = json.loads(str(text))
        assert all(isinstance(name, str) and kind in BLOCKS for name, kind in found.items())
    except (ValueError, RecursionError, AttributeError, TypeError, AssertionError):
        raise ModelLoadError(f"{file}: {FORMATS}: it does not name formats of: {', '.join(BLOCKS)}") from None
    return dict(found)


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
