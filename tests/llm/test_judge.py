"""A judge's figures are those of its encoder with the adapter in it, and it is asked as any guard model is."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertModel

from tests.llm import test_bert
from trackbed.llm.catalogue import CATALOGUE, Shipped
from trackbed.llm.errors import LLMError, ModelLoadError, UnknownModel
from trackbed.llm.judge import Judge
from trackbed.llm.types import Message, Part, RawPrompt, SamplingParams

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "day", "night", "##s", "is", "a", "[", "]"]
WORDS += [f"w{n}" for n in range(100)]
LABELS = ("unsafe", "S1", "S10")


def write_base(folder: Path) -> BertModel:
    """A random encoder and its tokenizer."""
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return test_bert.make(folder)


def write_judge(folder: Path, base: Path, tokens: int = 16, **changes: Any) -> dict[str, torch.Tensor]:
    """A judge of users' messages with a random adapter; its tensors."""
    torch.manual_seed(1)
    tensors = {
        "encoder.layer.1.output.dense.A": torch.randn(4, 96) / 4,
        "encoder.layer.1.output.dense.B": torch.randn(48, 4) / 4,
        "head.weight": torch.randn(3, 48) / 4,
        "head.bias": torch.randn(3),
    }
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "user.safetensors")
    user = {"file": "user.safetensors", "labels": LABELS, "rank": 4, "alpha": 8, "scale": 0.5, "shift": 0.1}
    user["tokens"] = tokens
    described = {"format": 1, "base": str(base), "roles": {"user": user}, **changes}
    (folder / "judge.json").write_text(json.dumps(described))
    return tensors


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    base = tmp_path / "base"
    base.mkdir()
    write_base(base)
    write_judge(tmp_path / "judge", base)
    return Judge(tmp_path / "judge", tmp_path)


def test_figures_are_those_of_the_encoder_with_the_adapter_in_it(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    model = write_base(base)
    tensors = write_judge(tmp_path / "judge", base)
    change = tensors["encoder.layer.1.output.dense.B"] @ tensors["encoder.layer.1.output.dense.A"]
    dense = model.encoder.layer[1].output.dense
    dense.weight = torch.nn.Parameter(dense.weight.detach() + 8 / 4 * change)
    ids = [WORDS.index(word) for word in ("[CLS]", "a", "bad", "day", "##s", "[SEP]")]
    with torch.inference_mode():
        state = model(torch.tensor([ids])).last_hidden_state[0].mean(0)
        logits = state @ tensors["head.weight"].T + tensors["head.bias"]
    logits = logits * torch.tensor([0.5, 1, 1]) + torch.tensor([0.1, 0, 0])
    found = Judge(tmp_path / "judge", tmp_path).judge("a bad days")
    np.testing.assert_allclose(list(found.probabilities.values()), torch.sigmoid(logits).numpy(), rtol=1e-4)
    assert found.tokens == 6


def test_the_worst_window_counts(judge: Judge) -> None:
    parts = ["bad night " * 6, "good day " * 6]
    each = [judge.judge(part).probabilities["unsafe"] for part in parts]
    whole = judge.judge("".join(parts))
    assert whole.tokens > 26
    assert whole.probabilities["unsafe"] >= max(each) - 0.2
    assert judge.judge(parts[0] * 20).probabilities["unsafe"] == pytest.approx(
        judge.judge(parts[0] * 5).probabilities["unsafe"], rel=0.2
    )


def test_a_role_without_an_adapter_is_judged_by_the_message_alone(judge: Judge) -> None:
    assert judge.judge("bad day", "good night", "assistant") == judge.judge("bad day")
    assert judge.judge("bad day", "good night") != judge.judge("bad day")


async def test_scores_are_the_logarithms_of_its_probabilities(judge: Judge) -> None:
    found = judge.judge("bad day").probabilities
    prompt = (Message("user", "good night"), Message("user", "bad day"))
    unsafe, safe, hate = await judge.score(prompt, ("\n\nunsafe", "safe", "S10"))
    assert unsafe == pytest.approx(math.log(found["unsafe"]))
    assert math.exp(unsafe) + math.exp(safe) == pytest.approx(1)
    assert hate == pytest.approx(math.log(found["S10"]))
    assert await judge.score(RawPrompt((Part("bad "), Part("day"))), ("unsafe",)) == pytest.approx((unsafe,))


async def test_it_answers_as_a_guard_model_does(judge: Judge) -> None:
    for text in ("good day", "bad night", "a", "night is bad"):
        found = judge.judge(text)
        answer = await judge.generate((Message("user", text),), SamplingParams())
        first, _, kinds = answer.text.partition("\n")
        assert first == ("unsafe" if found.probabilities["unsafe"] >= 0.5 else "safe")
        assert bool(kinds) == (first == "unsafe")
        assert (first, *kinds.split(",")) == (found.labels if found.labels else ("safe", ""))
        assert [delta.completion async for delta in judge.stream((Message("user", text),), SamplingParams())] == [
            answer
        ]


async def test_a_word_that_is_no_label_is_refused(judge: Judge) -> None:
    with pytest.raises(LLMError, match="cannot say 'Yes'; it says one of: unsafe, S1, S10, safe"):
        await judge.score((Message("user", "good day"),), ("Yes",))
    with pytest.raises(LLMError, match="needs a message"):
        await judge.generate((), SamplingParams())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "format"),
        ({"roles": {}}, "roles"),
        ({"more": 1}, "more"),
        ({"roles": {"user": {"file": "../x.safetensors"}}}, "file"),
    ],
)
def test_a_description_that_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    base = tmp_path / "base"
    base.mkdir()
    write_base(base)
    write_judge(tmp_path / "judge", base, **changes)
    with pytest.raises(ModelLoadError, match=words):
        Judge(tmp_path / "judge", tmp_path).judge("good day")


def test_a_window_longer_than_the_encoder_reads_is_named(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    write_base(base)
    write_judge(tmp_path / "judge", base, tokens=64)
    with pytest.raises(ModelLoadError, match="reads no more than 40"):
        Judge(tmp_path / "judge", tmp_path).judge("good day")


def test_a_damaged_adapter_is_named(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    write_base(base)
    tensors = write_judge(tmp_path / "judge", base)
    save_file({**tensors, "head.weight": torch.zeros(2, 48)}, tmp_path / "judge" / "user.safetensors")
    with pytest.raises(ModelLoadError, match=r"user.safetensors: head.weight: expected is a tensor of \[3, 48\]"):
        Judge(tmp_path / "judge", tmp_path).judge("good day")


SHIPPED = [name for name, entry in CATALOGUE.items() if isinstance(entry.source, Shipped)]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_judge_that_ships_has_a_card_that_names_its_data_and_its_figures(name: str) -> None:
    source = CATALOGUE[name].source
    assert isinstance(source, Shipped)
    card = (source.folder / "card.md").read_text(encoding="utf-8")
    for heading in ("## What it is for", "## Data and licences", "## Recipe", "## Figures", "## Limits"):
        assert heading in card


async def test_where_an_adapter_knows_no_kinds_they_are_told_of_what_was_answered(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    write_base(base)
    tensors = write_judge(tmp_path / "judge", base)
    described = json.loads((tmp_path / "judge" / "judge.json").read_text())
    for role, bias in (("sure", 9.0), ("unsure", -9.0)):
        one = {"head.weight": torch.zeros(1, 48), "head.bias": torch.tensor([bias])}
        changes = {name: value for name, value in tensors.items() if not name.startswith("head")}
        save_file({**changes, **one}, tmp_path / "judge" / f"{role}.safetensors")
    user = described["roles"]["user"]
    for role, names in (("sure", ("unsafe", "S1", "S10")), ("unsure", ("unsafe",))):
        described["roles"]["assistant"] = {**user, "file": f"{role}.safetensors", "labels": ["unsafe"]}
        (tmp_path / "judge" / "judge.json").write_text(json.dumps(described))
        judge = Judge(tmp_path / "judge", tmp_path)
        found = judge.judge("w1 w2", "bad day", "assistant")
        assert tuple(found.probabilities) == names
        if role == "sure":
            asked = judge.judge("bad day").probabilities
            assert {kind: found.probabilities[kind] for kind in names[1:]} == {kind: asked[kind] for kind in names[1:]}
            alone = judge.judge("bad day", "", "assistant").probabilities
            assert alone["S1"] == asked["S1"], "of the message, where it answers nothing"
            answer = await judge.generate((Message("user", "bad day"), Message("assistant", "w1")), SamplingParams())
            assert answer.text.splitlines()[0] == "unsafe"
            assert set(answer.text.splitlines()[1].split(",")) <= {"S1", "S10"}


def test_roles_that_a_judge_has_no_adapter_for_are_for_the_one_it_names(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    write_base(base)
    write_judge(tmp_path / "other", base)
    described = json.loads((tmp_path / "other" / "judge.json").read_text())
    described["roles"]["assistant"] = described["roles"].pop("user")
    (tmp_path / "other" / "judge.json").write_text(json.dumps(described))
    write_judge(tmp_path / "judge", base, otherwise=str(tmp_path / "other"))
    judge, other = Judge(tmp_path / "judge", tmp_path), Judge(tmp_path / "other", tmp_path)
    assert judge.judge("bad day", "good night", "assistant") == other.judge("bad day", "good night", "assistant")
    assert judge.judge("bad day", "good night", "assistant") != judge.judge("bad day")


def test_a_judge_that_is_named_for_the_others_and_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    write_base(base)
    write_judge(tmp_path / "judge", base, otherwise="minilm-gard")
    with pytest.raises(UnknownModel, match="minilm-guard"):
        Judge(tmp_path / "judge", tmp_path)
