"""Q4_1: blocks of 32 weights, each a float16 scale, a float16 minimum and 32 codes of 4 bits (ggml, block_q4_1)."""

import torch

from trackbed.llm.quant import Quant
from trackbed.llm.quant.q4_0 import join_halves, split_halves

BLOCK = 32  # weights
SIZE = 20  # bytes


class Q4_1(Quant):
    """weight = scale * code + minimum."""

    def pack(self, weight: torch.Tensor) -> torch.Tensor:
        """uint8 [rows, columns / 32 * 20]; columns is a multiple of 32."""
        blocks = weight.float().reshape(weight.shape[0], -1, BLOCK)
        least = blocks.amin(-1, keepdim=True)
        scale = (blocks.amax(-1, keepdim=True) - least) / 15
        inverse = torch.where(scale == 0, 0, 1 / scale)
        codes = ((blocks - least) * inverse + 0.5).floor().clamp(0, 15).to(torch.uint8)
        head = torch.cat([scale.half(), least.half()], -1)
        return torch.cat([head.view(torch.uint8), join_halves(codes)], -1).flatten(1)

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """float32 [rows, columns]."""
        blocks = packed.reshape(packed.shape[0], -1, SIZE)
        head = blocks[..., :4].contiguous().view(torch.float16).float()
        return (split_halves(blocks[..., 4:]).float() * head[..., :1] + head[..., 1:]).flatten(1)
