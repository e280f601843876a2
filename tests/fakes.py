"""Doubles for the seams: models and indexes that do what a test tells them."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trackbed.llm.types import Completion, Delta, Prompt, RawPrompt, SamplingParams, Usage
from trackbed.rails.config import RailConfig
from trackbed.rails.errors import Place
from trackbed.rails.policy import RailUse
from trackbed.rails.stage import StagedRail
from trackbed.rails.template import Shape, compile_condition
from trackbed.rails.types import Rail, Stage, Then
from trackbed.retrieval.types import Passage, Query


def prompt_text(prompt: Prompt) -> str:
    """A prompt as one string, for scripts that look into it."""
    if isinstance(prompt, RawPrompt):
        return "".join(part.text for part in prompt.parts)
    return "\n".join(f"{message.role}: {message.content}" for message in prompt)


class ScriptedGenerator:
    """Answers with the given texts in turn (the last one for ever), and remembers what it was asked."""

    def __init__(
        self,
        *answers: str,
        scores: Mapping[str, float] | None = None,
        delay: float = 0.0,
        fails: Exception | None = None,
    ) -> None:
        self.answers = answers or ("",)
        self.scores = scores or {}  # log-probability by continuation, stripped of white space
        self.delay = delay
        self.fails = fails
        self.prompts: list[Prompt] = []

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        self.prompts.append(prompt)
        await asyncio.sleep(self.delay)
        if self.fails:
            raise self.fails
        text = self.answers[min(len(self.prompts), len(self.answers)) - 1]
        return Completion(text, "stop", Usage(len(prompt_text(prompt).split()), len(text.split())))

    async def stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        completion = await self.generate(prompt, params)
        words = completion.text.split(" ")
        for i, word in enumerate(words):
            yield Delta(word if i == len(words) - 1 else word + " ")
        yield Delta("", completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[float, ...]:
        self.prompts.append(prompt)
        await asyncio.sleep(self.delay)
        if self.fails:
            raise self.fails
        return tuple(self.scores[text.strip()] for text in continuations)


class WordEmbedder:
    """A vector of hashed words: texts that share words are near each other, and nothing is loaded."""

    name = "words"
    sha256 = hashlib.sha256(b"words").hexdigest()
    dimension = 256

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in "".join(c if c.isalnum() else " " for c in text.lower()).split():
                row[hashlib.sha256(word.encode()).digest()[0]] += 1
            row /= np.linalg.norm(row) or 1
        return vectors


class ListRetriever:
    """Gives the passages it was made with, best first, whatever is asked."""

    def __init__(self, *passages: Passage) -> None:
        self.passages = passages
        self.queries: list[Query] = []

    async def search(self, query: Query, k: int) -> tuple[Passage, ...]:
        self.queries.append(query)
        return self.passages[:k]


def staged(
    rail: Rail,
    *,
    id: str = "rail",
    stage: Stage = "input",
    then: Then = "block",
    mode: Literal["enforce", "observe"] = "enforce",
    on_error: Literal["block", "allow"] = "block",
    timeout: float = 5.0,
    when: str | None = None,
) -> StagedRail:
    """A rail as a policy would use it."""
    place = Place("test.yaml")
    condition = compile_condition(when, place, {"vars": Shape(frozenset({"tier"}))}) if when else None
    use = RailUse(id, id, stage, type(rail), RailConfig(), place, then, mode, on_error, timeout, condition)
    return StagedRail(use, rail)


class PiecewiseGenerator(ScriptedGenerator):
    """Writes one text in the given pieces, with a pause before each."""

    def __init__(self, *pieces: str, pause: float = 0.0) -> None:
        super().__init__("".join(pieces))
        self.pieces = pieces
        self.pause = pause
        self.written = 0

    async def stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        completion = await self.generate(prompt, params)
        for piece in self.pieces:
            await asyncio.sleep(self.pause)
            self.written += 1
            yield Delta(piece)
        yield Delta("", completion)
