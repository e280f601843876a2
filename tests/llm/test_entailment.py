"""A cross-encoder by path says what transformers says, whatever its labels are called."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from trackbed.llm.entailment import Entailment, is_entailment, meanings
from trackbed.llm.errors import LLMError, ModelLoadError
from trackbed.llm.types import Message, SamplingParams

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += ["the", "library", "opens", "at", "nine", "it", "is", "closed", "[", "sep", "]", "."]
TEXT, CLAIM = "the library opens at nine .", "it is closed"
THREE = ("CONTRADICTION", "entailment", "Neutral")


def folder(path: Path, labels: tuple[str, ...]) -> Path:
    """A small random checkpoint."""
    (path / "vocab.txt").write_text("\n".join(dict.fromkeys(WORDS)))
    BertTokenizerFast(vocab_file=str(path / "vocab.txt"), model_max_length=32).save_pretrained(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(dict.fromkeys(WORDS)),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    BertForSequenceClassification(config).save_pretrained(path)
    return path


def logits(path: Path, text: str, claim: str) -> torch.Tensor:
    tokenizer = BertTokenizerFast.from_pretrained(path)
    model = BertForSequenceClassification.from_pretrained(path).eval()
    with torch.inference_mode():
        found: torch.Tensor = model(**tokenizer(text, claim, return_tensors="pt")).logits[0]
    return found


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (THREE, lambda x: x.softmax(-1)[[1, 0, 2]].tolist()),
        (("neutral", "entailment", "contradiction"), lambda x: x.softmax(-1)[[1, 2, 0]].tolist()),
        (("not_entailment", "entailment"), lambda x: [x.softmax(-1)[1].item(), 0.0, x.softmax(-1)[0].item()]),
        (("hallucinated", "consistent"), lambda x: [x.softmax(-1)[1].item(), 0.0, x.softmax(-1)[0].item()]),
        (("LABEL_0",), lambda x: [x.sigmoid().item(), 0.0, 1 - x.sigmoid().item()]),
    ],
)
def test_probabilities_are_those_of_transformers(tmp_path: Path, labels: tuple[str, ...], expected: Any) -> None:
    path = folder(tmp_path, labels)
    found = Entailment(path).judge(TEXT, CLAIM)
    assert list(found.values()) == pytest.approx(expected(logits(path, TEXT, CLAIM)), abs=1e-6)


def test_of_a_long_text_the_window_that_supports_the_claim_best_counts(tmp_path: Path) -> None:
    path = folder(tmp_path, THREE)
    words = "nine at opens library the is it . " * 12 + TEXT + " closed is . " * 12
    found = Entailment(path).judge(words, CLAIM)["supported"]
    one = logits(path, TEXT, CLAIM).softmax(-1)[1].item()
    assert found != pytest.approx(one, abs=1e-6)
    spans = words.split()
    windows = [" ".join(spans[at : at + 26]) for at in [*range(0, len(spans) - 26 + 20, 20)]]
    assert found == pytest.approx(max(logits(path, w, CLAIM).softmax(-1)[1].item() for w in windows), abs=1e-6)


async def test_it_is_asked_as_any_judge_is(tmp_path: Path) -> None:
    encoder = Entailment(folder(tmp_path, THREE))
    prompt = (Message("system", TEXT), Message("user", "when?"), Message("assistant", CLAIM))
    scores = await encoder.score(prompt, ("supported", "contradicted", "unsupported"))
    assert sum(2.718281828459045**score for score in scores) == pytest.approx(1.0)
    said = (await encoder.generate(prompt, SamplingParams())).text
    assert said == ("supported", "contradicted", "unsupported")[scores.index(max(scores))]
    with pytest.raises(LLMError, match="'safe'"):
        await encoder.score(prompt, ("safe",))


def test_what_is_written_as_a_mark_is_none(tmp_path: Path) -> None:
    encoder = Entailment(folder(tmp_path, THREE))
    assert encoder.judge("it [SEP] is", CLAIM) == encoder.judge("it [ SEP] is", CLAIM)
    assert encoder.judge("", "") != {}
    assert encoder.judge("it \ud800 is", CLAIM) != {}


def test_a_folder_is_a_cross_encoder_where_its_config_says_so(tmp_path: Path) -> None:
    assert not is_entailment(tmp_path)
    assert is_entailment(folder(tmp_path, THREE))


@pytest.mark.parametrize("labels", [("LABEL_0", "LABEL_1"), ("entailment", "happy"), ("neutral", "contradiction")])
def test_labels_that_say_nothing_of_entailment_are_refused(tmp_path: Path, labels: tuple[str, ...]) -> None:
    with pytest.raises(ModelLoadError, match="id2label"):
        Entailment(folder(tmp_path, labels))


def test_a_single_score_is_that_of_support() -> None:
    assert meanings(["anything"]) == ()
