"""Our runtime at the given work: what its users call, timed.

An engine here ends at no token and shows each one as it comes, so that as much is written as was asked, and time can
be taken at any token. This file knows the engine and its passes. It knows nothing of rivals.
"""

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trackbed.llm.batch import BLOCK
from trackbed.llm.blocks import BlockPool
from trackbed.llm.checkpoint import load_model
from trackbed.llm.config import EngineConfig
from trackbed.llm.engine import Engine
from trackbed.llm.gguf import GgufFile
from trackbed.llm.runner import ModelRunner
from trackbed.llm.scheduler import Scheduler
from trackbed.llm.tokenizer import Tokenizer
from trackbed.llm.types import Part, RawPrompt, SamplingParams, Usage
from trackbed.llm.types import Sequence as Tokens

if TYPE_CHECKING:
    from trackbed.llm.models.llama import Llama

WORD = re.compile(rb" [a-z]{2,}")
WORDS = 4096  # that prompts are made of

Taken = tuple[float, float]  # seconds, and those of all threads on the processor


class Endless(Tokenizer):
    """A tokenizer to whose engine no token is the last, and each is a letter at once."""

    @classmethod
    def load(cls, source: Path | GgufFile) -> "Endless":
        """The tokenizer of a checkpoint, without its ends. Raises ModelLoadError."""
        tokenizer = super().load(source)
        assert isinstance(tokenizer, Endless)
        tokenizer.ends = frozenset()
        return tokenizer

    def piece(self, token: int) -> bytes:
        """A letter for each token."""
        super().piece(token)  # the work is done all the same
        return b"."


class Prompts:
    """Texts of so many tokens, each token a word. No two begin alike, so that nothing of one serves the next."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        spelled = ((token, Tokenizer.piece(tokenizer, token)) for token in range(200_000))
        words = {token: piece.decode() for token, piece in spelled if WORD.fullmatch(piece)}
        known = [(token, word) for token, word in words.items() if tokenizer.encode(word) == [token]]
        if not known:
            raise ValueError("no word is a token of this vocabulary")
        self.words = known[:WORDS]
        self.tokenizer = tokenizer

    def make(self, tokens: int, number: int) -> tuple[str, list[int]]:
        """The text of that number, and its tokens."""
        choice = random.Random(number)  # noqa: S311  texts, not secrets
        first = self.words[number % len(self.words)]
        chosen = [first, *choice.choices(self.words, k=tokens - 1)]
        text, ids = "".join(word for _, word in chosen), [token for token, _ in chosen]
        assert self.tokenizer.encode(text) == ids, "each word is a token wherever it stands"
        return text, ids


class Runtime:
    """A model that is open, and an engine or bare passes with it."""

    def __init__(self, path: Path, tokenizer: Endless, config: EngineConfig) -> None:
        """Raises ModelLoadError."""
        self.config = config
        self.tokenizer = tokenizer
        self.model: Llama = load_model(path, device=config.device, dtype=config.dtype, threads=config.threads)

    @contextlib.contextmanager
    def engine(self) -> Iterator["Writer"]:
        """An engine as it is configured."""
        with Engine(self.model, self.tokenizer, self.config) as engine, asyncio.Runner() as loop:
            yield Writer(engine, loop)

    @contextlib.contextmanager
    def passes(self, context: int) -> Iterator["Passes"]:
        """The passes of a single sequence, one by one."""
        yield Passes(self.model, self.config, context)


class Writer:
    """An engine at work."""

    def __init__(self, engine: Engine, loop: asyncio.Runner) -> None:
        self._engine = engine
        self._loop = loop

    def prefill(self, text: str) -> Taken:
        """From the prompt to the token that comes next."""
        return self._loop.run(self._prefill(text))

    def decode(self, text: str, count: int) -> Taken:
        """So many tokens after the first one, one at a time."""
        return self._loop.run(self._decode(text, count))

    def batch(self, texts: Sequence[str], count: int) -> Taken:
        """So many tokens for each of these prompts at once, after the first one of each."""
        return self._loop.run(self._batch(texts, count))

    async def _prefill(self, text: str) -> Taken:
        started, spent = perf_counter(), process_time()
        await self._engine.generate(_raw(text), SamplingParams(max_tokens=1))
        return perf_counter() - started, process_time() - spent

    async def _decode(self, text: str, count: int) -> Taken:
        times = [(perf_counter(), process_time()) async for _ in self._written(text, count + 1)]
        return times[count][0] - times[0][0], times[count][1] - times[0][1]

    async def _batch(self, texts: Sequence[str], count: int) -> Taken:
        async def write(text: str) -> list[Taken]:
            return [(perf_counter(), process_time()) async for _ in self._written(text, count + 1)]

        times = await asyncio.gather(*(write(text) for text in texts))
        begun, ended = max(each[0] for each in times), max(each[-1] for each in times)
        return ended[0] - begun[0], ended[1] - begun[1]

    async def _written(self, text: str, count: int) -> AsyncIterator[str]:
        """The pieces of an answer, which must be as many as its tokens."""
        pieces, usage = 0, Usage(0, 0)
        async for piece, completion in self._engine.stream(_raw(text), SamplingParams(max_tokens=count)):
            pieces += len(piece)
            if completion:
                usage = completion.usage
            yield piece
        assert usage.completion_tokens == pieces == count, "an engine that ends nowhere writes what it was asked for"


class Passes:
    """A sequence that runs pass by pass, as in the engine's loop."""

    def __init__(self, model: "Llama", config: EngineConfig, context: int) -> None:
        self._blocks = BlockPool(-(-context // BLOCK), BLOCK)
        self._runner = ModelRunner(model, model.empty_cache(self._blocks.capacity // BLOCK))
        self._config = config

    def prefill_at(self, ids: list[int], depth: int) -> Taken:
        """The prompt after the first `depth` tokens of it; a pass must end there."""
        seq = Tokens(list(ids), len(ids), len(ids) + 1)
        times = dict(self._run(seq))
        (begun, spent), (ended, last) = times[depth], times[len(ids)]
        return ended - begun, last - spent

    def logits(self, ids: list[int]) -> npt.NDArray[np.float32]:
        """The logits after each token: float32 [tokens, vocabulary]."""
        seq = Tokens(list(ids), 1, len(ids), scored=True)
        rows: list[npt.NDArray[np.float32]] = []
        for _ in self._run(seq, rows):
            pass
        return np.concatenate(rows)

    def _run(self, seq: Tokens, rows: list[npt.NDArray[np.float32]] | None = None) -> Iterator[tuple[int, Taken]]:
        """How many tokens are done after each pass, and when."""
        scheduler = Scheduler(self._blocks, max_seqs=1, max_tokens=self._config.max_tokens)
        scheduler.add(seq)
        yield 0, (perf_counter(), process_time())
        while not seq.finished:
            plan = scheduler.step()
            (logits,) = self._runner.run(plan)
            sampled = None if seq.scored or not len(logits) else int(logits[-1].argmax())
            if rows is not None:
                rows.append(logits)
            scheduler.commit(plan, [sampled])
            yield seq.done, (perf_counter(), process_time())


def _raw(text: str) -> RawPrompt:
    return RawPrompt((Part(text),))
