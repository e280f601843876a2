"""The kernels for CPUs: those that are native in C++, and the reference for the rest."""

import torch

from trackbed.llm.kernels import reference
from trackbed.llm.kernels.cpu import _cpu
from trackbed.llm.kernels.reference import attention, linear, rope, swiglu, write_cache

__all__ = ["attention", "linear", "rms_norm", "rope", "swiglu", "write_cache"]


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Native for float32; other dtypes go to the reference."""
    if x.dtype is not torch.float32 or weight.dtype is not torch.float32:
        return reference.rms_norm(x, weight, eps)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    _cpu.rms_norm(x.contiguous(), weight, eps, out)
    return out
