"""A tagger's names are those of its encoder with the adapter in it, exact to the character, however long the text."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import BertModel

from tests.llm.test_judge import write_base
from trackbed.llm.catalogue import locate
from trackbed.llm.errors import LLMError, ModelLoadError
from trackbed.llm.tagger import Name, Tagger, decoded, readable, words_of
from trackbed.llm.types import Message, Part, RawPrompt, SamplingParams
from trackbed.llm.windows import read_tokenizer

KINDS = ("PERSON", "LOCATION")
CHANGED = "encoder.layer.1.output.dense"


def write_tagger(folder: Path, base: Path, tokens: int = 16, **changes: Any) -> dict[str, torch.Tensor]:
    """A tagger with a random adapter; its tensors."""
    torch.manual_seed(2)
    tensors = {
        f"{CHANGED}.A": torch.randn(4, 96) / 4,
        f"{CHANGED}.B": torch.randn(48, 4) / 4,
        "head.weight": torch.randn(5, 48),
        "head.bias": torch.zeros(5),
    }
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "names.safetensors")
    described = {"format": 1, "base": str(base), "file": "names.safetensors", "kinds": KINDS, "rank": 4, "alpha": 8}
    (folder / "tagger.json").write_text(json.dumps({**described, "tokens": tokens, **changes}))
    return tensors


class Made:
    """A tagger, and what it is made of."""

    def __init__(self, folder: Path) -> None:
        self.base, self.folder = folder / "base", folder / "tagger"
        self.base.mkdir()
        self.encoder: BertModel = write_base(self.base).eval()
        self.tensors = write_tagger(self.folder, self.base)
        self.tagger = Tagger(self.folder, folder)

    @torch.inference_mode()
    def expected(self, text: str) -> list[Name]:
        """The names by transformers, of a text that one window holds."""
        tokenizer, (start, end) = read_tokenizer(self.base)
        words = words_of(tokenizer.encode(readable(text), add_special_tokens=False), text)
        weight = dict(self.encoder.named_parameters())[f"{CHANGED}.weight"]
        change = 2 * self.tensors[f"{CHANGED}.B"] @ self.tensors[f"{CHANGED}.A"]
        weight += change
        ids, kinds = torch.tensor([[start, *words.ids, end]]), torch.tensor([[0, *words.capital, 0]])
        states = self.encoder(input_ids=ids, token_type_ids=kinds).last_hidden_state[0, 1:-1]
        weight -= change
        logits = (states @ self.tensors["head.weight"].T + self.tensors["head.bias"]).numpy()
        first = [i for i, word in enumerate(words.word) if i == 0 or word != words.word[i - 1]]
        return decoded(logits[first], words.spans, KINDS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"))


WORDS = st.lists(st.sampled_from(["good", "Good", "bad", "Days", "is", "A", "w7", "W8", "[", "(x)", "é"]), max_size=8)


@given(words=WORDS)
def test_the_names_are_those_of_the_reference(made: Made, words: list[str]) -> None:
    text = " ".join(words)
    tokenizer, _ = read_tokenizer(made.base)
    assume(len(tokenizer.encode(text, add_special_tokens=False).ids) <= 14)  # more are read in two windows
    assert list(made.tagger.tag(text)) == (made.expected(text) if words else [])


def test_capitals_are_seen_though_the_tokenizer_drops_them(made: Made) -> None:
    tokenizer, _ = read_tokenizer(made.base)
    small, large = (words_of(tokenizer.encode(text, add_special_tokens=False), text) for text in ("a day", "A Day"))
    assert small.ids == large.ids
    assert (small.capital, large.capital) == ([0, 0], [1, 1])


def test_a_word_in_pieces_is_one_word(made: Made) -> None:
    tokenizer, _ = read_tokenizer(made.base)
    words = words_of(tokenizer.encode("is days", add_special_tokens=False), "is days")
    assert len(words.ids) == 3
    assert words.spans == [(0, 2), (3, 7)]
    assert words.word == [0, 1, 1]


@given(count=st.integers(0, 90), seed=st.integers(0, 9))
def test_names_of_a_long_text_are_in_order_and_apart(made: Made, count: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    text = " ".join(chance.choice(["Good", "bad", "w1", "w2", "is", "Night", "a"]) for _ in range(count))
    names = made.tagger.tag(text)
    ends = [0, *(name.end for name in names)]
    assert all(before <= name.start < name.end <= len(text) for before, name in zip(ends, names, strict=False))
    assert all(text[name.start : name.end].strip() == text[name.start : name.end] for name in names)


def test_far_from_the_cut_a_long_text_reads_as_a_window_does(made: Made, tmp_path: Path) -> None:
    """A wide window sees more of what is around; at the very beginning both see the same tokens."""
    text = "Good bad w1"
    write_tagger(tmp_path / "wide", made.base, tokens=30)
    assert Tagger(tmp_path / "wide", tmp_path).tag(text) == made.tagger.tag(text)


@given(st.text(st.sampled_from("[]SEPCL good\ud800é\0\u200b"), max_size=40))
def test_no_text_is_refused_and_none_writes_a_mark(made: Made, text: str) -> None:
    assert len(readable(text)) == len(text)
    tokenizer, marks = read_tokenizer(made.base)
    assert not set(tokenizer.encode(readable(text), add_special_tokens=False).ids) & set(marks)
    for name in made.tagger.tag(text):
        assert 0 <= name.start < name.end <= len(text)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 0, 0, 0], []),
        ([1, 2, 0, 3], [("PERSON", 0, 3), ("LOCATION", 6, 7)]),
        ([1, 1, 2, 0], [("PERSON", 0, 1), ("PERSON", 2, 5)]),
        ([2, 2, 4, 4], [("PERSON", 0, 3), ("LOCATION", 4, 7)]),
        ([1, 4, 2, 0], [("PERSON", 0, 1), ("LOCATION", 2, 3), ("PERSON", 4, 5)]),
        ([0, 2, 0, 2], [("PERSON", 2, 3), ("PERSON", 6, 7)]),
    ],
)
def test_labels_become_names(labels: list[int], expected: list[tuple[str, int, int]]) -> None:
    spans = [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert decoded(np.eye(5, dtype=np.float32)[labels], spans, KINDS) == [Name(*name) for name in expected]


async def test_it_is_asked_as_a_model_and_answers_in_json(made: Made) -> None:
    text = "Good Days w7 is A bad Night"
    completion = await made.tagger.generate((Message("user", text),), SamplingParams())
    assert [Name(**name) for name in json.loads(completion.text)] == list(made.tagger.tag(text))
    assert made.tagger.tag(text), "the random tagger finds something"
    assert completion.usage.prompt_tokens == 10
    streamed = [delta async for delta in made.tagger.stream((Message("user", text),), SamplingParams())]
    assert "".join(delta.text for delta in streamed) == completion.text


async def test_what_it_cannot_be_asked_is_said(made: Made) -> None:
    with pytest.raises(LLMError, match="scores no answers"):
        await made.tagger.score((Message("user", "a"),), ("safe",))
    with pytest.raises(LLMError, match="needs a message"):
        await made.tagger.generate(RawPrompt((Part("a"),)), SamplingParams())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kinds": []}, "does not describe a tagger"),
        ({"more": 1}, "does not describe a tagger"),
        ({"file": "../x.safetensors"}, "does not describe a tagger"),
        ({"tokens": 5000}, "tokens is 5000; .* reads no more than"),
        ({"kinds": ["PERSON"]}, r"head.weight: expected is a tensor of \[3, 48\]"),
        ({"rank": 8}, r"dense.A: expected is a tensor of \[8, 96\]"),
    ],
)
def test_a_folder_that_is_none_is_named(made: Made, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    write_tagger(tmp_path / "tagger", made.base, **changes)
    with pytest.raises(ModelLoadError, match=words):
        Tagger(tmp_path / "tagger", tmp_path).tag("good day")


def test_numbers_that_are_none_are_no_answer(made: Made, tmp_path: Path) -> None:
    tensors = write_tagger(tmp_path / "tagger", made.base)
    save_file({**tensors, "head.bias": torch.full((5,), torch.inf)}, tmp_path / "tagger" / "names.safetensors")
    with pytest.raises(LLMError, match="no numbers"):
        Tagger(tmp_path / "tagger", tmp_path).tag("good day")


@pytest.mark.models
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("My name is Anna Schmidt.", ["PERSON Anna Schmidt"]),
        ("i am john from chicago", ["PERSON john", "LOCATION chicago"]),
        (
            "Barack Obama met Angela Merkel in Berlin.",
            ["PERSON Barack Obama", "PERSON Angela Merkel", "LOCATION Berlin"],
        ),
        ("Dear Mr Chen,\n\nThank you.\n\nPriya Raghunathan", ["PERSON Chen", "PERSON Priya Raghunathan"]),
        ("Send it to 12 Baker Street, London NW1 6XE.", ["STREET_ADDRESS 12 Baker Street, London NW1 6XE"]),
        ("What is the capital of France?", ["LOCATION France"]),
        ("How do I add a rail to a policy?", []),
        ("The Python script failed on Windows.", []),
        ("Who won the 2018 world cup?", []),
        ("Set the threshold of the hazards rail to 0.8.", []),
    ],
)
def test_the_tagger_that_ships_finds_what_everybody_knows(model_cache: Path, text: str, names: list[str]) -> None:
    tagger = Tagger(locate("minilm-names", model_cache), model_cache)
    assert [f"{name.kind} {text[name.start : name.end]}" for name in tagger.tag(text)] == names
