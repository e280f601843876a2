"""Llama: Llama 3.1 and 3.2, Llama Guard 3, SmolLM2, and whatever else calls itself LlamaForCausalLM.

This file knows what a checkpoint calls the weights, and the angles of RoPE. How a pass is computed, and in what
form the weights are kept for it, is the kernels' business.
"""

import math
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from trackbed.llm.batch import Batch
from trackbed.llm.config import ModelConfig, RopeScaling
from trackbed.llm.stored import CacheDType, DType, Take

Floats = npt.NDArray[np.float32]


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
        self,
        config: ModelConfig,
        kernels: ModuleType,
        take: Take,
        rope_factors: Floats | None = None,
        *,
        device: str = "cpu",
        dtype: DType = "auto",
        cache_dtype: CacheDType = "auto",
        threads: int | None = None,
    ) -> None:
        """`take` gives the weights, one by one; `rope_factors` [head_dim / 2] divide RoPE's frequencies."""
        frequencies = rope_frequencies(config.head_dim, config.rope_base, config.rope_scaling)
        if rope_factors is not None:
            frequencies = frequencies / rope_factors
        self.config = config
        # The weights in the kernels' own form, and the pass over them.
        self.whole = kernels.Pass(
            config, take, frequencies, device=device, dtype=dtype, cache_dtype=cache_dtype, threads=threads
        )

    @property
    def weight_bytes(self) -> int:
        """The memory that the weights take, without the embedding where it is only looked up."""
        return int(self.whole.weight_bytes)

    @property
    def block_bytes(self) -> int:
        """The memory that a block of the cache takes, in bytes."""
        return int(self.whole.block_bytes)

    def empty_cache(self, blocks: int) -> Any:  # Any: each kernel module has its own
        """A cache of so many blocks, for `forward`."""
        return self.whole.empty_cache(blocks)

    def forward(self, batch: Batch, cache: Any) -> Floats:
        """The logits of the wanted tokens, float32 [wanted, outputs]; the cache takes the new keys and values."""
        logits: Floats = self.whole.forward(batch, cache)
        return logits


def rope_frequencies(head_dim: int, base: float, scaling: RopeScaling | None) -> Floats:
    """RoPE's angle per position of each pair, float32 [head_dim / 2], as Llama 3.1 stretches them.

    Wavelengths beyond the original context are stretched by `factor`, short ones are kept, and those
    between are blended (Llama 3.1's reference implementation, meta-llama/llama-models).
    """
    frequencies = np.float32(1) / np.float32(base) ** (
        np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    )
    if scaling is None:
        return frequencies
    waves = 2 * math.pi / frequencies
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    blend = np.clip((scaling.original_max_length / waves - low) / (high - low), 0, 1)
    stretched: Floats = ((1 - blend) * frequencies / scaling.factor + blend * frequencies).astype(np.float32)
    return stretched
