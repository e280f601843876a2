"""Every kernel in plain PyTorch: the definition of correct.

Each function follows its paper. Arithmetic is in the dtype of the arguments, and in float32 inside norms
and softmax. The last function is a coarse one, made of the others.
"""

import math

import torch

from trackbed.llm.batch import BLOCK
from trackbed.llm.kernels.layer import Layer, Places


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, arXiv:1910.07467): [rows, n], [n] -> [rows, n]."""
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return normed.to(x.dtype) * weight


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x W^T: [rows, n], [m, n] -> [rows, m]."""
    return x @ weight.T


def quantise(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Groups of 32 as whole numbers from -127 to 127 times a scale, the group's largest over 127.

    Halves go to the even number (Dettmers et al. 2022, arXiv:2208.07339, in groups). [rows, n] -> int8 [rows, width],
    float32 [rows, width / 32], where width is n to the next multiple of 32 and what fills up is zero
    """
    groups = torch.nn.functional.pad(x.float(), (0, -x.shape[1] % 32)).view(len(x), -1, 32)
    largest = groups.abs().amax(-1, keepdim=True)
    # A tensor over a tensor: a number over a tensor is the tensor's reciprocal times the number, which rounds twice.
    inverse = torch.where(largest > 0, torch.tensor(127.0) / largest, torch.zeros(()))
    return (groups * inverse).round().to(torch.int8).flatten(1), (largest / 127).squeeze(-1)


def quantised_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`linear` as it is where weights are quantised and activations have to be: [rows, n], [m, n] -> [rows, m]."""
    codes, scales = quantise(x)
    groups = codes.view(*scales.shape, 32).double() * scales[..., None].double()
    rounded = groups.flatten(1)[:, : x.shape[1]]
    return linear(rounded, weight.double()).to(x.dtype)


def sample(logits: torch.Tensor, temperature: float, top_p: float, drawn: float) -> int:
    """The token at which the weights of the nucleus, added up in order, reach `drawn` (0 to 1) of their sum: [vocab].

    The nucleus is the fewest tokens that together weigh `top_p` (Holtzman et al. 2019, arXiv:1904.09751).
    """
    weights = torch.softmax(logits.double() / temperature, 0)
    ordered, order = weights.sort(descending=True, stable=True)
    kept = order[ordered.cumsum(0) - ordered < top_p]
    steps = torch.zeros_like(weights).index_copy_(0, kept, weights[kept]).cumsum(0)
    return int(torch.searchsorted(steps, drawn * steps[-1]))


def gelu(x: torch.Tensor) -> torch.Tensor:
    """x Phi(x), Phi the normal distribution's (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    return torch.nn.functional.gelu(x)


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


def read_cache(cache: torch.Tensor, table: torch.Tensor, context: int) -> torch.Tensor:
    """One sequence's keys or values, gathered from its blocks: [context, kv_heads, head_dim]."""
    used = table[: -(-context // BLOCK)]
    return cache.index_select(0, used).flatten(0, 1)[:context]


def attention(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, places: Places) -> torch.Tensor:
    """softmax(q k^T / sqrt(head_dim)) v (Vaswani et al. 2017, arXiv:1706.03762) over each token's sequence so far.

    Query heads share key-value heads in groups (Ainslie et al. 2023, arXiv:2305.13245); the cache is paged
    (Kwon et al. 2023, arXiv:2309.06180). query [tokens, heads, head_dim], keys and values [blocks, BLOCK,
    kv_heads, head_dim] -> [tokens, heads, head_dim]
    """
    mixed = []
    queries, positions = query.split_with_sizes(places.lengths), places.positions.split_with_sizes(places.lengths)
    for q, at, context, table in zip(queries, positions, places.contexts, places.tables, strict=True):
        k, v = read_cache(keys, table, context), read_cache(values, table, context)
        tokens, heads, head_dim = q.shape
        grouped = q.view(tokens, k.shape[1], -1, head_dim).permute(1, 2, 0, 3)  # [kv_heads, group, tokens, head_dim]
        scores = (grouped @ k.permute(1, 2, 0)[:, None]).float() / math.sqrt(head_dim)  # [.., .., tokens, context]
        future = torch.arange(context, device=q.device) > at[:, None]  # [tokens, context]
        weights = scores.masked_fill(future, -math.inf).softmax(-1).to(v.dtype)
        mixed.append((weights @ v.transpose(0, 1)[:, None]).permute(2, 0, 1, 3).reshape(tokens, heads, head_dim))
    return torch.cat(mixed)


def decoder_layer(
    x: torch.Tensor,
    layer: Layer,
    keys: torch.Tensor,
    values: torch.Tensor,
    places: Places,
    cos: torch.Tensor,
    sin: torch.Tensor,
) -> torch.Tensor:
    """One layer of Llama (Touvron et al. 2023, arXiv:2302.13971), which also writes its part of the cache.

    [tokens, hidden], cache twice [blocks, BLOCK, kv_heads, head_dim], turns twice [tokens, head_dim / 2]
    -> [tokens, hidden]
    """
    kv_heads, head_dim = keys.shape[2:]
    qkv = linear(rms_norm(x, layer.attention_norm, layer.eps), layer.qkv).view(x.shape[0], -1, head_dim)
    turned, value = rope(qkv[:, :-kv_heads], cos, sin), qkv[:, -kv_heads:]
    write_cache(keys, turned[:, -kv_heads:], places.slots)
    write_cache(values, value, places.slots)
    x = x + linear(attention(turned[:, :-kv_heads], keys, values, places).flatten(1), layer.output)
    return x + linear(swiglu(linear(rms_norm(x, layer.mlp_norm, layer.eps), layer.gate_up)), layer.down)
