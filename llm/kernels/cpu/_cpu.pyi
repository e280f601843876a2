"""Native kernels for CPUs."""

import torch

def available() -> list[str]:
    """The instruction sets that this processor runs, best first."""

def isa() -> str:
    """The instruction set in use."""

def use(isa: str) -> None:
    """Use this instruction set from now on. Raises ValueError where there is none."""

def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, out: torch.Tensor) -> None:
    """out = x / sqrt(mean(x^2) + eps) * weight, for float32 [rows, n] and [n]."""
