"""How fast the runtime is beside transformers, in turns on the same weights and threads.

A figure of this machine alone says little; the ratio of neighbouring rounds does. The rival computes in float32,
which is what the runtime is exact against.
"""

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from trackbed.apps.bench.report import Comparison, Row, installed
from trackbed.apps.terminal import Report

if TYPE_CHECKING:
    import torch

    from trackbed.llm.engine import Engine
    from trackbed.llm.kernels.plain_pass import Pass

PROMPT, ANSWER = 512, 64  # tokens
WORD = " the"  # one token of any English vocabulary


def compare(model: str, path: Path, threads: int, rounds: int, report: Report) -> Comparison:
    """Tokens a second of both, for the prompt and for the answer; the first round warms up and does not count."""
    import torch

    from trackbed.llm.config import EngineConfig
    from trackbed.llm.engine import Engine

    torch.set_num_threads(threads)
    report(f"loading {model} twice", 0, 0)
    prefill: list[tuple[float, float]] = []
    decode: list[tuple[float, float]] = []
    with Engine.open(path, EngineConfig(threads=threads)) as engine:
        theirs = _transformers(path)
        for done in range(rounds + 1):
            report("measuring", done, rounds + 1)
            (ours_first, _), (ours_all, written) = _ours(engine, 1), _ours(engine, ANSWER)
            their_first, their_all = theirs(1), theirs(ANSWER)
            if done:
                prefill.append((PROMPT / ours_first, PROMPT / their_first))
                ours_steps, their_steps = written - 1, ANSWER - 1
                decode.append((ours_steps / (ours_all - ours_first), their_steps / (their_all - their_first)))
    rows = [_row(f"prefill {PROMPT}, tokens/s", prefill), _row(f"decode {ANSWER}, tokens/s", decode)]
    versions = {"trackbed": installed(), **{package: version(package) for package in ("torch", "transformers")}}
    return Comparison(f"{model}, {threads} threads, float32, {rounds} rounds", versions, rows)


def _row(name: str, pairs: list[tuple[float, float]]) -> Row:
    ours, theirs = zip(*pairs, strict=True)
    return Row(name, ours, theirs, "transformers", more=True)


def _ours(engine: "Engine", tokens: int) -> tuple[float, int]:
    """The seconds that the engine takes for the prompt and at most so many tokens, and how many it wrote."""
    from trackbed.llm.types import Part, RawPrompt, SamplingParams

    prompt = RawPrompt((Part(WORD * PROMPT),))
    started = perf_counter()
    completion = asyncio.run(engine.generate(prompt, SamplingParams(max_tokens=tokens)))
    return perf_counter() - started, completion.usage.completion_tokens


def _transformers(path: Path) -> Callable[[int], float]:
    """The same for transformers, with the very same weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from trackbed.llm.checkpoint import load_model
    from trackbed.llm.kernels import plain_pass
    from trackbed.llm.tokenizer import Tokenizer

    ours = load_model(path, dtype="float32", kernels=plain_pass)
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
    tokens = torch.tensor([Tokenizer.load(path).encode(WORD * PROMPT)])

    def seconds(count: int) -> float:
        started = perf_counter()
        with torch.inference_mode():
            model.generate(
                tokens, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0, eos_token_id=None
            )
        return perf_counter() - started

    return seconds


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
