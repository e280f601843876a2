"""Llama: Llama 3.1 and 3.2, Llama Guard 3, SmolLM2, and whatever else calls itself LlamaForCausalLM.

This file knows the order of a pass. All arithmetic is in the kernels.
"""

import math
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import torch

from trackbed.llm.batch import Batch, KVCache
from trackbed.llm.config import ModelConfig, RopeScaling

# Ours: Hugging Face's name, and GGUF's; {i} is the layer.
NAMES = {
    "embedding": ("model.embed_tokens.weight", "token_embd.weight"),
    "norm": ("model.norm.weight", "output_norm.weight"),
    "head": ("lm_head.weight", "output.weight"),
    "attention_norm": ("model.layers.{i}.input_layernorm.weight", "blk.{i}.attn_norm.weight"),
    "query": ("model.layers.{i}.self_attn.q_proj.weight", "blk.{i}.attn_q.weight"),
    "key": ("model.layers.{i}.self_attn.k_proj.weight", "blk.{i}.attn_k.weight"),
    "value": ("model.layers.{i}.self_attn.v_proj.weight", "blk.{i}.attn_v.weight"),
    "output": ("model.layers.{i}.self_attn.o_proj.weight", "blk.{i}.attn_output.weight"),
    "mlp_norm": ("model.layers.{i}.post_attention_layernorm.weight", "blk.{i}.ffn_norm.weight"),
    "gate": ("model.layers.{i}.mlp.gate_proj.weight", "blk.{i}.ffn_gate.weight"),
    "up": ("model.layers.{i}.mlp.up_proj.weight", "blk.{i}.ffn_up.weight"),
    "down": ("model.layers.{i}.mlp.down_proj.weight", "blk.{i}.ffn_down.weight"),
}

Take = Callable[[str, int, tuple[int, ...]], torch.Tensor]  # our name, layer, shape -> weights


class Layer(NamedTuple):
    """The weights of one decoder layer. Projections that read the same input are stacked."""

    attention_norm: torch.Tensor  # [hidden]
    qkv: torch.Tensor  # [(heads + 2 * kv_heads) * head_dim, hidden]
    output: torch.Tensor  # [hidden, heads * head_dim]
    mlp_norm: torch.Tensor  # [hidden]
    gate_up: torch.Tensor  # [2 * intermediate, hidden]
    down: torch.Tensor  # [hidden, intermediate]


class Llama:
    """A model with its weights, ready to run."""

    def __init__(
        self, config: ModelConfig, kernels: ModuleType, take: Take, rope_factors: torch.Tensor | None = None
    ) -> None:
        """`take` gives the weights, one by one; `rope_factors` [head_dim / 2] divide RoPE's frequencies."""
        self.config = config
        self.kernels = kernels
        c = config
        self.embedding = take("embedding", 0, (c.vocab_size, c.hidden_size))
        self.layers = [self._layer(take, i) for i in range(c.layers)]
        self.norm = take("norm", 0, (c.hidden_size,))
        self.head = self.embedding if c.tied else take("head", 0, (c.vocab_size, c.hidden_size))
        frequencies = rope_frequencies(c.head_dim, c.rope_base, c.rope_scaling)
        self.frequencies = (frequencies if rope_factors is None else frequencies / rope_factors).to(self.norm.device)

    def forward(self, batch: Batch, cache: KVCache) -> torch.Tensor:
        """The logits of the wanted tokens, float32 [wanted, vocab]; the cache takes the new keys and values."""
        with torch.inference_mode():
            angles = batch.positions[:, None].float() * self.frequencies  # [tokens, head_dim / 2]
            cos, sin = angles.cos().to(self.norm.dtype), angles.sin().to(self.norm.dtype)
            x = self.embedding[batch.tokens]  # [tokens, hidden]
            for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
                x = self._run(layer, x, keys, values, batch, cos, sin)
            x = self.kernels.rms_norm(x[batch.wanted], self.norm, self.config.norm_eps)
            logits: torch.Tensor = self.kernels.linear(x, self.head).float()
            return logits

    def _run(
        self,
        layer: Layer,
        x: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        batch: Batch,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        """One layer (Touvron et al. 2023, arXiv:2302.13971), which also writes the cache: [tokens, hidden], twice."""
        k, eps, kv_heads, head_dim = self.kernels, self.config.norm_eps, self.config.kv_heads, self.config.head_dim
        qkv = k.linear(k.rms_norm(x, layer.attention_norm, eps), layer.qkv).view(x.shape[0], -1, head_dim)
        query, key, value = qkv.split([self.config.heads, kv_heads, kv_heads], dim=1)
        k.write_cache(keys, k.rope(key, cos, sin), batch.slots)
        k.write_cache(values, value, batch.slots)
        mixed = k.attention(k.rope(query, cos, sin), keys, values, batch)
        x = x + k.linear(mixed.flatten(1), layer.output)
        wide = k.swiglu(k.linear(k.rms_norm(x, layer.mlp_norm, eps), layer.gate_up))
        out: torch.Tensor = x + k.linear(wide, layer.down)
        return out

    def _layer(self, take: Take, i: int) -> Layer:
        c = self.config
        heads, kv, wide = c.heads * c.head_dim, c.kv_heads * c.head_dim, c.intermediate_size
        query, key = take("query", i, (heads, c.hidden_size)), take("key", i, (kv, c.hidden_size))
        return Layer(
            attention_norm=take("attention_norm", i, (c.hidden_size,)),
            qkv=torch.cat([query, key, take("value", i, (kv, c.hidden_size))]),
            output=take("output", i, (c.hidden_size, heads)),
            mlp_norm=take("mlp_norm", i, (c.hidden_size,)),
            gate_up=torch.cat([take("gate", i, (wide, c.hidden_size)), take("up", i, (wide, c.hidden_size))]),
            down=take("down", i, (c.hidden_size, wide)),
        )


def rope_frequencies(head_dim: int, base: float, scaling: RopeScaling | None) -> torch.Tensor:
    """RoPE's angle per position of each pair, float32 [head_dim / 2], as Llama 3.1 stretches them.

    Wavelengths beyond the original context are stretched by `factor`, short ones are kept, and those
    between are blended (Llama 3.1's reference implementation, meta-llama/llama-models).
    """
    frequencies = 1.0 / (base ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim))
    if scaling is None:
        return frequencies
    waves = 2 * math.pi / frequencies
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    blend = ((scaling.original_max_length / waves - low) / (high - low)).clamp(0, 1)
    return (1 - blend) * frequencies / scaling.factor + blend * frequencies
