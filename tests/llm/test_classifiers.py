"""A decoder with an adapter and a head gives the logits of transformers' own, however much of a text is cached."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from tests.llm import tiny
from tests.llm.conftest import load_reference
from trackbed.llm.checkpoint import load_model
from trackbed.llm.classifiers import Decoded
from trackbed.llm.errors import ModelLoadError
from trackbed.llm.judge import Adapter
from trackbed.llm.kernels import plain_pass
from trackbed.llm.lora import with_head
from trackbed.llm.safetensors_file import read_safetensors
from trackbed.llm.stored import Stored
from trackbed.llm.windows import Window

RANK, ALPHA, LABELS = 4, 8, 3


def write_lora(file: Path, model: LlamaForCausalLM, layers: int) -> dict[str, torch.Tensor]:
    """A random adapter of every matrix in the first layers, and a head."""
    torch.manual_seed(2)
    hidden = model.config.hidden_size
    tensors = {"head.weight": torch.randn(LABELS, hidden), "head.bias": torch.randn(LABELS)}
    for name, weight in model.model.named_parameters():
        if weight.ndim == 2 and name.startswith("layers.") and int(name.split(".")[1]) < layers:
            part = name.removesuffix(".weight")
            tensors[f"{part}.A"] = torch.randn(RANK, weight.shape[1]) / 8
            tensors[f"{part}.B"] = torch.randn(weight.shape[0], RANK) / 8
    save_file(tensors, file)
    return tensors


def expect(model: LlamaForCausalLM, tensors: dict[str, torch.Tensor], layers: int, ids: list[int]) -> torch.Tensor:
    """[labels], as transformers computes them with the adapter added to its weights."""
    changed = LlamaForCausalLM(model.config)
    changed.load_state_dict(model.state_dict())
    body = changed.model
    with torch.no_grad():
        for name, weight in body.named_parameters():
            part = name.removesuffix(".weight")
            if f"{part}.A" in tensors:
                weight += ALPHA / RANK * tensors[f"{part}.B"] @ tensors[f"{part}.A"]
        body.layers = body.layers[:layers]
        state = body(torch.tensor([ids])).last_hidden_state[0, -1]
        return state @ tensors["head.weight"].T + tensors["head.bias"]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("stored", ["folder", "gguf"])
@pytest.mark.parametrize("kernels", [None, plain_pass])
def test_logits_are_those_of_transformers(tmp_path: Path, layers: int, stored: str, kernels: Any) -> None:
    model = tiny.make()
    path = tmp_path / ("model" if stored == "folder" else "model.gguf")
    if stored == "folder":
        model.save_pretrained(path)
    else:
        tiny.write_gguf(path, model)
    tensors = write_lora(tmp_path / "user.safetensors", model, layers)
    change = with_head(read_safetensors(tmp_path / "user.safetensors"), RANK, ALPHA, layers, LABELS)
    ours = load_model(path, dtype="float32", kernels=kernels, change=change)
    ids = [3, 44, 18, 99, 130, 7]
    found = tiny.forward(ours, tiny.batch((ids, 0, [0])))[-1] + tensors["head.bias"]
    assert tiny.distance(found, expect(model, tensors, layers, ids)) < 1e-4


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1"])
def test_codes_of_changed_weights_lose_little_and_others_stay_as_they_were(tmp_path: Path, kind: str) -> None:
    model = tiny.make(hidden_size=64, intermediate_size=96)
    tiny.write_gguf(tmp_path / "model.gguf", model, kind)
    exact = load_reference(tmp_path / "model.gguf")
    tensors = write_lora(tmp_path / "user.safetensors", model, 2)
    attention = {name: value for name, value in tensors.items() if "mlp" not in name}
    save_file(attention, tmp_path / "user.safetensors")
    change = with_head(read_safetensors(tmp_path / "user.safetensors"), RANK, ALPHA, 2, LABELS, coded=True)
    ids = [3, 44, 18, 99, 130, 7]
    expected = expect(exact, attention, 2, ids)
    # Native kernels make bytes of what they multiply, too.
    for kernels, most in ((plain_pass, 0.06), (None, 0.15)):
        ours = load_model(tmp_path / "model.gguf", kernels=kernels, change=change)
        found = tiny.forward(ours, tiny.batch((ids, 0, [0])))[-1] + tensors["head.bias"]
        assert tiny.distance(found, expected) < most

    def take(name: str, layer: int, shape: tuple[int, ...]) -> Stored:
        return Stored("Q4_1", np.zeros(shape[0] * shape[1] // 32 * 20, np.uint8), shape)

    _, changed = change(ours.config, take)
    assert changed("gate", 0, (96, 64)).kind == "Q4_1"
    assert changed("query", 0, (64, 64)).kind == "Q8_0"


def test_an_adapter_of_more_layers_than_there_are_is_named(tmp_path: Path) -> None:
    model = tiny.make()
    model.save_pretrained(tmp_path / "model")
    write_lora(tmp_path / "user.safetensors", model, 2)
    change = with_head(read_safetensors(tmp_path / "user.safetensors"), RANK, ALPHA, 3, LABELS)
    with pytest.raises(ModelLoadError, match="is for 3 layers; the model has 2"):
        load_model(tmp_path / "model", change=change)


def test_an_adapter_of_another_width_is_named(tmp_path: Path) -> None:
    tiny.make().save_pretrained(tmp_path / "model")
    write_lora(tmp_path / "user.safetensors", tiny.make(hidden_size=64, intermediate_size=44), 2)
    change = with_head(read_safetensors(tmp_path / "user.safetensors"), RANK, ALPHA, 2, LABELS)
    with pytest.raises(ModelLoadError, match=r"user.safetensors: .* expected is a tensor of"):
        load_model(tmp_path / "model", change=change)


@pytest.fixture(scope="module")
def decoded(tiny_chat: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Decoded, dict[str, torch.Tensor]]:
    file = tmp_path_factory.mktemp("adapter") / "user.safetensors"
    tensors = write_lora(file, LlamaForCausalLM.from_pretrained(tiny_chat), 2)
    shape = Adapter(
        file=file.name, labels=("a", "b", "c"), layers=2, rank=RANK, alpha=ALPHA, tokens=40, scale=1, shift=0
    )
    return Decoded(file, tiny_chat, shape, 2, "float32", 1), tensors


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text("ab c\n", max_size=60), min_size=1, max_size=5))
def test_what_was_read_before_changes_nothing(
    decoded: tuple[Decoded, dict[str, torch.Tensor]], tiny_chat: Path, texts: list[str]
) -> None:
    ours, tensors = decoded
    model = LlamaForCausalLM.from_pretrained(tiny_chat)
    for text in texts:
        for window in ours.windows(text):
            expected = expect(model, tensors, 2, window.ids).numpy()
            np.testing.assert_allclose(ours.logits(window), expected, rtol=1e-3, atol=1e-3)


def test_a_pass_that_fails_leaves_no_wrong_cache(decoded: tuple[Decoded, dict[str, torch.Tensor]]) -> None:
    ours, _ = decoded
    (window,) = ours.windows("a b c")
    before = ours.logits(window)
    wrong = Window([*window.ids[:-2], 10**6, window.ids[-1]], [0] * len(window.ids))
    with pytest.raises(ValueError, match="token"):
        ours.logits(wrong)
    np.testing.assert_allclose(ours.logits(window), before, rtol=1e-4, atol=1e-4)
