"""A low-rank adapter, as a file of this package has it: what it adds to weights, and its head.

LoRA: Hu et al. 2021, arXiv:2106.09685. Its share is added to a model's weights while they are loaded, so that a pass
costs no more than without it. The file knows tensors and their names. It knows nothing of labels.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from trackbed.llm.config import ModelConfig
from trackbed.llm.errors import ModelLoadError
from trackbed.llm.kernels import cpu
from trackbed.llm.models.llama import Llama
from trackbed.llm.safetensors_file import SafetensorsFile
from trackbed.llm.stored import Stored, Take

Floats = npt.NDArray[np.float32]
PLAIN = ("F32", "F16", "BF16")


def adapted(file: SafetensorsFile, rank: int, alpha: float) -> Callable[[str, Floats], Floats]:
    """What adds its share of the adapter to a weight of that name: W + alpha / rank * B A."""
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


def with_head(
    file: SafetensorsFile, rank: int, alpha: float, layers: int, labels: int, *, coded: bool = False
) -> Callable[[ModelConfig, Take], tuple[ModelConfig, Take]]:
    """What makes of a Llama its first layers with the adapter in them, and a head with a row for each label.

    Weights that the adapter changes are numbers, or `coded` in 8 bits: 4 say too little to hold a small change.
    Others are as they were. Raises ModelLoadError, there or while weights are taken, where the adapter does not fit.
    """
    add = adapted(file, rank, alpha)

    def change(config: ModelConfig, take: Take) -> tuple[ModelConfig, Take]:
        if layers > config.layers:
            raise ModelLoadError(f"{file.path} is for {layers} layers; the model has {config.layers}")

        def changed(name: str, layer: int, shape: tuple[int, ...]) -> Stored:
            if name == "head":
                return numbers(tensor(file, "head.weight", shape))
            found = take(name, layer, shape)
            part = Llama.names[name][0].format(i=layer).removeprefix("model.")
            if f"{part.removesuffix('.weight')}.A" not in file.tensors:
                return found
            weight = numbers(add(part, in_order(found)))
            return cpu.encode(weight, "int8") if coded else weight

        return replace(config, layers=layers, labels=labels, tied=False), changed

    return change


def tensor(file: SafetensorsFile, name: str, shape: tuple[int, ...]) -> Floats:
    """A tensor of that shape as float32. Raises ModelLoadError where the file has none."""
    found = file.tensors.get(name)
    if found is None or found.shape != shape or found.kind not in PLAIN:
        raise ModelLoadError(f"{file.path}: {name}: expected is a tensor of {list(shape)} in {', '.join(PLAIN)}")
    return cpu.unpack(Stored(found.kind, np.frombuffer(found.data(), np.uint8), shape)).reshape(shape)


def in_order(stored: Stored) -> Floats:
    """A matrix as numbers, each head's rows in the order that transformers has them: [rows, columns]."""
    weight = cpu.unpack(stored)
    if not stored.interleaved:
        return weight
    pairs = weight.reshape(-1, stored.interleaved // 2, 2, stored.shape[1])
    return pairs.transpose(0, 2, 1, 3).reshape(stored.shape)


def numbers(weight: Floats) -> Stored:
    """A matrix of numbers, as a file would have it."""
    return Stored("F32", np.ascontiguousarray(weight).view(np.uint8).reshape(-1), weight.shape)
