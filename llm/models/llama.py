"""Llama: Llama 3.1 and 3.2, Llama Guard 3, SmolLM2, and whatever else calls itself LlamaForCausalLM.

This file knows the order of a pass and the shapes of the weights. All arithmetic is in the kernels.
"""

import math
from collections.abc import Callable
from types import ModuleType
from typing import ClassVar

import torch

from trackbed.llm.batch import Batch, KVCache
from trackbed.llm.config import ModelConfig, RopeScaling
from trackbed.llm.kernels.layer import Layer

Take = Callable[[str, int, tuple[int, ...]], torch.Tensor]  # our name, layer, shape -> weights


class Llama:
    """A model with its weights, ready to run."""

    # Ours: Hugging Face's name, and GGUF's; {i} is the layer.
    names: ClassVar = {
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

    def __init__(
        self, config: ModelConfig, kernels: ModuleType, take: Take, rope_factors: torch.Tensor | None = None
    ) -> None:
        """`take` gives the weights, one by one; `rope_factors` [head_dim / 2] divide RoPE's frequencies."""
        self.config = config
        self.kernels = kernels
        self.embedding = take("embedding", 0, (config.vocab_size, config.hidden_size))
        self.layers = [take_layer(config, take, i) for i in range(config.layers)]
        self.norm = take("norm", 0, (config.hidden_size,))
        self.head = self.embedding if config.tied else take("head", 0, (config.vocab_size, config.hidden_size))
        frequencies = rope_frequencies(config.head_dim, config.rope_base, config.rope_scaling)
        if rope_factors is not None:
            frequencies = frequencies / rope_factors
        self.frequencies = frequencies.to(self.norm.device)

    @torch.inference_mode()
    def forward(self, batch: Batch, cache: KVCache) -> torch.Tensor:
        """The logits of the wanted tokens, float32 [wanted, vocab]; the cache takes the new keys and values."""
        k = self.kernels
        angles = batch.positions[:, None] * self.frequencies  # [tokens, head_dim / 2]
        x = self.embedding[batch.tokens]  # [tokens, hidden]
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            x = k.decoder_layer(x, layer, keys, values, batch, cos, sin)
        logits: torch.Tensor = k.linear(k.rms_norm(x[batch.wanted], self.norm, self.config.norm_eps), self.head)
        return logits.float()


def take_layer(config: ModelConfig, take: Take, i: int) -> Layer:
    """The weights of layer `i`."""
    hidden, wide = config.hidden_size, config.intermediate_size
    heads, kv_heads = config.heads * config.head_dim, config.kv_heads * config.head_dim
    qkv = [take("query", i, (heads, hidden)), take("key", i, (kv_heads, hidden)), take("value", i, (kv_heads, hidden))]
    return Layer(
        attention_norm=take("attention_norm", i, (hidden,)),
        qkv=torch.cat(qkv),
        output=take("output", i, (hidden, heads)),
        mlp_norm=take("mlp_norm", i, (hidden,)),
        gate_up=torch.cat([take("gate", i, (wide, hidden)), take("up", i, (wide, hidden))]),
        down=take("down", i, (hidden, wide)),
        eps=config.norm_eps,
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
