"""transformers at the given work: the very same weights, unpacked to float32, in this process.

It computes in float32, which is what the runtime is exact against. This file knows how transformers is called, and
what its weights are called.
"""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from trackbed.llm.kernels.plain_pass import Pass
    from trackbed.llm.models.llama import Llama

Taken = tuple[float, float]  # seconds, and those of all threads on the processor


class Transformers:
    """A model as transformers runs it, with as many threads as PyTorch has."""

    def __init__(self, path: Path) -> None:
        """Raises ModelLoadError."""
        from trackbed.llm.checkpoint import load_model
        from trackbed.llm.kernels import plain_pass

        self._model = _build(load_model(path, dtype="float32", kernels=plain_pass))

    def prefill(self, ids: Sequence[int]) -> Taken:
        """From the prompt to the token that comes next."""
        started, spent = perf_counter(), process_time()
        self._next(ids, self._cache())
        return perf_counter() - started, process_time() - spent

    def decode(self, ids: Sequence[int], count: int) -> Taken:
        """So many tokens after the first one, one at a time."""
        cache = self._cache()
        token = self._next(ids, cache)
        started, spent = perf_counter(), process_time()
        for _ in range(count):
            token = self._next([token], cache)
        return perf_counter() - started, process_time() - spent

    def _next(self, ids: Sequence[int], cache: Any) -> int:  # Any: theirs
        import torch

        with torch.inference_mode():
            out = self._model(torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1)
        return int(out.logits[0, -1].argmax())

    def _cache(self) -> Any:  # Any: theirs
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config)


def _build(ours: "Llama") -> Any:  # Any: theirs
    from transformers import LlamaConfig, LlamaForCausalLM

    c = ours.config
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": c.rope_base}
    if scaling := c.rope_scaling:
        rope |= {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_length,
        }
    config = LlamaConfig(
        vocab_size=c.vocab_size,
        hidden_size=c.hidden_size,
        intermediate_size=c.intermediate_size,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_dim,
        max_position_embeddings=c.max_length,
        rms_norm_eps=c.norm_eps,
        rope_parameters=rope,
        tie_word_embeddings=c.tied,
    )
    model = LlamaForCausalLM(config).train(False)
    model.load_state_dict(_state(ours.whole), strict=False)
    return model


def _state(ours: "Pass") -> "dict[str, torch.Tensor]":
    """Our weights under transformers' names."""
    state = {
        "model.embed_tokens.weight": ours.embedding,
        "model.norm.weight": ours.norm,
        "lm_head.weight": ours.head,
    }
    heads, kv = ours.config.heads * ours.config.head_dim, ours.config.kv_heads * ours.config.head_dim
    for i, layer in enumerate(ours.layers):
        above = f"model.layers.{i}."
        query, key, value = layer.qkv[:heads], layer.qkv[heads : heads + kv], layer.qkv[heads + kv :]
        gate, up = layer.gate_up.chunk(2)
        state |= {
            f"{above}input_layernorm.weight": layer.attention_norm,
            f"{above}self_attn.q_proj.weight": query,
            f"{above}self_attn.k_proj.weight": key,
            f"{above}self_attn.v_proj.weight": value,
            f"{above}self_attn.o_proj.weight": layer.output,
            f"{above}post_attention_layernorm.weight": layer.mlp_norm,
            f"{above}mlp.gate_proj.weight": gate,
            f"{above}mlp.up_proj.weight": up,
            f"{above}mlp.down_proj.weight": layer.down,
        }
    return state
