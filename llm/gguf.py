"""Read GGUF files: metadata, and where each tensor's bytes are. Nothing is copied, and nothing is believed.

Every count, length and offset is checked against the file's size before it is used, so a damaged file is an
error that names the field. Layout: the GGUF specification, versions 2 and 3, little-endian
(ggml/docs/gguf.md in ggml-org/ggml). This file knows nothing of models.
"""

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from trackbed.llm.errors import ModelLoadError, UnknownQuant
from trackbed.llm.mapped import MappedTensor, check_apart, map_file

Value = str | int | float | bool | list["Value"]


class Kind(NamedTuple):
    """How a tensor is stored: `values` weights take `size` bytes."""

    name: str
    values: int
    size: int


# By GGUF's number. The list is longer than what can be run, so that an error can name what it found.
KINDS: Final = {
    0: Kind("F32", 1, 4),
    1: Kind("F16", 1, 2),
    2: Kind("Q4_0", 32, 18),
    3: Kind("Q4_1", 32, 20),
    6: Kind("Q5_0", 32, 22),
    7: Kind("Q5_1", 32, 24),
    8: Kind("Q8_0", 32, 34),
    10: Kind("Q2_K", 256, 84),
    11: Kind("Q3_K", 256, 110),
    12: Kind("Q4_K", 256, 144),
    13: Kind("Q5_K", 256, 176),
    14: Kind("Q6_K", 256, 210),
    20: Kind("IQ4_NL", 32, 18),
    30: Kind("BF16", 1, 2),
}
SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
BOOL, STRING, ARRAY = 7, 8, 9
MAX_DIMENSIONS = 4
MAX_NAME = 65535  # bytes of a name, by the specification
MAX_ITEMS = 1 << 24  # of an array: far more than any vocabulary, and no more memory than that takes
MAX_DEPTH = 4  # of arrays in arrays
MAX_ALIGNMENT = 1 << 20


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A file's metadata and tensors, those of its other shards among them. Files stay mapped as long as this lives."""

    path: Path
    metadata: Mapping[str, Value]
    tensors: Mapping[str, MappedTensor]

    def data(self, name: str) -> memoryview:
        """A tensor's bytes, as they are in the file; read-only and not copied."""
        return self.tensors[name].data()


def read_gguf(path: Path) -> GgufFile:
    """The file's contents; of a model in shards those of all of them, by the path of the first.

    Raises ModelLoadError, UnknownQuant. Shards are named and numbered as llama.cpp's gguf-split does it:
    model-00001-of-00003.gguf has `split.no` 0.
    """
    file = _read_one(path)
    count = _whole(file, "split.count", 1)
    if count <= 1:
        return file
    number, ending = _whole(file, "split.no", 0), f"-{1:05d}-of-{count:05d}.gguf"
    if number != 0 or not path.name.endswith(ending):
        raise ModelLoadError(f"{path}: split.no: it is {number} of {count}; open the first shard, named ...{ending}")
    tensors = dict(file.tensors)
    for n in range(1, count):
        shard = _read_one(path.with_name(f"{path.name.removesuffix(ending)}-{n + 1:05d}-of-{count:05d}.gguf"))
        for key, expected in (("split.no", n), ("split.count", count)):
            if (found := _whole(shard, key, -1)) != expected:
                raise ModelLoadError(f"{shard.path}: {key}: it is {found}; expected is {expected}")
        if twice := tensors.keys() & shard.tensors.keys():
            raise ModelLoadError(f"{shard.path}: {min(twice)}: it stands in another shard too")
        tensors |= shard.tensors
    if (total := _whole(file, "split.tensors.count", len(tensors))) != len(tensors):
        raise ModelLoadError(f"{path}: split.tensors.count: it is {total}, and the shards have {len(tensors)} tensors")
    return GgufFile(path, file.metadata, tensors)


def _whole(file: GgufFile, key: str, default: int) -> int:
    value = file.metadata.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelLoadError(f"{file.path}: {key}: it is {value!r}; a whole number was expected")
    return value


def _read_one(path: Path) -> GgufFile:
    reader = _Reader(path, map_file(path))
    if (magic := reader.take(4, "magic")) != b"GGUF":
        raise reader.wrong("magic", f"it is {magic!r}, not b'GGUF': this is no GGUF file")
    version = reader.integer("I", "version")
    if version not in (2, 3):
        raise reader.wrong("version", f"it is {version}; versions 2 and 3 are read")
    tensor_count = reader.integer("Q", "tensor count")
    key_count = reader.integer("Q", "metadata count")

    metadata: dict[str, Value] = {}
    for index in range(reader.plausible(key_count, 12, "metadata count")):
        key = reader.name(f"name of metadata {index}")
        if key in metadata:
            raise reader.wrong(key, "it stands twice")
        metadata[key] = reader.value(reader.integer("I", key), key, MAX_DEPTH)

    infos = [reader.tensor_info(i) for i in range(reader.plausible(tensor_count, 24, "tensor count"))]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise reader.wrong("general.alignment", f"it is {alignment!r}, not a power of two")
    start = -(-reader.at // alignment) * alignment
    tensors: dict[str, MappedTensor] = {}
    for info in infos:
        if info.name in tensors:
            raise reader.wrong(info.name, "it stands twice")
        tensors[info.name] = reader.placed(info, start, alignment)
    check_apart(tensors.values())
    return GgufFile(path, metadata, tensors)


class _Info(NamedTuple):
    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


class _Reader:
    """Walks the header, and never past the end of the file."""

    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        self.path = path
        self.mapped = mapped
        self.size = len(mapped)
        self.at = 0

    def wrong(self, field: str, words: str) -> ModelLoadError:
        return ModelLoadError(f"{self.path}: {field}: {words}")

    def take(self, count: int, field: str) -> bytes:
        if count > self.size - self.at:
            left = self.size - self.at
            raise self.wrong(field, f"needs {count} bytes, and the file has {left} more: it is truncated or damaged")
        self.at += count
        return self.mapped[self.at - count : self.at]

    def integer(self, code: str, field: str) -> int:
        (value,) = struct.unpack(f"<{code}", self.take(struct.calcsize(code), field))
        return int(value)

    def plausible(self, count: int, least: int, field: str) -> int:
        """The count, if so many things of at least `least` bytes can follow."""
        if count * least > self.size - self.at:
            raise self.wrong(field, f"it is {count}, more than the file of {self.size} bytes can hold")
        return count

    def string(self, field: str) -> str:
        raw = self.take(self.plausible(self.integer("Q", field), 1, field), field)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.wrong(field, "it is not UTF-8") from None

    def strings(self, count: int, field: str) -> list["Value"]:
        """So many strings: a vocabulary has a hundred thousand, so they are walked in one loop."""
        unpack, mapped, at, last = struct.Struct("<Q").unpack_from, self.mapped, self.at, self.size - 8
        raw = []
        for _ in range(count):
            if at > last or (length := unpack(mapped, at)[0]) > last - at:
                self.at = at
                self.string(field)  # which says what is wrong
            raw.append(mapped[at + 8 : at + 8 + length])
            at += 8 + length
        self.at = at
        try:
            return [string.decode() for string in raw]
        except UnicodeDecodeError:
            raise self.wrong(field, "it is not UTF-8") from None

    def name(self, field: str) -> str:
        """A string that can stand in an error."""
        name = self.string(field)
        if not name.isprintable() or not 0 < len(name) <= MAX_NAME:
            raise self.wrong(field, "it is no name")
        return name

    def value(self, kind: int, field: str, depth: int) -> Value:
        if kind in SCALARS:
            code = SCALARS[kind]
            (value,) = struct.unpack(f"<{code}", self.take(struct.calcsize(code), field))
            return value  # type: ignore[no-any-return]  # struct gives int or float
        if kind == BOOL:
            return self.take(1, field) != b"\0"
        if kind == STRING:
            return self.string(field)
        if kind != ARRAY or depth == 0:
            raise self.wrong(field, f"its type is {kind}, which GGUF does not have" if depth else "it nests too deep")
        inner = self.integer("I", field)
        count = self.integer("Q", field)
        if count > MAX_ITEMS:
            raise self.wrong(field, f"it has {count} items; at most {MAX_ITEMS} are read")
        if inner in SCALARS:
            code = SCALARS[inner]
            width = struct.calcsize(code)
            return list(struct.unpack(f"<{count}{code}", self.take(self.plausible(count, width, field) * width, field)))
        if inner == STRING:
            return self.strings(self.plausible(count, 8, field), field)
        least = {BOOL: 1, ARRAY: 12}.get(inner, 1)
        return [self.value(inner, field, depth - 1) for _ in range(self.plausible(count, least, field))]

    def tensor_info(self, index: int) -> _Info:
        name = self.name(f"name of tensor {index}")
        dimensions = self.integer("I", name)
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self.wrong(name, f"it has {dimensions} dimensions; 1 to {MAX_DIMENSIONS} are possible")
        sizes = [self.integer("Q", name) for _ in range(dimensions)]
        return _Info(name, tuple(reversed(sizes)), self.integer("I", name), self.integer("Q", name))

    def placed(self, info: _Info, start: int, alignment: int) -> MappedTensor:
        if info.kind not in KINDS:
            raise UnknownQuant(f"{self.path}: {info.name}: stored as type {info.kind}, which is not known")
        kind = KINDS[info.kind]
        count = math.prod(info.shape)
        if count == 0 or info.shape[-1] % kind.values:
            raise self.wrong(info.name, f"its shape {info.shape} does not fit {kind.name}, in blocks of {kind.values}")
        size = count // kind.values * kind.size
        if info.offset % alignment:
            raise self.wrong(info.name, f"its offset {info.offset} is no multiple of {alignment}")
        if start + info.offset + size > self.size:
            raise self.wrong(
                info.name,
                f"its {size} bytes end at byte {start + info.offset + size}, and the file has {self.size}: "
                "it is truncated or damaged",
            )
        return MappedTensor(self.path, info.name, kind.name, info.shape, start + info.offset, size, self.mapped)
