"""A judge of claims: the first layers of a small decoder, taught to say whether a text supports a sentence.

It is a folder of `claims.json` and an adapter (LoRA); the one that ships is under `llm/judges/`, with its card. It
satisfies `Generator`, and all it can say of a claim is `supported` or `unsupported`, as a cross-encoder for entailment
does: so policies take it for one. A text that is longer than a window is read in windows, and the one that supports
a claim best counts; of a claim that is longer, the part that is supported least. It knows nothing of policies.
"""

import asyncio
import math
import threading
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, ValidationError

from trackbed.llm.catalogue import locate
from trackbed.llm.claims import Claims, is_sentence
from trackbed.llm.classifiers import Layers, Shape
from trackbed.llm.entailment import LEAST, WORDS
from trackbed.llm.errors import LLMError, ModelLoadError
from trackbed.llm.stored import DType
from trackbed.llm.types import Completion, Delta, Prompt, RawPrompt, SamplingParams, Usage

DESCRIPTION = "claims.json"


class Described(Shape):
    """What claims.json says. The probability is 1 / (1 + exp(-(scale * logit + shift)))."""

    format: Literal[1]
    base: str  # the model's name in the catalogue
    file: str = Field(pattern=r"^[\w-]+\.safetensors$")
    layers: int = Field(ge=1)
    scale: float = Field(gt=0)
    shift: float


class Believed(NamedTuple):
    """How probable it is that a text supports a claim."""

    supported: float
    tokens: int  # that were read


class ClaimJudge:
    """A judge of claims that is open. May be used from any thread; its files are read when it is first asked."""

    def __init__(self, folder: Path, cache: Path, *, dtype: DType | None = None, threads: int | None = None) -> None:
        """The judge of a folder; `cache` is where the catalogue's models are. Raises ModelLoadError, UnknownModel.

        Where no `dtype` is named, weights stay as they are stored, and those that the adapter changes have 8 bits.
        """
        self.folder = folder
        try:
            self.described = Described.model_validate_json((folder / DESCRIPTION).read_bytes())
        except (OSError, ValidationError) as error:
            raise ModelLoadError(f"{folder / DESCRIPTION} does not describe a judge of claims: {error}") from error
        self._base = locate(self.described.base, cache)
        self._dtype, self._threads = dtype, threads
        self._lock = threading.Lock()
        self._loaded: tuple[Claims, Layers] | None = None

    def judge(self, text: str, claim: str, question: str = "") -> Believed:
        """Whether the text supports the claim; one that is no sentence is read as an answer to the question.

        Raises ModelLoadError where the adapter cannot be read, and LLMError where its figures are no numbers.
        """
        claims, layers = self._load()
        parts = claims.windows(text, claim, "" if is_sentence(claim) else question)
        logits = [[float(layers.logits(window)[0]) for window in windows] for windows in parts]
        if not all(math.isfinite(logit) for each in logits for logit in each):
            raise LLMError("the judge's figures are no numbers")
        logit = self.described.scale * min(max(each) for each in logits) + self.described.shift
        tokens = sum(len(window.ids) for windows in parts for window in windows)
        return Believed(1 / (1 + math.exp(-max(-60.0, min(60.0, logit)))), tokens)

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        """The likelier of the two words."""
        found = await self._judged(prompt)
        word = "supported" if found.supported >= 0.5 else "unsupported"
        return Completion(word, "stop", Usage(found.tokens, 1))

    async def stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """The same, at once."""
        completion = await self.generate(prompt, params)
        yield Delta(completion.text, completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[float, ...]:
        """The log-probability of each word; contradicted is never said. Raises LLMError for words that are none."""
        if unknown := [said for said in continuations if said.strip() not in WORDS]:
            raise LLMError(f"a judge of claims cannot say {unknown[0].strip()!r}; it says one of: {', '.join(WORDS)}")
        found = (await self._judged(prompt)).supported
        shares = {"supported": found, "contradicted": 0.0, "unsupported": 1 - found}
        return tuple(math.log(p) if (p := shares[said.strip()]) > 0 else LEAST for said in continuations)

    def close(self) -> None:
        """Nothing is held that has to be given back."""

    def __enter__(self) -> "ClaimJudge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _judged(self, prompt: Prompt) -> Believed:
        """The last message as a claim, the user's before it as the question, and the system's as the text."""
        if isinstance(prompt, RawPrompt) or not prompt:
            raise LLMError("a judge of claims needs messages: a text as the system's, and a claim as the last")
        text = "\n\n".join(message.content for message in prompt[:-1] if message.role == "system")
        asked = [message.content for message in prompt[:-1] if message.role == "user"]
        told = text, prompt[-1].content, asked[-1] if asked else ""
        return await asyncio.get_running_loop().run_in_executor(None, self.judge, *told)

    def _load(self) -> tuple[Claims, Layers]:
        with self._lock:
            if self._loaded is None:
                shape, file = self.described, self.folder / self.described.file
                layers = Layers(file, self._base, shape, shape.layers, self._dtype or "auto", self._threads)
                self._loaded = Claims(self._base, shape.tokens), layers
            return self._loaded
