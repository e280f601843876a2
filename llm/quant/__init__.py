"""Weights in fewer bits: one format a file, and the table of those that can be read."""

from pkgutil import resolve_name
from types import ModuleType
from typing import Protocol

import torch

from trackbed.llm.errors import UnknownQuant


class Quant(Protocol):
    """A weight format. `packed` is bytes as a checkpoint stores them: uint8 [rows, bytes of a row]."""

    def pack(self, weight: torch.Tensor) -> torch.Tensor:
        """The packed form of float weights [rows, columns]; rounded to the nearest."""
        ...

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """The weights: float32 [rows, columns]."""
        ...

    def linear(self, x: torch.Tensor, packed: torch.Tensor, kernels: ModuleType) -> torch.Tensor:
        """x W^T of packed weights: [rows, n], [m, bytes of a row] -> [rows, m]."""
        product: torch.Tensor = kernels.linear(x, self.unpack(packed).to(x.dtype))
        return product


PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # not quantised
# The formats of GGUF by their names there (ggml/src/ggml-common.h, ggml-quants.c).
QUANTS = {
    "Q4_0": "trackbed.llm.quant.q4_0:Q4_0",
    "Q4_1": "trackbed.llm.quant.q4_1:Q4_1",
    "Q8_0": "trackbed.llm.quant.q8_0:Q8_0",
}


def quant(name: str) -> Quant:
    """The format of that name. Raises UnknownQuant."""
    if name not in QUANTS:
        raise UnknownQuant(
            f"stored as {name}; the formats that can be read are: {', '.join(PLAIN)}, {', '.join(QUANTS)}"
        )
    found: Quant = resolve_name(QUANTS[name])()
    return found
