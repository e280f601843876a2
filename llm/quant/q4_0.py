"""Q4_0: blocks of 32 weights, each block a float16 scale and 32 codes of 4 bits (ggml, block_q4_0).

The low half of byte i holds weight i of the block, the high half weight i + 16.
"""

import torch

from trackbed.llm.quant import Quant

BLOCK = 32  # weights
SIZE = 18  # bytes


class Q4_0(Quant):
    """weight = scale * (code - 8)."""

    def pack(self, weight: torch.Tensor) -> torch.Tensor:
        """uint8 [rows, columns / 32 * 18]; columns is a multiple of 32."""
        blocks = weight.float().reshape(weight.shape[0], -1, BLOCK)
        # The weight farthest from zero is represented exactly, by code 0.
        farthest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
        scale = farthest / -8
        inverse = torch.where(scale == 0, 0, 1 / scale)
        codes = (blocks * inverse + 8.5).floor().clamp(0, 15).to(torch.uint8)
        return torch.cat([scale.half().view(torch.uint8), join_halves(codes)], -1).flatten(1)

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """float32 [rows, columns]."""
        blocks = packed.reshape(packed.shape[0], -1, SIZE)
        scale = blocks[..., :2].contiguous().view(torch.float16).float()
        return ((split_halves(blocks[..., 2:]).float() - 8) * scale).flatten(1)


def join_halves(codes: torch.Tensor) -> torch.Tensor:
    """Two codes of 4 bits a byte: [..., 32] -> [..., 16]."""
    return codes[..., :16] | (codes[..., 16:] << 4)


def split_halves(packed: torch.Tensor) -> torch.Tensor:
    """The codes of 4 bits: [..., 16] -> [..., 32]."""
    return torch.cat([packed & 15, packed >> 4], -1)
