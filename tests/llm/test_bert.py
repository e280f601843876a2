"""The encoder's states are those of transformers in float32."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from trackbed.llm.catalogue import locate
from trackbed.llm.errors import ModelLoadError
from trackbed.llm.models.bert import Bert

SIZES: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "max_position_embeddings": 40,
}


def make(folder: Path, **changes: Any) -> BertModel:
    torch.manual_seed(0)
    model = BertModel(BertConfig(**{**SIZES, **changes}), add_pooling_layer=False).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if name.endswith("LayerNorm.weight") else 0.0, 0.2)
    model.save_pretrained(folder)
    return model


def expected(model: BertModel, ids: list[int], kinds: list[int]) -> np.ndarray[Any, Any]:
    with torch.inference_mode():
        states = model(torch.tensor([ids]), token_type_ids=torch.tensor([kinds])).last_hidden_state
    found: np.ndarray[Any, Any] = states[0].numpy()
    return found


@pytest.mark.parametrize("length", [1, 2, 17, 40])
@pytest.mark.parametrize("changes", [{}, {"num_attention_heads": 1}, {"layer_norm_eps": 0.1}, {"dtype": "float16"}])
def test_states_are_those_of_transformers(tmp_path: Path, changes: dict[str, Any], length: int) -> None:
    model = make(tmp_path, **changes).float()
    ids = np.random.default_rng(length).integers(0, 120, length).tolist()
    kinds = [0] * (length // 2) + [1] * (length - length // 2)
    found = Bert(tmp_path, threads=2).forward(ids, kinds)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(model, ids, kinds), rtol=1e-4, atol=1e-4)


def test_bytes_stay_close(tmp_path: Path) -> None:
    model = make(tmp_path)
    ids = list(range(1, 31))
    found, exact = Bert(tmp_path, dtype="int8").forward(ids), expected(model, ids, [0] * 30)
    assert 0 < np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


def test_weights_can_be_changed_while_loading(tmp_path: Path) -> None:
    model = make(tmp_path)
    name = "encoder.layer.1.output.dense.weight"
    bert = Bert(tmp_path, change=lambda found, weight: 2 * weight if found == name else weight)
    with torch.no_grad():
        model.get_parameter(name).mul_(2)
    np.testing.assert_allclose(bert.forward([5, 6, 7]), expected(model, [5, 6, 7], [0] * 3), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("ids", "words"), [([], "0 tokens"), ([1] * 41, "41 tokens"), ([120], "vocabulary"), ([-1], "vocabulary")]
)
def test_what_it_cannot_read_is_refused(tmp_path: Path, ids: list[int], words: str) -> None:
    make(tmp_path)
    with pytest.raises(ValueError, match=words):
        Bert(tmp_path).forward(ids)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("hidden_act", "relu", "hidden_act gelu"),
        ("num_attention_heads", 5, "divide"),
        ("num_hidden_layers", 3, "has no tensor 'encoder.layer.2"),
        ("intermediate_size", 64, r"is \[96, 48\]; expected is \[64, 48\]"),
        ("hidden_size", "wide", "does not describe a BERT"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(tmp_path: Path, key: str, value: object, words: str) -> None:
    make(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(ModelLoadError, match=words):
        Bert(tmp_path)


@pytest.mark.models
def test_minilm_gives_the_states_of_transformers(model_cache: Path) -> None:
    folder = locate("all-minilm-l6-v2", model_cache)
    ids = [101, 2129, 2079, 1045, 5587, 1037, 4334, 2000, 1037, 3343, 1029, 102]
    model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    np.testing.assert_allclose(Bert(folder).forward(ids), expected(model, ids, [0] * 12), rtol=1e-3, atol=1e-4)
