"""A tagger: a small encoder that marks the names in a text, of people, places, streets and organisations.

A tagger is a folder of `tagger.json` and an adapter (LoRA) of an encoder, under `llm/taggers/` those that ship, each
with its card. It satisfies `Generator`, and what it says of a message is a JSON list of the names in it, each with its
kind, start and end: so policies name it as they name any model. It knows nothing of policies.

The encoder reads no capitals. Its token types, of which a text by itself uses one, say which words begin with one.
"""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tokenizers import Encoding

from trackbed.llm.catalogue import locate
from trackbed.llm.errors import LLMError, ModelLoadError
from trackbed.llm.lora import adapted, tensor
from trackbed.llm.models.bert import Bert
from trackbed.llm.safetensors_file import read_safetensors
from trackbed.llm.stored import DType
from trackbed.llm.types import Completion, Delta, Prompt, RawPrompt, SamplingParams, Usage
from trackbed.llm.windows import read_tokenizer

DESCRIPTION = "tagger.json"
OVERLAP = 4  # a window shares the fourth part of its room with the next

Floats = npt.NDArray[np.float32]


class Described(BaseModel):
    """What tagger.json says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    base: str  # the encoder's name in the catalogue
    file: str = Field(pattern=r"^[\w-]+\.safetensors$")
    kinds: tuple[str, ...] = Field(min_length=1)
    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    tokens: int = Field(ge=8)  # of a window


class Name(NamedTuple):
    """A name in a text."""

    kind: str
    start: int
    end: int  # text[start:end]


class Words(NamedTuple):
    """A text as an encoder reads it: its tokens, which of them begin a word, and where each word stands."""

    ids: list[int]
    capital: list[int]  # 1 for tokens of a word that begins with a capital letter
    word: list[int]  # which word a token is of
    spans: list[tuple[int, int]]  # of each word: text[start:end]


def words_of(encoding: Encoding, text: str) -> Words:
    """What is said of tokens, from how a tokenizer has cut the text."""
    words: list[int] = []
    spans: list[tuple[int, int]] = []
    last = None
    for (start, end), word in zip(encoding.offsets, encoding.word_ids, strict=True):
        if word == last and spans:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
        last = word
        words.append(len(spans) - 1)
    return Words(encoding.ids, [int(text[spans[word][0]].isupper()) for word in words], words, spans)


def readable(text: str) -> str:
    """A text of the same length that no tokenizer refuses, and in which nothing is a mark such as [SEP]."""
    return "".join("(" if c == "[" else "\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)


class Tagger:
    """A tagger that is open. May be used from any thread; its files are read when a text is first tagged."""

    def __init__(self, folder: Path, cache: Path, *, dtype: DType = "float32", threads: int | None = None) -> None:
        """The tagger of a folder; `cache` is where the catalogue's models are. Raises ModelLoadError, UnknownModel."""
        self.folder = folder
        try:
            self.described = Described.model_validate_json((folder / DESCRIPTION).read_bytes())
        except (OSError, ValidationError) as error:
            raise ModelLoadError(f"{folder / DESCRIPTION} does not describe a tagger: {error}") from error
        self._base = locate(self.described.base, cache)
        self._dtype, self._threads = dtype, threads
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None

    def tag(self, text: str) -> tuple[Name, ...]:
        """The names in a text, in order and apart. Raises ModelLoadError where the adapter cannot be read."""
        return self._tagged(text)[0]

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        """The names in the last message, as JSON: [{"kind": "PERSON", "start": 0, "end": 8}]."""
        if not prompt or isinstance(prompt, RawPrompt):
            raise LLMError("a tagger needs a message")
        names, tokens = await asyncio.get_running_loop().run_in_executor(None, self._tagged, prompt[-1].content)
        return Completion(json.dumps([name._asdict() for name in names]), "stop", Usage(tokens, len(names)))

    async def stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """The same, at once."""
        completion = await self.generate(prompt, params)
        yield Delta(completion.text, completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[float, ...]:
        """A tagger has no probabilities to give. Raises LLMError."""
        raise LLMError("a tagger marks names; it scores no answers. A rail that asks for a judgement needs a judge")

    def _tagged(self, text: str) -> tuple[tuple[Name, ...], int]:
        with self._lock:
            loaded = self._loaded = self._loaded or _Loaded(
                self.folder, self._base, self.described, self._dtype, self._threads
            )
        return loaded.tag(text)

    def close(self) -> None:
        """Nothing is held that has to be given back."""

    def __enter__(self) -> "Tagger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Loaded:
    """An adapter in its encoder, with its head."""

    def __init__(self, folder: Path, base: Path, described: Described, dtype: DType, threads: int | None) -> None:
        file = read_safetensors(folder / described.file)
        self.described = described
        self.tokenizer, (self.start, self.end) = read_tokenizer(base)
        self.encoder = Bert(base, dtype=dtype, threads=threads, change=adapted(file, described.rank, described.alpha))
        hidden, count = self.encoder.config.hidden, 1 + 2 * len(described.kinds)
        if described.tokens > self.encoder.config.positions:
            raise ModelLoadError(
                f"{folder / DESCRIPTION}: tokens is {described.tokens}; {base} reads no more than "
                f"{self.encoder.config.positions}"
            )
        self.head, self.bias = tensor(file, "head.weight", (count, hidden)), tensor(file, "head.bias", (count,))

    def tag(self, text: str) -> tuple[tuple[Name, ...], int]:
        """The names, and how many tokens were read."""
        encoding = self.tokenizer.encode(readable(text), add_special_tokens=False)
        words = words_of(encoding, text)
        if not words.ids:
            return (), 0
        logits, read = self._logits(words)
        first = [i for i, word in enumerate(words.word) if i == 0 or word != words.word[i - 1]]
        return tuple(decoded(logits[first], words.spans, self.described.kinds)), read

    def _logits(self, words: Words) -> tuple[Floats, int]:
        """[tokens, labels], each token's from the window in which it stands farthest from an edge; tokens read."""
        count, room = len(words.ids), self.described.tokens - 2
        step = room - room // OVERLAP
        logits = np.zeros((count, len(self.bias)), np.float32)
        read, margin = 0, (room - step) // 2
        for at in range(0, max(count - room, 0) + step, step) if count > room else (0,):
            ids = [self.start, *words.ids[at : at + room], self.end]
            states = self.encoder.forward(ids, [0, *words.capital[at : at + room], 0])[1:-1]
            since = margin if at else 0
            logits[at + since : at + room] = (states @ self.head.T + self.bias)[since:]
            read += len(ids)
        if not np.isfinite(logits).all():
            raise LLMError("the tagger's figures are no numbers")
        return logits, read


def decoded(logits: Floats, spans: Sequence[tuple[int, int]], kinds: Sequence[str]) -> list[Name]:
    """Names from what is likeliest of each word: [words, labels] -> names.

    Label 0 is no name, 1 + 2 k begins a name of kind k, and 2 + 2 k goes on with it (IOB2, Ramshaw and Marcus 1995).
    A name that goes on without a beginning begins there.
    """
    names: list[Name] = []
    inside = -1  # the kind of the name that the word before is part of
    for label, (start, end) in zip(logits.argmax(-1).tolist(), spans, strict=True):
        kind, goes_on = (label - 1) // 2, label % 2 == 0
        if label == 0:
            inside = -1
        elif goes_on and kind == inside:
            names[-1] = names[-1]._replace(end=end)
        else:
            names.append(Name(kinds[kind], start, end))
            inside = kind
    return names
