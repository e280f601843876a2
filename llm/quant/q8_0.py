"""Q8_0: blocks of 32 weights, each block a float16 scale and 32 signed bytes (ggml, block_q8_0)."""

import torch

from trackbed.llm.quant import Quant

BLOCK = 32  # weights
SIZE = 34  # bytes


class Q8_0(Quant):
    """weight = scale * byte."""

    def pack(self, weight: torch.Tensor) -> torch.Tensor:
        """uint8 [rows, columns / 32 * 34]; columns is a multiple of 32."""
        blocks = weight.float().reshape(weight.shape[0], -1, BLOCK)
        scale = blocks.abs().amax(-1, keepdim=True) / 127
        exact = blocks * torch.where(scale == 0, 0, 1 / scale)
        # Halves go away from zero; torch.round would take them to the even number.
        whole = exact.trunc()
        codes = (whole + (2 * (exact - whole)).trunc()).to(torch.int8)
        return torch.cat([scale.half().view(torch.uint8), codes.view(torch.uint8)], -1).flatten(1)

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """float32 [rows, columns]."""
        blocks = packed.reshape(packed.shape[0], -1, SIZE)
        scale = blocks[..., :2].contiguous().view(torch.float16).float()
        return (blocks[..., 2:].view(torch.int8).float() * scale).flatten(1)
