"""What every kernel module is handed of a decoder layer."""

from typing import NamedTuple

import torch


class Layer(NamedTuple):
    """The weights of one decoder layer. Projections that read the same input are stacked."""

    attention_norm: torch.Tensor  # [hidden]
    qkv: torch.Tensor  # [(heads + 2 * kv_heads) * head_dim, hidden]
    output: torch.Tensor  # [hidden, heads * head_dim]
    mlp_norm: torch.Tensor  # [hidden]
    gate_up: torch.Tensor  # [2 * intermediate, hidden]
    down: torch.Tensor  # [hidden, intermediate]
    eps: float  # of both norms
