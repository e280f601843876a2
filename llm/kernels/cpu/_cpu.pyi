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

def read_rate(threads: int) -> float:
    """The bytes that so many threads read from memory in a second."""

def int8_rate(threads: int) -> float:
    """The multiplications and additions of bytes that so many threads do in a second."""

def int8_instructions() -> str:
    """The instructions that int8_rate is of."""

def float_rate(threads: int) -> float:
    """The multiplications and additions of float32 that so many threads do in a second."""
