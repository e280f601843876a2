"""Every kernel in plain PyTorch: the definition of correct.

Each function follows its paper. Arithmetic is in the dtype of the arguments, and in float32 inside norms
and softmax.
"""

import math

import torch

from trackbed.llm.batch import BLOCK, Batch


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, arXiv:1910.07467): [rows, n], [n] -> [rows, n]."""
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return normed.to(x.dtype) * weight


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x W^T: [rows, n], [m, n] -> [rows, m]."""
    return x @ weight.T


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up (Shazeer 2020, arXiv:2002.05202): [rows, 2 n], the gate first -> [rows, n]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up


def rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each head's pairs (i, i + head_dim / 2) by their angles (Su et al. 2021, arXiv:2104.09864).

    [tokens, heads, head_dim], twice [tokens, head_dim / 2] -> [tokens, heads, head_dim]
    """
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def write_cache(cache: torch.Tensor, new: torch.Tensor, slots: torch.Tensor) -> None:
    """Put each token's key or value [tokens, kv_heads, head_dim] in its slot of [blocks, BLOCK, kv_heads, head_dim]."""
    cache.view(-1, *cache.shape[2:]).index_copy_(0, slots, new)


def attention(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Causal attention of new tokens over their sequences in the paged cache.

    Query heads share key-value heads in groups (Ainslie et al. 2023, arXiv:2305.13245); the cache is paged
    (Kwon et al. 2023, arXiv:2309.06180). query [tokens, heads, head_dim], keys and values [blocks, BLOCK,
    kv_heads, head_dim] -> [tokens, heads, head_dim]
    """
    out, begin = torch.empty_like(query), 0
    for length, context, table in zip(batch.lengths, batch.contexts, batch.tables, strict=True):
        end = begin + length
        used = table[: -(-context // BLOCK)]
        k = keys[used].flatten(0, 1)[:context]  # [context, kv_heads, head_dim]
        v = values[used].flatten(0, 1)[:context]
        out[begin:end] = _attend(query[begin:end], k, v, batch.positions[begin:end])
        begin = end
    return out


def _attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """One sequence: softmax(q k^T / sqrt(head_dim)) v over the keys at or before each query."""
    tokens, heads, head_dim = query.shape
    context, kv_heads, _ = keys.shape
    grouped = query.view(tokens, kv_heads, heads // kv_heads, head_dim).permute(1, 2, 0, 3).flatten(1, 2)
    scores = (grouped @ keys.permute(1, 2, 0)).float() / math.sqrt(head_dim)  # [kv_heads, group * tokens, context]
    if tokens > 1:
        future = torch.arange(context, device=query.device) > positions[:, None]  # [tokens, context]
        scores.view(kv_heads, -1, tokens, context).masked_fill_(future, -math.inf)
    weights = scores.softmax(-1).to(values.dtype)
    mixed = (weights @ values.transpose(0, 1)).view(kv_heads, -1, tokens, head_dim)
    return mixed.permute(2, 0, 1, 3).reshape(tokens, heads, head_dim)
