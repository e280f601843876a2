"""The kernels for CPUs: RMSNorm in C++, the products as PyTorch does them fastest, and the reference for the rest."""

import torch

from trackbed.llm.batch import Batch
from trackbed.llm.kernels import reference
from trackbed.llm.kernels.cpu import _cpu
from trackbed.llm.kernels.layer import Layer
from trackbed.llm.kernels.reference import read_cache, rope, swiglu, write_cache

__all__ = ["attention", "decoder_layer", "linear", "read_cache", "rms_norm", "rope", "swiglu", "write_cache"]

FEW_ROWS = 8


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Native for float32; other dtypes go to the reference."""
    if x.dtype is not torch.float32 or weight.dtype is not torch.float32:
        return reference.rms_norm(x, weight, eps)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    _cpu.rms_norm(x.contiguous(), weight, eps, out)
    return out


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A product of few rows is shared out over the threads, by rows of the weight; MKL would use one thread.

    Of one row with SmolLM2's head, 2 threads of an EPYC with AVX2: 8.0 ms whole, 4.4 ms shared out.
    """
    parts = torch.get_num_threads()
    if parts == 1 or x.shape[0] > FEW_ROWS or weight.shape[0] % parts:
        return x @ weight.T
    shares = weight.view(parts, -1, weight.shape[1])  # [parts, m / parts, n]
    return torch.matmul(x, shares.transpose(1, 2)).transpose(0, 1).flatten(1)


def attention(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """PyTorch's fused attention, which keeps no scores (Dao 2023, arXiv:2307.08691)."""
    mixed = []
    queries, positions = query.split_with_sizes(batch.lengths), batch.positions.split_with_sizes(batch.lengths)
    for q, at, context, table in zip(queries, positions, batch.contexts, batch.tables, strict=True):
        q, k, v = (
            rows.transpose(0, 1)[None]  # [1, heads, tokens or context, head_dim]
            for rows in (q, read_cache(keys, table, context), read_cache(values, table, context))
        )
        past = torch.arange(context) <= at[:, None] if len(at) > 1 else None  # a single token is the last, and sees all
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=past, enable_gqa=True)
        mixed.append(out[0].transpose(0, 1))
    return torch.cat(mixed)


def decoder_layer(
    x: torch.Tensor,
    layer: Layer,
    keys: torch.Tensor,
    values: torch.Tensor,
    batch: Batch,
    cos: torch.Tensor,
    sin: torch.Tensor,
) -> torch.Tensor:
    """The reference's steps, by this module's kernels."""
    kv_heads, head_dim = keys.shape[2:]
    qkv = linear(rms_norm(x, layer.attention_norm, layer.eps), layer.qkv).view(x.shape[0], -1, head_dim)
    turned, value = rope(qkv[:, :-kv_heads], cos, sin), qkv[:, -kv_heads:]
    write_cache(keys, turned[:, -kv_heads:], batch.slots)
    write_cache(values, value, batch.slots)
    x = x + linear(attention(turned[:, :-kv_heads], keys, values, batch).flatten(1), layer.output)
    return x + linear(swiglu(linear(rms_norm(x, layer.mlp_norm, layer.eps), layer.gate_up)), layer.down)
