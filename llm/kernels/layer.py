"""What the reference is handed of a decoder layer, a batch and a cache, as tensors."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch

from trackbed.llm.batch import BLOCK, Batch
from trackbed.llm.config import ModelConfig


class Layer(NamedTuple):
    """The weights of one decoder layer. Projections that read the same input are stacked."""

    attention_norm: torch.Tensor  # [hidden]
    qkv: torch.Tensor  # [(heads + 2 * kv_heads) * head_dim, hidden]
    output: torch.Tensor  # [hidden, heads * head_dim]
    mlp_norm: torch.Tensor  # [hidden]
    gate_up: torch.Tensor  # [2 * intermediate, hidden]
    down: torch.Tensor  # [hidden, intermediate]
    eps: float  # of both norms


@dataclass(frozen=True, slots=True)
class Places:
    """Where the tokens of a batch stand in their sequences and in the cache."""

    positions: torch.Tensor  # int64 [tokens], each token's place in its sequence
    lengths: tuple[int, ...]  # new tokens of each sequence
    contexts: tuple[int, ...]  # tokens that each sequence has in the cache once these are in it
    tables: tuple[torch.Tensor, ...]  # int64 [blocks], each sequence's cache blocks in order
    slots: torch.Tensor  # int64 [tokens], where each token's key and value go: block * BLOCK + place in it

    @classmethod
    def of(cls, batch: Batch, device: str = "cpu") -> Self:
        """Those of a batch."""
        return cls(
            positions=torch.tensor(batch.positions, device=device),
            lengths=batch.lengths,
            contexts=batch.contexts,
            tables=tuple(torch.tensor(table, device=device) for table in batch.tables),
            slots=torch.tensor(batch.slots, device=device),
        )


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values of all layers, in blocks that sequences take and give back."""

    keys: torch.Tensor  # [layers, blocks, BLOCK, kv_heads, head_dim]
    values: torch.Tensor  # the same

    @classmethod
    def empty(cls, config: ModelConfig, blocks: int, dtype: torch.dtype, device: str = "cpu") -> Self:
        """A cache of so many blocks."""
        shape = (config.layers, blocks, BLOCK, config.kv_heads, config.head_dim)
        return cls(torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))
