"""An adapter of a model that answers: a folder with low-rank changes (LoRA), which are added while the model is loaded.

A folder is of this package's form, `adapter.json` and `adapter.safetensors`; those that ship are under `llm/adapters/`,
each with its card. Or it is as peft writes it: `adapter_config.json` and `adapter_model.safetensors`. LoRA: Hu et al.
2021, arXiv:2106.09685. This file knows tensors and their names. It knows nothing of prompts.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trackbed.llm.config import ModelConfig
from trackbed.llm.errors import ModelLoadError
from trackbed.llm.kernels import cpu
from trackbed.llm.lora import PLAIN, Floats, in_order, numbers, tensor
from trackbed.llm.models.llama import Llama
from trackbed.llm.safetensors_file import SafetensorsFile, read_safetensors
from trackbed.llm.stored import DType, Stored, Take

DESCRIPTION, PEFT = "adapter.json", "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
MATRICES = ("query", "key", "value", "output", "gate", "up", "down")  # of a layer, by our names
MAX_RANK = 4096
Model = TypeVar("Model", bound=BaseModel)


class Described(BaseModel):
    """What adapter.json says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    base: str  # the model's name in the catalogue
    file: str = Field(pattern=r"^[\w-]+\.safetensors$")
    rank: int = Field(ge=1, le=MAX_RANK)
    alpha: float = Field(gt=0)


class PeftDescribed(BaseModel):
    """What adapter_config.json says, as far as it changes what is added; other keys are about training."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    peft_type: Literal["LORA"]
    r: int = Field(ge=1, le=MAX_RANK)
    lora_alpha: float = Field(gt=0)
    use_rslora: bool = False
    # Each of these adds something else than B A, by a rule that is not read here.
    bias: Literal["none"] = "none"
    use_dora: Literal[False] = False
    fan_in_fan_out: Literal[False] = False
    lora_bias: Literal[False] = False
    rank_pattern: dict[str, int] = Field({}, max_length=0)
    alpha_pattern: dict[str, float] = Field({}, max_length=0)
    modules_to_save: list[str] | None = Field(None, max_length=0)
    layer_replication: list[Any] | None = Field(None, max_length=0)
    trainable_token_indices: list[int] | dict[str, list[int]] | None = Field(None, max_length=0)
    target_parameters: list[str] | None = Field(None, max_length=0)


class Pair(NamedTuple):
    """The names of the two tensors whose product is added to a weight."""

    a: str  # [rank, columns]
    b: str  # [rows, rank]


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter's tensors, and how much of them is added."""

    file: SafetensorsFile
    rank: int
    factor: float
    pairs: Mapping[str, Pair]  # by the weight's name, as in layers.0.self_attn.q_proj
    base: str = ""  # the model's name in the catalogue, where the folder says one


def read_adapter(folder: Path) -> Adapter:
    """The adapter of a folder. Raises ModelLoadError."""
    if (folder / DESCRIPTION).is_file():
        ours = _described(Described, folder / DESCRIPTION)
        file = read_safetensors(folder / ours.file)
        pairs = _pairs(file, "", ".A", ".B")
        return Adapter(file, ours.rank, ours.alpha / ours.rank, pairs, ours.base)
    if (folder / PEFT).is_file():
        theirs = _described(PeftDescribed, folder / PEFT)
        file = read_safetensors(folder / PEFT_WEIGHTS)
        pairs = _pairs(file, "base_model.model.", ".lora_A.weight", ".lora_B.weight")
        by = math.sqrt(theirs.r) if theirs.use_rslora else theirs.r
        return Adapter(file, theirs.r, theirs.lora_alpha / by, pairs)
    raise ModelLoadError(f"{folder} holds no adapter: expected is a folder with {DESCRIPTION}, or with peft's {PEFT}")


def merging(adapter: Adapter, dtype: DType = "auto") -> Callable[[ModelConfig, Take], tuple[ModelConfig, Take]]:
    """What adds an adapter to a model: W + factor * B A, in the form that W is stored in.

    Codes become codes of 8 bits, since 4 say too little to hold a small change; or numbers, where the model is to run
    on numbers. Raises ModelLoadError, there or while weights are taken, where the adapter does not fit.
    """

    def change(config: ModelConfig, take: Take) -> tuple[ModelConfig, Take]:
        known = {_part(name, layer) for layer in range(config.layers) for name in MATRICES}
        if unknown := sorted(set(adapter.pairs) - known):
            raise ModelLoadError(
                f"{adapter.file.path}: {unknown[0][:80]!a} is no matrix of this model of {config.layers} layers; "
                "the adapter was made for another one"
            )

        def changed(name: str, layer: int, shape: tuple[int, ...]) -> Stored:
            found = take(name, layer, shape)
            pair = adapter.pairs.get(_part(name, layer)) if name in MATRICES else None
            if pair is None:
                return found
            a = tensor(adapter.file, pair.a, (adapter.rank, shape[1]))
            b = tensor(adapter.file, pair.b, (shape[0], adapter.rank))
            return _like(found, in_order(found) + np.float32(adapter.factor) * (b @ a), dtype)

        return config, changed

    return change


def _part(name: str, layer: int) -> str:
    return Llama.names[name][0].format(i=layer).removeprefix("model.").removesuffix(".weight")


def _like(found: Stored, weight: Floats, dtype: DType) -> Stored:
    """A changed weight in the form that it was stored in."""
    if found.kind == "F16":
        half = np.ascontiguousarray(weight.astype(np.float16))
        return Stored("F16", half.view(np.uint8).reshape(-1), weight.shape)
    if found.kind == "BF16":
        bits = np.ascontiguousarray(weight).view(np.uint32)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to the nearest, ties to even
        return Stored("BF16", rounded.view(np.uint8).reshape(-1), weight.shape)
    plain = numbers(weight)
    if found.kind in PLAIN or dtype in ("float32", "bfloat16"):
        return plain
    return cpu.encode(plain, "int8")


def _pairs(file: SafetensorsFile, prefix: str, a: str, b: str) -> dict[str, Pair]:
    """The pairs of a file's tensors; there is nothing else in it. Raises ModelLoadError."""
    pairs = {}
    for name in file.tensors:
        stem = name.removesuffix(a).removesuffix(b)
        if stem == name or not name.startswith(prefix) or not {stem + a, stem + b} <= file.tensors.keys():
            raise ModelLoadError(
                f"{file.path}: {name[:80]!a} is not one of two tensors of an adapter, {prefix}...{a} and {prefix}...{b}"
            )
        pairs[stem.removeprefix(prefix).removeprefix("model.")] = Pair(stem + a, stem + b)
    if not pairs:
        raise ModelLoadError(f"{file.path} holds no tensors")
    return pairs


def _described(kind: type[Model], path: Path) -> Model:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelLoadError(f"{path} does not describe an adapter that is read here: {error}") from error
