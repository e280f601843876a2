"""A judge: a small model that tells harmful texts from harmless ones, and is asked as a guard model is.

A judge is a folder of `judge.json` and an adapter (LoRA) for each role whose messages it judges; those that ship are
under `llm/judges/`, each with its card. Its base is an encoder, or the first layers of a decoder. It satisfies
`Generator`, and all it can say are its labels: so rails, tests and policies take it for a guard model. A text that is
longer than a window is read in windows that overlap, and the worst of them counts. A judge knows messages and
probabilities. It knows nothing of policies.
"""

import asyncio
import math
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trackbed.llm.catalogue import locate
from trackbed.llm.classifiers import Classifier, Shape, classifier
from trackbed.llm.errors import LLMError, ModelLoadError
from trackbed.llm.stored import DType
from trackbed.llm.types import Completion, Delta, Message, Prompt, RawPrompt, SamplingParams, Usage

DESCRIPTION = "judge.json"
SAFE = "safe"  # what it says of a text that has none of its labels

JudgedRole = Literal["user", "assistant"]


class Adapter(Shape):
    """One role's part of judge.json. The first label is what is looked for; others are kinds of it."""

    file: str = Field(pattern=r"^[\w-]+\.safetensors$")
    # The first label's probability is 1 / (1 + exp(-(scale * logit + shift))), fitted on rows that trained nothing.
    scale: float = Field(gt=0)
    shift: float


class Described(BaseModel):
    """What judge.json says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    base: str  # the model's name in the catalogue
    otherwise: str | None = None  # the judge, by its name there, of roles that this one has no adapter for
    roles: dict[JudgedRole, Adapter] = Field(min_length=1)


class Judged(NamedTuple):
    """What a judge finds of a text."""

    probabilities: Mapping[str, float]  # of each label
    tokens: int  # that it read

    @property
    def labels(self) -> tuple[str, ...]:
        """The first label where it is likelier than not, and then the kinds that are; the likeliest at least."""
        first, *kinds = self.probabilities
        if self.probabilities[first] < 0.5:
            return ()
        likely = [kind for kind in kinds if self.probabilities[kind] >= 0.5]
        return (first, *(likely or sorted(kinds, key=lambda kind: -self.probabilities[kind])[:1]))


class Judge:
    """A judge that is open. May be used from any thread; an adapter is read when its role is first judged."""

    def __init__(self, folder: Path, cache: Path, *, dtype: DType | None = None, threads: int | None = None) -> None:
        """The judge of a folder; `cache` is where the catalogue's models are. Raises ModelLoadError, UnknownModel.

        Where no `dtype` is named, an encoder's weights are float32; a decoder's stay as they are stored, and those that
        the adapter changes have 8 bits.
        """
        self.folder = folder
        try:
            self.described = Described.model_validate_json((folder / DESCRIPTION).read_bytes())
        except (OSError, ValidationError) as error:
            raise ModelLoadError(f"{folder / DESCRIPTION} does not describe a judge: {error}") from error
        self._base = locate(self.described.base, cache)
        self._dtype, self._threads = dtype, threads
        self._lock = threading.Lock()
        self._loaded: dict[JudgedRole, Classifier] = {}
        self._otherwise: Judge | None = None
        if (other := self.described.otherwise) is not None:
            self._otherwise = Judge(locate(other, cache), cache, dtype=dtype, threads=threads)

    def judge(self, text: str, before: str = "", role: JudgedRole = "user") -> Judged:
        """How probable each label is of a message; `before` is what it answers.

        A role that has no adapter is for the judge that is named for the others. Where none is, another role's
        adapter judges, and the message alone: it was not taught to read both. Where an adapter knows no kinds, those
        of what it finds are told by one that does: of what was answered, or else of the message.
        Raises ModelLoadError where an adapter cannot be read.
        """
        if role not in self.described.roles:
            if self._otherwise:
                return self._otherwise.judge(text, before, role)
            return self._ask(next(iter(self.described.roles)), text, "")
        found = self._ask(role, text, before)
        known = [other for other, adapter in self.described.roles.items() if len(adapter.labels) > 1]
        if len(found.probabilities) > 1 or not found.labels or not known:
            return found
        kinds = self._ask(known[0], before or text, "")
        told = dict(list(kinds.probabilities.items())[1:])
        return Judged({**found.probabilities, **told}, found.tokens + kinds.tokens)

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        """`safe`, or the first label and in a second line the kinds: what a guard model answers."""
        found = await self._judged(prompt)
        first, *kinds = found.labels or (SAFE,)
        text = f"{first}\n{','.join(kinds)}" if kinds else first
        return Completion(text, "stop", Usage(found.tokens, 1 + len(kinds)))

    async def stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """The same, at once."""
        completion = await self.generate(prompt, params)
        yield Delta(completion.text, completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[float, ...]:
        """The log-probability of each: a label, or `safe`, which is that of none. Raises LLMError for other words."""
        found = await self._judged(prompt)
        first = next(iter(found.probabilities))
        words = {**found.probabilities, SAFE: 1 - found.probabilities[first]}
        if unknown := [said for said in continuations if said.strip() not in words]:
            raise LLMError(f"a judge cannot say {unknown[0].strip()!r}; it says one of: {', '.join(words)}")
        return tuple(math.log(max(words[said.strip()], 1e-30)) for said in continuations)

    async def _judged(self, prompt: Prompt) -> Judged:
        """The last message of a prompt, as an answer to the one before where it is an assistant's."""
        if isinstance(prompt, RawPrompt):
            prompt = (Message("user", "".join(part.text for part in prompt.parts)),)
        if not prompt:
            raise LLMError("a judge needs a message to judge")
        *earlier, last = prompt
        answers = last.role == "assistant"
        before = earlier[-1].content if answers and earlier else ""
        role: JudgedRole = "assistant" if answers else "user"
        return await asyncio.get_running_loop().run_in_executor(None, self.judge, last.content, before, role)

    def _ask(self, role: JudgedRole, text: str, before: str) -> Judged:
        adapter, loaded = self.described.roles[role], self._load(role)
        windows = loaded.windows(text, before)
        highest = np.max([loaded.logits(window) for window in windows], axis=0)
        highest[0] = adapter.scale * highest[0] + adapter.shift
        found = 1 / (1 + np.exp(-np.clip(highest, -60, 60)))
        if not np.isfinite(found).all():
            raise LLMError("the judge's figures are no numbers")
        return Judged(
            dict(zip(adapter.labels, found.tolist(), strict=True)), sum(len(window.ids) for window in windows)
        )

    def _load(self, role: JudgedRole) -> Classifier:
        with self._lock:
            if role not in self._loaded:
                adapter = self.described.roles[role]
                file = self.folder / adapter.file
                self._loaded[role] = classifier(file, self._base, adapter, self._dtype, self._threads)
            return self._loaded[role]

    def close(self) -> None:
        """Nothing is held that has to be given back."""

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
