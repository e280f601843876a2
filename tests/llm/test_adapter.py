"""A model with an adapter in it gives the logits of peft's merged model, whatever file the weights stand in."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from tests.llm import tiny
from trackbed.llm.adapter import merging, read_adapter
from trackbed.llm.checkpoint import load_model
from trackbed.llm.config import ModelConfig
from trackbed.llm.errors import ModelLoadError
from trackbed.llm.stored import DType, Stored, Take

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
RANK, ALPHA = 4, 12.0
IDS = [5, 9, 77, 3, 101, 42, 8]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WIDE = {"hidden_size": 64, "intermediate_size": 96, "tie_word_embeddings": True}  # whole blocks of codes


def write_peft(folder: Path, model: LlamaForCausalLM, **changes: Any) -> LlamaForCausalLM:
    """A random adapter as peft writes it; the model with it merged."""
    torch.manual_seed(3)
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    config = LoraConfig(**{"r": RANK, "lora_alpha": ALPHA, "target_modules": TARGETS, "bias": "none"} | changes)
    changed = get_peft_model(copy, config)
    with torch.no_grad():
        for name, weight in changed.named_parameters():
            if "lora_" in name:
                weight.normal_(0.0, 0.15)
    changed.save_pretrained(folder)
    merged = PeftModel.from_pretrained(model, folder).merge_and_unload()
    assert isinstance(merged, LlamaForCausalLM)
    return merged.eval()


def write_ours(folder: Path, peft: Path, base: str = "smollm2-135m-instruct") -> None:
    """The same adapter in this package's form."""
    folder.mkdir()
    tensors = {
        name.removeprefix("base_model.model.model.").replace(".lora_A.weight", ".A").replace(".lora_B.weight", ".B"): t
        for name, t in load_file(peft / "adapter_model.safetensors").items()
    }
    save_file(tensors, folder / "adapter.safetensors")
    described = {"format": 1, "base": base, "file": "adapter.safetensors", "rank": RANK, "alpha": ALPHA}
    (folder / "adapter.json").write_text(json.dumps(described))


def logits(path: Path, adapter: Path, dtype: DType = "float32") -> torch.Tensor:
    """Of IDS, by the model of a file with an adapter in it."""
    model = load_model(path, change=merging(read_adapter(adapter), dtype), dtype=dtype, threads=1)
    return tiny.forward(model, tiny.batch((IDS, 0, [0])))


def expected(model: LlamaForCausalLM) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([IDS])).logits[0]
    return found


@pytest.mark.parametrize("stored", ["safetensors", "gguf"])
@pytest.mark.parametrize("form", ["ours", "peft"])
def test_logits_are_those_of_pefts_merged_model(tmp_path: Path, stored: str, form: str) -> None:
    model = tiny.make()
    path = tmp_path / "model"
    if stored == "gguf":
        path = tmp_path / "model.gguf"
        tiny.write_gguf(path, model)
    else:
        model.save_pretrained(path)
    plain = expected(model)
    merged = write_peft(tmp_path / "peft", model)
    write_ours(tmp_path / "ours", tmp_path / "peft")
    found = logits(path, tmp_path / form)
    assert tiny.distance(found, expected(merged)) < 1e-5
    assert tiny.distance(plain, expected(merged)) > 0.1


def test_of_an_adapter_scaled_by_the_root_of_its_rank_too(tmp_path: Path) -> None:
    model = tiny.make()
    model.save_pretrained(tmp_path / "model")
    merged = write_peft(tmp_path / "peft", model, use_rslora=True)
    assert tiny.distance(logits(tmp_path / "model", tmp_path / "peft"), expected(merged)) < 1e-5


def test_of_an_adapter_of_some_matrices_alone(tmp_path: Path) -> None:
    model = tiny.make()
    model.save_pretrained(tmp_path / "model")
    merged = write_peft(tmp_path / "peft", model, target_modules=["q_proj", "down_proj"], layers_to_transform=[1])
    assert tiny.distance(logits(tmp_path / "model", tmp_path / "peft"), expected(merged)) < 1e-5


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 0.01), ("bfloat16", 0.05)])
def test_weights_of_half_precision_stay_so_and_are_close(tmp_path: Path, dtype: str, bound: float) -> None:
    model = tiny.make().to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "model")
    merged = write_peft(tmp_path / "peft", model.float())
    assert tiny.distance(logits(tmp_path / "model", tmp_path / "peft", "auto"), expected(merged)) < bound


def test_codes_become_codes_of_8_bits_and_are_close(tmp_path: Path) -> None:
    model = tiny.make(**WIDE)
    path = tmp_path / "model.gguf"
    tiny.write_gguf(path, model, "Q4_1")
    unpacked = tiny.read_gguf(path)
    merged = write_peft(tmp_path / "peft", tiny.read_gguf(path))
    taken: list[str] = []

    def noting(config: ModelConfig, take: Take) -> tuple[ModelConfig, Take]:
        given, changed = merging(read_adapter(tmp_path / "peft"))(config, take)

        def weigh(name: str, layer: int, shape: tuple[int, ...]) -> Stored:
            found = changed(name, layer, shape)
            taken.append(f"{name} {found.kind}")
            return found

        return given, weigh

    load_model(path, change=noting, threads=1)
    assert {"query Q8_0", "down Q8_0", "embedding Q4_1"} <= set(taken)
    # What a pass computes is rounded to 8 bits too.
    assert tiny.distance(logits(path, tmp_path / "peft", "auto"), expected(merged)) < 0.1
    assert tiny.distance(expected(unpacked), expected(merged)) > 0.5
    assert tiny.distance(logits(path, tmp_path / "peft"), expected(merged)) < 1e-4


def test_a_folder_without_an_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"holds no adapter: expected is a folder with adapter\.json"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    "change", [{"use_dora": True}, {"bias": "all"}, {"peft_type": "IA3"}, {"modules_to_save": ["lm_head"]}, {"r": 0}]
)
def test_what_peft_can_do_and_is_not_read_here_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    write_peft(tmp_path, tiny.make())
    described = json.loads((tmp_path / "adapter_config.json").read_bytes())
    (tmp_path / "adapter_config.json").write_text(json.dumps(described | change))
    with pytest.raises(ModelLoadError, match=f"does not describe an adapter(.|\n)*{next(iter(change))}"):
        read_adapter(tmp_path)


def test_an_adapter_of_more_layers_is_named(tmp_path: Path) -> None:
    tiny.make().save_pretrained(tmp_path / "model")
    write_peft(tmp_path / "peft", tiny.make(num_hidden_layers=3))
    with pytest.raises(ModelLoadError, match=r"'layers.2.* is no matrix of this model of 2 layers"):
        logits(tmp_path / "model", tmp_path / "peft")


def test_an_adapter_of_another_width_is_named(tmp_path: Path) -> None:
    tiny.make().save_pretrained(tmp_path / "model")
    write_peft(tmp_path / "peft", tiny.make(**WIDE))
    with pytest.raises(ModelLoadError, match=r"expected is a tensor of \[4, 32\]"):
        logits(tmp_path / "model", tmp_path / "peft")


def test_a_tensor_that_is_no_part_of_an_adapter_is_refused(tmp_path: Path) -> None:
    write_peft(tmp_path, tiny.make())
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    save_file({**tensors, "base_model.model.lm_head.weight": torch.zeros(2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelLoadError, match=r"lm_head\.weight' is not one of two tensors of an adapter"):
        read_adapter(tmp_path)


def test_half_a_pair_is_refused(tmp_path: Path) -> None:
    write_peft(tmp_path, tiny.make())
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    tensors.pop("base_model.model.model.layers.0.mlp.down_proj.lora_B.weight")
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelLoadError, match="is not one of two tensors of an adapter"):
        read_adapter(tmp_path)
