"""One pass through a model: which tokens of which sequences, and where their keys and values are kept.

This file knows the layout of the cache. It knows nothing of how a pass is planned, or of what is computed.
"""

from dataclasses import dataclass

import torch

from trackbed.llm.config import ModelConfig

BLOCK = 16  # tokens of a cache block


@dataclass(frozen=True, slots=True)
class Batch:
    """The new tokens of one or more sequences, one sequence after another."""

    tokens: torch.Tensor  # int64 [tokens]
    positions: torch.Tensor  # int64 [tokens], each token's place in its sequence
    lengths: tuple[int, ...]  # new tokens of each sequence; their sum is `tokens`
    contexts: tuple[int, ...]  # tokens that each sequence has in the cache once these are in it
    tables: tuple[torch.Tensor, ...]  # int64 [blocks], each sequence's cache blocks in order
    slots: torch.Tensor  # int64 [tokens], where each token's key and value go: block * BLOCK + place in it
    wanted: torch.Tensor  # int64 [rows], the tokens whose logits are wanted


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values of all layers, in blocks that sequences take and give back."""

    keys: torch.Tensor  # [layers, blocks, BLOCK, kv_heads, head_dim]
    values: torch.Tensor  # the same

    @classmethod
    def empty(
        cls, config: ModelConfig, blocks: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> "KVCache":
        """A cache of so many blocks."""
        shape = (config.layers, blocks, BLOCK, config.kv_heads, config.head_dim)
        return cls(torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))


def block_bytes(config: ModelConfig, dtype: torch.dtype = torch.float32) -> int:
    """The memory that one block of the cache takes, in bytes."""
    return 2 * config.layers * BLOCK * config.kv_heads * config.head_dim * dtype.itemsize
