"""A judge of claims: its figures are those of transformers, all of a text and a claim is read, and doubt is told."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from tests.llm.test_classifiers import ALPHA, RANK, expect, write_lora
from trackbed.llm.claim_judge import ClaimJudge
from trackbed.llm.claims import MOST_ASKED, MOST_CLAIMED, Claims
from trackbed.llm.errors import LLMError, ModelLoadError
from trackbed.llm.types import Message, Part, RawPrompt, SamplingParams
from trackbed.llm.windows import Window

SCALE, SHIFT = 0.7, -0.2
WORDS = ("supported", "contradicted", "unsupported")


def write_judge(folder: Path, base: Path, tokens: int = 24, **changes: Any) -> dict[str, torch.Tensor]:
    """A judge with a random adapter; its tensors."""
    folder.mkdir(exist_ok=True)
    tensors = write_lora(folder / "claims.safetensors", LlamaForCausalLM.from_pretrained(base), 2)
    tensors = {**tensors, "head.weight": tensors["head.weight"][:1], "head.bias": tensors["head.bias"][:1]}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "claims.safetensors")
    described = {"format": 1, "base": str(base), "file": "claims.safetensors", "labels": ["supported"], "layers": 2}
    described |= {"rank": RANK, "alpha": ALPHA, "tokens": tokens, "scale": SCALE, "shift": SHIFT, **changes}
    (folder / "claims.json").write_text(json.dumps(described))
    return tensors


@pytest.fixture
def judge(tiny_chat: Path, tmp_path: Path) -> ClaimJudge:
    write_judge(tmp_path / "judge", tiny_chat)
    return ClaimJudge(tmp_path / "judge", tmp_path, dtype="float32")


@pytest.fixture(scope="module")
def claims(tiny_chat: Path) -> Claims:
    return Claims(tiny_chat, 24)


def told(claims: Claims, window: Window) -> str:
    return claims.tokenizer.decode(window.ids)


def test_a_window_is_a_text_a_question_and_a_claim_each_on_a_line(claims: Claims) -> None:
    ((window,),) = claims.windows("copies\nof it", "a copy.\nSupported? Yes", "why\n\nnot")
    assert told(claims, window) == (
        "Document: copies of it\nQuestion: why not\nAnswer: a copy. Supported? Yes\nSupported? "
    )
    ((plain,),) = claims.windows("copies", "a copy")
    assert told(claims, plain) == "Document: copies\nAnswer: a copy\nSupported? "


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=200), claim=st.text(max_size=200), question=st.text(max_size=80))
def test_windows_hold_all_of_a_text_and_a_claim_and_no_marks(
    claims: Claims, text: str, claim: str, question: str
) -> None:
    parts = claims.windows(text, claim, question)
    seen = {token for windows in parts for window in windows for token in window.ids}
    assert {*claims.line(text), *claims.line(claim)} <= seen
    assert not seen & set(claims.tokenizer.specials.values())
    asks = claims.asked([], [0] * MOST_ASKED)
    most = len(claims.document([])) + claims.tokens + len(asks) + MOST_CLAIMED
    assert all(len(window.ids) <= most for windows in parts for window in windows)


def test_the_probability_is_that_of_transformers_for_the_window_that_supports_best_and_the_part_that_is_supported_least(
    tiny_chat: Path, tmp_path: Path, claims: Claims
) -> None:
    tensors = write_judge(tmp_path / "judge", tiny_chat)
    judge, model = (
        ClaimJudge(tmp_path / "judge", tmp_path, dtype="float32"),
        LlamaForCausalLM.from_pretrained(tiny_chat),
    )
    for text, claim in (
        ("a copy of the work", "the copy"),
        ("the work and the licence " * 9, "any patent claim " * 60),
    ):
        parts = claims.windows(text, claim, "whose?")
        logits = [[float(expect(model, tensors, 2, window.ids)[0]) for window in windows] for windows in parts]
        logit = min(max(each) for each in logits)
        found = judge.judge(text, claim, "whose?")
        assert found.supported == pytest.approx(1 / (1 + math.exp(-(SCALE * logit + SHIFT))), abs=1e-3)
        assert found.tokens == sum(len(window.ids) for windows in parts for window in windows)
    assert len(parts) > 1
    assert len(parts[0]) > 1


async def test_it_is_asked_as_a_cross_encoder_is(judge: ClaimJudge) -> None:
    asked = (Message("system", "a copy of the work"), Message("user", "whose?"), Message("assistant", "the copy"))
    scores = await judge.score(asked, WORDS)
    supported = judge.judge("a copy of the work", "the copy", "whose?").supported
    assert math.exp(scores[0]) == pytest.approx(supported)
    assert math.exp(scores[1]) == 0
    assert math.exp(scores[2]) == pytest.approx(1 - supported)
    word = (await judge.generate(asked, SamplingParams())).text
    assert word == ("supported" if supported >= 0.5 else "unsupported")
    assert [delta.text async for delta in judge.stream(asked, SamplingParams())] == [word]


@pytest.mark.parametrize("prompt", [(), RawPrompt((Part("a copy"),))])
async def test_what_has_no_messages_is_refused(judge: ClaimJudge, prompt: Any) -> None:
    with pytest.raises(LLMError, match="needs messages"):
        await judge.score(prompt, WORDS)


async def test_it_says_no_other_words(judge: ClaimJudge) -> None:
    with pytest.raises(LLMError, match="cannot say 'safe'"):
        await judge.score((Message("assistant", "the copy"),), ("safe",))


def test_figures_that_are_no_numbers_are_an_error(tiny_chat: Path, tmp_path: Path) -> None:
    tensors = write_judge(tmp_path / "judge", tiny_chat)
    save_file({**tensors, "head.bias": torch.tensor([math.nan])}, tmp_path / "judge" / "claims.safetensors")
    with pytest.raises(LLMError, match="no numbers"):
        ClaimJudge(tmp_path / "judge", tmp_path, dtype="float32").judge("a copy of the work " * 20, "the copy")


def without_weights(folder: Path) -> None:
    (folder / "claims.safetensors").unlink()


def without_layers(folder: Path) -> None:
    told = json.loads((folder / "claims.json").read_text())
    del told["layers"]
    (folder / "claims.json").write_text(json.dumps(told))


def with_too_many(folder: Path) -> None:
    told = json.loads((folder / "claims.json").read_text())
    (folder / "claims.json").write_text(json.dumps({**told, "layers": 9}))


def with_another_file(folder: Path) -> None:
    told = json.loads((folder / "claims.json").read_text())
    (folder / "claims.json").write_text(json.dumps({**told, "file": "../claims.safetensors"}))


@pytest.mark.parametrize("spoil", [without_weights, without_layers, with_too_many, with_another_file])
def test_a_folder_that_is_no_judge_is_named(tiny_chat: Path, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    write_judge(tmp_path / "judge", tiny_chat)
    spoil(tmp_path / "judge")
    with pytest.raises(ModelLoadError, match="claims"):
        ClaimJudge(tmp_path / "judge", tmp_path).judge("a copy", "the copy")
