"""What a checkpoint says of its model, read from Hugging Face's config.json or from GGUF metadata; and what
we say of the engine that runs it.

This file knows names and numbers. It knows nothing of tensors.
"""

import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trackbed.llm.errors import ModelLoadError, UnknownModel
from trackbed.llm.gguf import GgufFile, Value
from trackbed.llm.models import MODELS
from trackbed.llm.stored import CacheDType, DType

MAX_HEAD = 65_536  # far more than any model has; what is made of its size is made before the weights are seen
GGUF_ARCHITECTURES = {"llama": "LlamaForCausalLM"}


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Llama 3.1's stretching of RoPE's frequencies to longer contexts."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_length: int

    def __post_init__(self) -> None:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ModelLoadError(
                f"high_freq_factor is {self.high_freq_factor}; it must be above low_freq_factor, {self.low_freq_factor}"
            )


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The numbers of a Llama model."""

    architecture: str  # as the checkpoint calls it; a key of MODELS
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    rope_base: float
    max_length: int  # tokens
    rope_scaling: RopeScaling | None = None
    tied: bool = False  # the head's weights are the embedding's
    labels: int | None = None  # rows of a head that tells labels apart; None: it has one for each token

    @property
    def outputs(self) -> int:
        """How many logits a token gets."""
        return self.vocab_size if self.labels is None else self.labels

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "max_length"):
            if getattr(self, name) < 1:
                raise ModelLoadError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.heads % self.kv_heads:
            raise ModelLoadError(f"{self.heads} heads cannot share {self.kv_heads} key-value heads evenly")
        if self.head_dim > MAX_HEAD:
            raise ModelLoadError(f"the size of a head is {self.head_dim}; it can be {MAX_HEAD} at most")
        if self.head_dim < 2 or self.head_dim % 2:
            raise ModelLoadError(f"the size of a head is {self.head_dim}; RoPE needs an even one")


class EngineConfig(BaseModel):
    """How much an engine takes on at once, and where it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_seqs: int = Field(default=16, ge=1)  # that run at once; more wait their turn
    max_tokens: int = Field(default=512, ge=1)  # in one pass; longer prompts take several
    cache_tokens: int | None = Field(default=None, ge=1)  # None: the model's context, 8,192 at most
    cache_dtype: CacheDType = "auto"  # "int8" takes half the memory, and rounds keys and values to 8 bits
    threads: int | None = Field(default=None, ge=1)  # None: one for each core that the process may use
    device: str = "cpu"
    dtype: DType = "auto"  # "auto" keeps weights as they are stored; others are all float32 or all bfloat16

    @model_validator(mode="after")
    def _every_sequence_moves(self) -> Self:
        if self.max_tokens < self.max_seqs:
            raise ValueError(f"max_tokens is {self.max_tokens}, too few for each of max_seqs {self.max_seqs} to move")
        return self


def read_hf_config(path: Path) -> ModelConfig:
    """The model of a `config.json`. Raises ModelLoadError, UnknownModel."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path}: cannot be read: {error}") from None
    if not isinstance(raw, dict):
        raise ModelLoadError(f"{path}: holds no object")
    try:
        return _from_hf(raw)
    except ModelLoadError as error:
        raise type(error)(f"{path}: {error}") from None


def read_gguf_config(file: GgufFile) -> ModelConfig:
    """The model of a GGUF file. Raises ModelLoadError, UnknownModel."""
    try:
        return _from_gguf(file)
    except ModelLoadError as error:
        raise type(error)(f"{file.path}: {error}") from None


def _from_hf(raw: Mapping[str, Any]) -> ModelConfig:  # Any: it comes from a file, and each value is checked below
    match raw.get("architectures"):
        case [str(architecture), *_]:
            _check_architecture(architecture, MODELS)
        case found:
            raise ModelLoadError(f"architectures is {found!r}; a list of names was expected")
    for key, expected in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        if (found := raw.get(key, expected)) != expected:
            raise ModelLoadError(f"{key} is {found!r}; only {expected!r} is supported")
    hidden, heads = _number(raw, "hidden_size"), _number(raw, "num_attention_heads")
    # transformers 5 writes `rope_parameters`; before, there were `rope_theta` and `rope_scaling`.
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ModelLoadError(f"the parameters of RoPE are {rope!r}; an object was expected")
    return ModelConfig(
        architecture=architecture,
        vocab_size=_number(raw, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_number(raw, "intermediate_size"),
        layers=_number(raw, "num_hidden_layers"),
        heads=heads,
        kv_heads=_number(raw, "num_key_value_heads", heads),
        head_dim=_number(raw, "head_dim", hidden // max(heads, 1)),
        norm_eps=_real(raw, "rms_norm_eps", 1e-6),
        rope_base=_real(rope, "rope_theta", _real(raw, "rope_theta", 10000.0)),
        max_length=_number(raw, "max_position_embeddings", 2048),
        rope_scaling=_rope_scaling(rope),
        tied=bool(raw.get("tie_word_embeddings", False)),
    )


def _rope_scaling(rope: Mapping[str, Any]) -> RopeScaling | None:
    if (turned := rope.get("partial_rotary_factor", 1)) != 1:
        raise ModelLoadError(f"partial_rotary_factor is {turned!r}; RoPE turns whole heads here")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise ModelLoadError(f"RoPE scaling of type {kind!r}; 'llama3' and 'default' are supported")
    return RopeScaling(
        factor=_real(rope, "factor"),
        low_freq_factor=_real(rope, "low_freq_factor"),
        high_freq_factor=_real(rope, "high_freq_factor"),
        original_max_length=_number(rope, "original_max_position_embeddings"),
    )


def _from_gguf(file: GgufFile) -> ModelConfig:
    meta = file.metadata
    architecture = str(meta.get("general.architecture", ""))
    _check_architecture(architecture, GGUF_ARCHITECTURES)
    if experts := meta.get("llama.expert_count"):
        raise ModelLoadError(f"llama.expert_count is {experts!r}; mixtures of experts are not supported")
    hidden, heads = _number(meta, "llama.embedding_length"), _number(meta, "llama.attention.head_count")
    # Llama 3.1's scaling is no type in GGUF, but a tensor of factors.
    if (scaling := meta.get("llama.rope.scaling.type", "none")) != "none":
        raise ModelLoadError(f"llama.rope.scaling.type is {scaling!r}; only 'none' is supported")
    embedding = file.tensors.get("token_embd.weight")
    head_dim = _number(meta, "llama.attention.key_length", hidden // max(heads, 1))
    if (rotated := _number(meta, "llama.rope.dimension_count", head_dim)) != head_dim:
        raise ModelLoadError(f"RoPE turns {rotated} of a head's {head_dim} values; only whole heads are supported")
    return ModelConfig(
        architecture=GGUF_ARCHITECTURES[architecture],
        vocab_size=embedding.shape[0] if embedding else _number(meta, "llama.vocab_size"),
        hidden_size=hidden,
        intermediate_size=_number(meta, "llama.feed_forward_length"),
        layers=_number(meta, "llama.block_count"),
        heads=heads,
        kv_heads=_number(meta, "llama.attention.head_count_kv", heads),
        head_dim=head_dim,
        norm_eps=_real(meta, "llama.attention.layer_norm_rms_epsilon"),
        rope_base=_real(meta, "llama.rope.freq_base", 10000.0),
        max_length=_number(meta, "llama.context_length"),
        tied="output.weight" not in file.tensors,
    )


def _check_architecture(found: str, known: Collection[str]) -> None:
    if found not in known:
        raise UnknownModel(f"its architecture is {found!r}; the runtime runs: {', '.join(known)}")


def _number(raw: Mapping[str, Value] | Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = raw.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelLoadError(f"{key} is {value!r}; a whole number was expected")
    return value


def _real(raw: Mapping[str, Value] | Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = raw.get(key)
    value = default if value is None else value
    # Compared, not converted: a whole number of a file can be too large for a float.
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= sys.float_info.max:
        raise ModelLoadError(f"{key} is {value!r}; a number above zero was expected")
    return float(value)
