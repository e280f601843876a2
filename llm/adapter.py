"""A low-rank adapter of an encoder, as a file of this package has it: what it adds to weights, and its head.

LoRA: Hu et al. 2021, arXiv:2106.09685. The file knows tensors and their names. It knows nothing of labels.
"""

import numpy as np
import numpy.typing as npt

from trackbed.llm.errors import ModelLoadError
from trackbed.llm.kernels import cpu
from trackbed.llm.models.bert import Change
from trackbed.llm.safetensors_file import SafetensorsFile
from trackbed.llm.stored import Stored

Floats = npt.NDArray[np.float32]


def adapted(file: SafetensorsFile, rank: int, alpha: float) -> Change:
    """What adds its share of the adapter to a weight: W + alpha / rank * B A."""
    factor = np.float32(alpha / rank)

    def change(name: str, weight: Floats) -> Floats:
        part = name.removesuffix(".weight")
        if f"{part}.A" not in file.tensors:
            return weight
        a = tensor(file, f"{part}.A", (rank, weight.shape[1]))
        b = tensor(file, f"{part}.B", (weight.shape[0], rank))
        changed: Floats = weight + factor * (b @ a)
        return changed

    return change


def tensor(file: SafetensorsFile, name: str, shape: tuple[int, ...]) -> Floats:
    """A tensor of that shape as float32. Raises ModelLoadError where the file has none."""
    found = file.tensors.get(name)
    if found is None or found.shape != shape or found.kind not in ("F16", "F32"):
        raise ModelLoadError(f"{file.path}: {name}: expected is a tensor of {list(shape)} in F16 or F32")
    return cpu.unpack(Stored(found.kind, np.frombuffer(found.data(), np.uint8), shape)).reshape(shape)
