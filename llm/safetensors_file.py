"""Read safetensors files: where each tensor's bytes are. Nothing is copied, and nothing is believed.

A file is the length of its header (8 bytes, little-endian), the header in JSON, and the tensors' bytes without a gap
(the format's README, huggingface/safetensors). Whatever the safetensors library refuses is refused here, and the error
names the field. This file knows nothing of models, and needs neither PyTorch nor the library.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

from trackbed.llm.errors import ModelLoadError
from trackbed.llm.mapped import MappedTensor, check_apart, map_file

# Bits of a value (safetensors/src/tensor.rs, Dtype). The list is longer than what can be run, so that a file with
# something else beside the weights can be read, and an error can name what it found.
DTYPES: Final = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
METADATA = "__metadata__"
INDEX = "model.safetensors.index.json"
MAX_HEADER = 100_000_000  # bytes, the library's limit
MAX_NAME = 65535
MAX_DIMENSIONS = 16
MAX_SIZE = 1 << 63  # of an offset, or of all dimensions together: more than any file has


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """A file's metadata and tensors. The file stays mapped as long as this lives."""

    path: Path
    metadata: Mapping[str, str]
    tensors: Mapping[str, MappedTensor]

    def data(self, name: str) -> memoryview:
        """A tensor's bytes, as they are in the file; read-only and not copied."""
        return self.tensors[name].data()


def read_safetensors(path: Path) -> SafetensorsFile:
    """The file's contents. Raises ModelLoadError."""
    mapped = map_file(path)
    if len(mapped) < 8:
        raise _wrong(path, "header length", f"needs 8 bytes, and the file has {len(mapped)}: it is truncated")
    length = int.from_bytes(mapped[:8], "little")
    if length > min(len(mapped) - 8, MAX_HEADER):
        raise _wrong(
            path,
            "header length",
            f"it is {length}, and the file has {len(mapped) - 8} bytes more; at most {MAX_HEADER} are read: "
            "it is truncated or damaged, or no safetensors file",
        )
    header = _parse(path, "header", mapped[8 : 8 + length])
    metadata = header.pop(METADATA, None)
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _wrong(path, METADATA, "it is no object of strings")
    start, tensors = 8 + length, dict[str, MappedTensor]()
    for name, entry in header.items():
        if not name.isprintable() or not 0 < len(name) <= MAX_NAME:
            raise _wrong(path, "header", f"{name[:80]!a} is no name of a tensor")
        kind, shape, begin, end = _checked(path, name, entry)
        if start + end > len(mapped):
            raise _wrong(
                path,
                name,
                f"its bytes end at byte {start + end}, and the file has {len(mapped)}: it is truncated or damaged",
            )
        tensors[name] = MappedTensor(path, name, kind, shape, start + begin, end - begin, mapped)
    check_apart(tensors.values())
    # They are apart, and inside: so they fill the file if their sizes add up to it.
    if (used := start + sum(tensor.size for tensor in tensors.values())) != len(mapped):
        raise _wrong(path, "data_offsets", f"the tensors and the header take {used} bytes, and the file {len(mapped)}")
    return SafetensorsFile(path, metadata, tensors)


def read_folder(folder: Path) -> list[SafetensorsFile]:
    """The file of a checkpoint's folder, or the files that its index names. Raises ModelLoadError."""
    index = folder / INDEX
    if not index.exists():
        return [read_safetensors(folder / "model.safetensors")]
    field = "weight_map"
    try:
        content = index.read_bytes()
    except OSError as error:
        raise ModelLoadError(f"{index}: cannot be read: {error}") from None
    places = _parse(index, "index", content).get(field)
    if not isinstance(places, dict) or not places:
        raise _wrong(index, field, "it is no object of tensors' names and their files")
    for shard in places.values():
        if not isinstance(shard, str) or not shard.isprintable() or Path(shard).name != shard or shard in ("", ".."):
            raise _wrong(index, field, f"{ascii(shard)[:80]} is not a file of this folder")
    files = [read_safetensors(folder / shard) for shard in sorted(set(places.values()))]
    owners = dict[str, str]()
    for file in files:
        for name in file.tensors:
            if name in owners:
                raise _wrong(file.path, name, f"it stands in {owners[name]} too")
            owners[name] = file.path.name
    for name, shard in places.items():
        if owners.get(name) != shard:
            raise _wrong(index, field, f"{name[:80]!a} is not in {shard}")
    return files


def _wrong(path: Path, field: str, words: str) -> ModelLoadError:
    return ModelLoadError(f"{path}: {field}: {words}")


def _parse(path: Path, field: str, content: bytes) -> dict[str, Any]:
    """A JSON object; a key that stands twice would mean two things."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key stands twice in an object")
        return found

    def number(text: str) -> None:
        raise ValueError(f"{text} is no JSON")

    try:
        found = json.loads(content.decode(), object_pairs_hook=once, parse_constant=number)
    except (ValueError, RecursionError) as error:
        raise _wrong(path, field, f"it is no JSON in UTF-8: {error}") from None
    if not isinstance(found, dict):
        raise _wrong(path, field, "it is no JSON object")
    return found


def _checked(path: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """What the header says of a tensor: its dtype, shape, and where it begins and ends, from the header's end."""
    if not isinstance(entry, dict):
        raise _wrong(path, name, "it is no object with dtype, shape and data_offsets")
    kind, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(kind, str) or kind not in DTYPES:
        raise _wrong(path, name, f"its dtype is {ascii(kind)[:80]}; it can be: {', '.join(DTYPES)}")
    if not _are_sizes(shape) or math.prod(max(size, 1) for size in shape) >= MAX_SIZE:
        raise _wrong(path, name, f"its shape is {ascii(shape)[:80]}, no list of sizes that a file can have")
    if not _are_sizes(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] < MAX_SIZE:
        raise _wrong(path, name, f"its data_offsets are {ascii(offsets)[:80]}, not where it begins and ends")
    bits = math.prod(shape) * DTYPES[kind]
    if bits != 8 * (offsets[1] - offsets[0]):
        raise _wrong(
            path, name, f"its data_offsets hold {offsets[1] - offsets[0]} bytes, and its shape as {kind} {bits / 8}"
        )
    return kind, tuple(shape), offsets[0], offsets[1]


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    # A bool is an int to Python, and not to JSON.
    return isinstance(value, list) and len(value) <= MAX_DIMENSIONS and all(type(n) is int and n >= 0 for n in value)
