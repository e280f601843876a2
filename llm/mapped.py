"""Files of weights as they lie on disk: mapped, and never copied. A tensor is a name, a storage and a range of bytes.

This file knows no format; what a header says, the readers of GGUF and of safetensors check before they make a tensor.
"""

import mmap
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from trackbed.llm.errors import ModelLoadError


@dataclass(frozen=True, slots=True)
class MappedTensor:
    """A tensor of a file, which stays mapped as long as this lives. `shape` is in the order of PyTorch: rows first."""

    path: Path  # of the file
    name: str
    kind: str  # how it is stored, by the name that its format has for it
    shape: tuple[int, ...]
    offset: int  # of its first byte, from the start of the file
    size: int  # in bytes
    mapped: mmap.mmap = field(repr=False)

    def data(self) -> memoryview:
        """Its bytes, as they are in the file; read-only and not copied."""
        return memoryview(self.mapped)[self.offset : self.offset + self.size]

    def release(self) -> None:
        """Give the memory of its bytes back, where the system can; they are read again from the file if looked at."""
        # Whole pages only: the ends may be shared with a neighbour that is still being read.
        first = -(-self.offset // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (self.offset + self.size) // mmap.PAGESIZE * mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED") and last > first:
            self.mapped.madvise(mmap.MADV_DONTNEED, first, last - first)


def map_file(path: Path) -> mmap.mmap:
    """The bytes of a file, to be read. Raises ModelLoadError."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path}: cannot be read: {error}") from None


def check_apart(tensors: Iterable[MappedTensor]) -> None:
    """Raises ModelLoadError where two tensors of a file share bytes."""
    end, before = 0, ""
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.size)):
        if tensor.offset < end:
            raise ModelLoadError(
                f"{tensor.path}: {tensor.name}: its bytes begin at {tensor.offset}, "
                f"and those of {before} end at {end}: they overlap"
            )
        end, before = tensor.offset + tensor.size, tensor.name
