"""Small random Llamas, written as checkpoints, and passes through them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from trackbed.llm.batch import Batch
from trackbed.llm.kernels.layer import KVCache
from trackbed.llm.models.llama import Llama

SIZES: dict[str, Any] = {
    "vocab_size": 131,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def make(**changes: Any) -> LlamaForCausalLM:
    """A random Llama whose logits are far apart."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes})).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0, 0.1) if name.endswith("norm.weight") else weight.normal_(0.0, 0.25)
    return model


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    kind: str = "F32",
    *,
    norms: str = "F32",
    shard: int = 0,
    **metadata: str | int,
) -> None:
    """As llama.cpp's converter writes it: Q and K permuted, norms in float32, Llama 3.1's scaling as factors.

    With `shard` there are so many tensors in each of several files.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=shard)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    for key, value in metadata.items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(key.replace("__", "."), value)
    names = _gguf_names(config)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        rows = weight.float().numpy()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            rows = rows.reshape(-1, 2, config.head_dim // 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
        stored = gguf.GGMLQuantizationType[kind if rows.ndim > 1 else norms]
        writer.add_tensor(names[name], gguf.quants.quantize(rows, stored), raw_dtype=stored)
    if config.rope_parameters["rope_type"] == "llama3":
        plain = config.rope_parameters["rope_theta"] ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
        factors = plain / model.model.rotary_emb.inv_freq.numpy()
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_gguf(path: Path) -> LlamaForCausalLM:
    """A tied GGUF Llama as transformers runs it, its weights unpacked by the gguf package."""
    reader = gguf.GGUFReader(path)

    def number(key: str) -> Any:
        return reader.get_field(f"llama.{key}").contents()

    tensors = {tensor.name: tensor for tensor in reader.tensors}
    config = LlamaConfig(
        vocab_size=int(tensors["token_embd.weight"].shape[1]),
        hidden_size=number("embedding_length"),
        intermediate_size=number("feed_forward_length"),
        num_hidden_layers=number("block_count"),
        num_attention_heads=number("attention.head_count"),
        num_key_value_heads=number("attention.head_count_kv"),
        rms_norm_eps=number("attention.layer_norm_rms_epsilon"),
        max_position_embeddings=number("context_length"),
        rope_parameters={"rope_type": "default", "rope_theta": number("rope.freq_base")},
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    names = _gguf_names(config)
    for name, weight in model.named_parameters():
        tensor = tensors[names[name]]
        rows = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            rows = rows.reshape(-1, config.head_dim // 2, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
        weight.data = torch.tensor(rows)
    return model


def _gguf_names(config: LlamaConfig) -> dict[str, str]:
    """GGUF's names of a model's parameters."""
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    with torch.device("meta"):
        parameters = LlamaForCausalLM(config).state_dict()
    return {name: table.get_name(name, try_suffixes=(".weight",)) for name in parameters}


def empty_cache(model: Llama, blocks: int = 40) -> Any:
    """A cache in which whatever is read without having been written shows."""
    cache = model.empty_cache(blocks)
    if isinstance(cache, KVCache):
        cache.keys.fill_(math.nan)
        cache.values.fill_(math.nan)
    else:
        cache.fill(math.nan)
    return cache


def forward(model: Llama, batch: Batch, cache: Any = None) -> torch.Tensor:
    """The logits as a tensor, float32 [wanted, vocab]."""
    found = model.forward(batch, empty_cache(model) if cache is None else cache)
    assert found.dtype == np.float32
    return torch.from_numpy(found)


def batch(*parts: tuple[list[int], int, list[int]]) -> Batch:
    """Of each sequence its new tokens, how many it has in the cache already, and its blocks; all logits are wanted."""
    return Batch(
        tokens=[token for ids, _, _ in parts for token in ids],
        lengths=tuple(len(ids) for ids, _, _ in parts),
        contexts=tuple(begin + len(ids) for ids, begin, _ in parts),
        tables=tuple(table for _, _, table in parts),
        wanted=list(range(sum(len(ids) for ids, _, _ in parts))),
    )


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value; NaN where there is one."""
    return float((found - expected).abs().max() / expected.abs().max())


def greedy(choose: Callable[[list[int], int], torch.Tensor], prompt: list[int], count: int) -> list[int]:
    """The tokens that follow, where `choose` gives the logits of new tokens after so many others."""
    ids, new = [], prompt
    for _ in range(count):
        logits = choose(new, len(ids))
        ids += new
        new = [int(logits[-1].argmax())]
    return [*ids, *new][len(prompt) :]
