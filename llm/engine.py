"""A model that answers many callers at once: Engine.generate, .stream and .score.

One thread owns the batch and walks one loop: plan a pass, run it, sample, record. Callers wait in their
own event loops, of which there may be several. This file knows requests and threads; what runs in a pass,
the scheduler decides.
"""

import asyncio
import contextlib
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from collections.abc import Sequence as Seq
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

from trackbed.llm.adapter import merging, read_adapter
from trackbed.llm.batch import BLOCK
from trackbed.llm.blocks import BlockPool
from trackbed.llm.checkpoint import load_model
from trackbed.llm.choices import OpenChoices
from trackbed.llm.config import EngineConfig
from trackbed.llm.errors import EngineStopped, LLMError, PromptTooLong
from trackbed.llm.gguf import GgufFile, read_gguf
from trackbed.llm.models.llama import Llama
from trackbed.llm.output import Output
from trackbed.llm.runner import ModelRunner
from trackbed.llm.sampler import Sampler
from trackbed.llm.scheduler import Scheduler, Work
from trackbed.llm.tokenizer import Tokenizer
from trackbed.llm.types import Completion, Delta, FinishReason, Part, Prompt, RawPrompt, SamplingParams, Sequence, Usage

log = logging.getLogger(__name__)

DEFAULT_CACHE_TOKENS = 8192
DEFAULT_CONFIG = EngineConfig()
T = TypeVar("T")
_Tokens = tuple[int, ...]
_Logits = npt.NDArray[np.float32]
_Scores = dict[_Tokens, float]  # continuation, up to and including the token whose log-probability it is


class Engine:
    """A loaded model. It may be used from any thread and any event loop, and by many callers at once.

    A prompt, its answer included, must fit the context: the model's, or the cache where that is smaller.
    Where the prompt fits and `max_tokens` more would not, the answer is cut to what fits. An engine that is
    no longer used ends its thread; `close` does so at once and frees the model.
    """

    def __init__(self, model: Llama, tokenizer: Tokenizer, config: EngineConfig = DEFAULT_CONFIG) -> None:
        cache_tokens = config.cache_tokens or min(model.config.max_length, DEFAULT_CACHE_TOKENS)
        blocks = BlockPool(-(-cache_tokens // BLOCK), BLOCK)
        self.cache_bytes = blocks.capacity // BLOCK * model.block_bytes  # once all are used
        _check_memory(self.cache_bytes, cache_tokens)
        cache = model.empty_cache(blocks.capacity // BLOCK)
        scheduler = Scheduler(blocks, max_seqs=config.max_seqs, max_tokens=config.max_tokens)
        self.context = min(model.config.max_length, blocks.capacity)  # tokens of a prompt and its answer
        self._tokenizer = tokenizer
        self._loop = _Loop(scheduler, ModelRunner(model, cache))
        # Also called at exit, while the pass can still finish.
        self._stop = weakref.finalize(self, self._loop.stop)

    @classmethod
    def open(cls, path: Path | str, config: EngineConfig = DEFAULT_CONFIG, adapter: Path | str | None = None) -> Self:
        """Load the model and the tokenizer of a GGUF file or a checkpoint folder. Raises ModelLoadError.

        `adapter` is a folder with what is added to the model's weights: of this package's form, or as peft writes it.
        """
        path = Path(path)
        source: Path | GgufFile = read_gguf(path) if path.is_file() else path  # read once for both
        model = load_model(
            source,
            device=config.device,
            dtype=config.dtype,
            cache_dtype=config.cache_dtype,
            threads=config.threads,
            change=merging(read_adapter(Path(adapter)), config.dtype) if adapter else None,
        )
        return cls(model, Tokenizer.load(source), config)

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        """Answer the prompt; where there are choices, with them alone, as far as `max_tokens` reaches.

        Cancelling the task stops the work. Raises PromptTooLong, EngineStopped, LLMError.
        """
        inbox = _Inbox[Delta]()
        with self._working(self._answer(prompt, params, inbox, streamed=False)):
            _, completion = await inbox.receive()
        assert completion, "only the last delta is sent when nothing is streamed"
        return completion

    async def stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """Answer the prompt piece by piece. Closing the stream stops the work. Raises as `generate` does."""
        inbox = _Inbox[Delta]()
        with self._working(self._answer(prompt, params, inbox, streamed=True)):
            completion = None
            while completion is None:
                text, completion = await inbox.receive()
                yield Delta(text, completion)

    async def score(self, prompt: Prompt, continuations: Seq[str]) -> tuple[float, ...]:
        """The log-probability of each continuation after the prompt: natural, summed over its tokens.

        Continuations are ordinary text, and their tokens are those of the text alone. Raises as `generate` does.
        """
        ids, inbox = self._encode(prompt), _Inbox[_Scores]()
        continued = [tuple(self._tokenizer.encode(text)) for text in continuations]
        # The last token is never read, only looked up; and what begins another is read with it.
        bodies: list[_Tokens] = []
        for body in sorted({tokens[:-1] for tokens in continued if tokens}, key=len, reverse=True):
            if all(longer[: len(body)] != body for longer in bodies):
                bodies.append(body)
        looked_up = frozenset(tokens[: n + 1] for tokens in continued for n in range(len(tokens)))
        jobs = []
        for body in bodies:
            self._check_length(len(ids) + len(body) + 1)
            seq = Sequence([*ids, *body], len(ids), len(ids) + len(body), scored=True)
            jobs.append(_Reading(seq, looked_up, inbox))
        found: _Scores = {}
        with self._working(*jobs):
            for _ in jobs:
                found |= await inbox.receive()
        return tuple(sum(found[tokens[: n + 1]] for n in range(len(tokens))) for tokens in continued)

    def close(self) -> None:
        """End the thread after its current pass; whoever still waits gets EngineStopped, and so do later calls."""
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, prompt: Prompt, params: SamplingParams, inbox: "_Inbox[Delta]", *, streamed: bool) -> "_Answer":
        ids = self._encode(prompt)
        seq = Sequence(ids, len(ids), min(len(ids) + params.max_tokens, self.context), self._tokenizer.ends)
        tokenizer, wanted = self._tokenizer, params.choices
        choices = OpenChoices(wanted, tokenizer.encode, tokenizer.ends) if wanted else None
        return _Answer(seq, Sampler(params), choices, Output(tokenizer, params.stop), inbox, streamed=streamed)

    def _encode(self, prompt: Prompt) -> list[int]:
        """The prompt's tokens. Raises PromptTooLong unless one more fits."""
        given = prompt.parts if isinstance(prompt, RawPrompt) else prompt
        characters = sum(len(part.text if isinstance(part, Part) else part.content) for part in given)
        # A text that is far too long is not worth encoding.
        self._check_length(characters // self._tokenizer.longest)
        ids = self._tokenizer.encode_prompt(prompt)
        if not ids:
            raise LLMError("the prompt is empty; give it at least one token")
        self._check_length(len(ids) + 1)
        return ids

    def _check_length(self, tokens: int) -> None:
        if tokens > self.context:
            raise PromptTooLong(f"at least {tokens} tokens are needed, and the context holds {self.context}")

    @contextlib.contextmanager
    def _working(self, *jobs: "_Job") -> Iterator[None]:
        """Work on these for as long as somebody waits for them."""
        self._loop.submit(jobs)
        try:
            yield
        finally:
            self._loop.drop(jobs)


class _Inbox(Generic[T]):
    """Where a caller waits, in its own event loop, for what the engine's thread sends."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[T | EngineStopped] = asyncio.Queue()

    def send(self, item: T | EngineStopped) -> None:
        """Hand something over, from any thread."""
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def receive(self) -> T:
        """The next thing that was sent. Raises EngineStopped."""
        item = await self._queue.get()
        if isinstance(item, EngineStopped):
            raise item
        return item


class _Answer:
    """A sequence whose text somebody waits for."""

    def __init__(
        self,
        seq: Sequence,
        sampler: Sampler,
        choices: OpenChoices | None,
        output: Output,
        inbox: _Inbox[Delta],
        *,
        streamed: bool,
    ) -> None:
        self.seq = seq
        self.inbox = inbox
        self._sampler = sampler
        self._choices = choices
        self._output = output
        self._streamed = streamed

    def take(self, logits: _Logits) -> int | None:
        """The next token, unless the pass ended inside the prompt: [0 or 1, vocab]."""
        if not len(logits):
            return None
        if self._choices is None:
            return self._sampler.choose(logits[-1])
        token = self._sampler.choose(logits[-1], self._choices.tokens)
        self._choices.take(token)
        return token

    def report(self, token: int | None) -> bool:
        """Send what the recorded token releases; whether that was all."""
        if token is None:
            return False
        ended = token in self.seq.ends
        text = "" if ended else self._output.add(token)
        # A stop string was found, or all that was wanted is written.
        stopped = self._output.stopped or (self._choices is not None and not self._choices.tokens)
        if self.seq.finished or stopped:
            text += self._output.finish()
            usage = Usage(self.seq.prompt_len, len(self.seq.tokens) - self.seq.prompt_len)
            reason: FinishReason = "stop" if ended or stopped else "length"
            self.inbox.send(Delta(text, Completion(self._output.text, reason, usage)))
            return True
        if self._streamed and text:
            self.inbox.send(Delta(text))
        return False


class _Reading:
    """A sequence of which somebody wants to know how probable its tokens are."""

    def __init__(self, seq: Sequence, looked_up: frozenset[_Tokens], inbox: _Inbox[_Scores]) -> None:
        self.seq = seq
        self.inbox = inbox
        self._looked_up = looked_up
        self._found: _Scores = {}

    def take(self, logits: _Logits) -> None:
        """Look up what follows the prompt and each token after it: [tokens, vocab]."""
        begin = self.seq.prompt_len
        first = max(self.seq.done + 1, begin)  # the place of the token that the first row is about
        for place, row in enumerate(logits.astype(np.float64), first):
            before = tuple(self.seq.tokens[begin:place])
            total = row.max() + np.log(np.exp(row - row.max()).sum())
            for tokens in self._looked_up:
                if len(tokens) == len(before) + 1 and tokens[:-1] == before:
                    self._found[tokens] = float(row[tokens[-1]] - total)

    def report(self, token: int | None) -> bool:
        """Send what was found, once all has been read; whether it was."""
        if self.seq.finished:
            self.inbox.send(self._found)
        return self.seq.finished


_Job = _Answer | _Reading


class _Loop:
    """The thread that owns the batch. Only `submit`, `drop` and `stop` are called from others."""

    def __init__(self, scheduler: Scheduler, runner: ModelRunner) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._jobs: dict[Sequence, _Job] = {}
        self._changed = threading.Condition()  # guards what follows
        self._arrived: deque[_Job] = deque()
        self._dropped: deque[_Job] = deque()
        self._closing = False
        self._error: EngineStopped | None = None  # once the thread has ended
        self._thread = threading.Thread(target=self._run, name="trackbed-engine", daemon=True)
        self._thread.start()

    def submit(self, jobs: Iterable[_Job]) -> None:
        """Begin to work on these. Raises EngineStopped."""
        with self._changed:
            if self._error:
                raise _copy(self._error)
            self._arrived += jobs
            self._changed.notify()

    def drop(self, jobs: Iterable[_Job]) -> None:
        """Work on these no more, if they are not done."""
        with self._changed:
            self._dropped += jobs
            self._changed.notify()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        error = EngineStopped("the engine was closed")
        try:
            while self._take_jobs():
                plan = self._scheduler.step()
                logits = self._runner.run(plan)
                sampled = [self._jobs[seq].take(rows) for (seq, _), rows in zip(plan, logits, strict=True)]
                self._scheduler.commit(plan, sampled)
                self._report(plan, sampled)
        except Exception as cause:  # noqa: BLE001  whatever it is, those who wait must hear of it
            error = EngineStopped(f"the engine's thread failed: {type(cause).__name__}")
            error.__cause__ = cause
        del self._runner  # and with it the model
        with self._changed:
            self._error = error
            waiting = [*self._jobs.values(), *self._arrived]
        for job in waiting:
            job.inbox.send(_copy(error))

    def _take_jobs(self) -> bool:
        """Wait until there is work, and take it in; False when the engine is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._jobs or self._arrived or self._dropped)
                if self._closing:
                    return False
                arrived, self._arrived = self._arrived, deque()
                dropped, self._dropped = self._dropped, deque()
            for job in arrived:
                self._jobs[job.seq] = job
                self._scheduler.add(job.seq)
            for job in dropped:
                if self._jobs.pop(job.seq, None):
                    self._scheduler.remove(job.seq)
            if self._jobs:
                return True

    def _report(self, plan: list[Work], sampled: list[int | None]) -> None:
        for (seq, _), token in zip(plan, sampled, strict=True):
            if self._jobs[seq].report(token):
                del self._jobs[seq]
                if not seq.finished:  # a stop string ended it, or the last of its choices
                    self._scheduler.remove(seq)


def _check_memory(needed: int, tokens: int) -> None:
    """Say what the cache takes, before it is taken. Raises LLMError where the machine has less."""
    log.info("the cache of %d tokens takes %.2f GB once it is full", tokens, needed / 1e9)
    with contextlib.suppress(ValueError, OSError, AttributeError):  # a system that does not say
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > free:
            raise LLMError(
                f"a cache of {tokens} tokens takes {needed / 1e9:.1f} GB, and the machine has {free / 1e9:.1f} GB; "
                f"set cache_tokens to {tokens * free // needed // 2} or fewer"
            )


def _copy(error: EngineStopped) -> EngineStopped:
    """The error once more, for another who waits: raising one object in several tasks would mix their traces."""
    copy = EngineStopped(*error.args)
    copy.__cause__ = error.__cause__
    return copy
