"""A model that reads a question beside a text, against transformers on a tiny random checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from trackbed.llm.cross_encoder import CrossEncoder
from trackbed.llm.errors import ModelLoadError
from trackbed.retrieval.types import PairScorer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "barks", "a", "dog", "cat", "at", "the", "door", "sleeps"]
TEXTS = ("a dog barks at the door", "the cat sleeps", "a", "door " * 100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cross")
    (path / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(path / "vocab.txt"), model_max_length=32).save_pretrained(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=1.0,
        num_labels=1,
    )
    BertForSequenceClassification(config).save_pretrained(path)
    return path


def test_a_score_is_the_sigmoid_of_the_model_s_logit(folder: Path) -> None:
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    scorer: PairScorer = CrossEncoder(str(folder), folder)
    scores = scorer.score("who barks", TEXTS)
    with torch.inference_mode():
        for text, score in zip(TEXTS, scores, strict=True):
            read = tokenizer("who barks", text, truncation=True, max_length=32, return_tensors="pt")
            assert score == pytest.approx(torch.sigmoid(model(**read).logits).item(), abs=1e-5)
    assert scores.dtype == np.float32
    assert len(set(scores.round(4).tolist())) > 1


def test_no_texts_have_no_scores_and_any_text_has_one(folder: Path) -> None:
    scorer = CrossEncoder(str(folder), folder)
    assert scorer.score("who", []).shape == (0,)
    assert scorer.score("lone \ud800", ["", "\0", "\udfff"]).shape == (3,)


def test_a_classifier_and_a_folder_of_something_else_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=f"{tmp_path} is not a cross-encoder"):
        CrossEncoder(str(tmp_path), tmp_path)
    described = json.loads((folder / "config.json").read_text())
    described["id2label"] = {"0": "no", "1": "yes", "2": "maybe"}
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(ModelLoadError, match="it has 3 labels, and 1 is expected"):
        CrossEncoder(str(tmp_path), tmp_path)


def test_weights_that_do_not_load_are_a_model_load_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelLoadError, match=f"{tmp_path} is not a cross-encoder that sentence-transformers loads"):
        CrossEncoder(str(tmp_path), tmp_path).score("who", ["a"])


def test_making_one_loads_no_model(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from trackbed.llm.cross_encoder import CrossEncoder\n"
        "CrossEncoder(sys.argv[1], Path(sys.argv[1])); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
