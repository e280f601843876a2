"""A cross-encoder that reads two texts together: for entailment (NLI), or for one score of consistency, as HHEM does.

It is a folder as transformers writes one: config.json, a tokenizer, and weights in safetensors with a head for sequence
classification. What its labels mean, config.json says: entailment, contradiction and neutral, or one score. It
satisfies `Generator`, and all it can say of a claim is `supported`, `contradicted` or `unsupported`. Longer text than a
window is read in windows. It knows texts and probabilities. It knows nothing of policies.
"""

import asyncio
import json
import math
import threading
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from trackbed.llm.errors import LLMError, ModelLoadError
from trackbed.llm.types import Completion, Delta, Prompt, RawPrompt, SamplingParams, Usage

WORDS = ("supported", "contradicted", "unsupported")
# What labels are called, by the word that they mean.
MEANINGS = {
    "supported": ("entailment", "entail", "entailed", "supported", "supports", "consistent", "grounded", "factual"),
    "contradicted": ("contradiction", "contradict", "contradicts", "contradicted", "refutes", "refuted"),
    "unsupported": (
        *(
            "neutral",
            "not_entailment",
            "not_entailed",
            "unsupported",
            "not enough info",
            "hallucinated",
            "hallucination",
        ),
        *("inconsistent", "not_enough_info", "non_entailment"),
    ),
}
LEAST = -1e30  # the logarithm of nothing
MOST_TOKENS = 512  # of a window, where the model does not say
CLAIM = 2  # a claim gets this part of a window at most: one half


def is_entailment(folder: Path) -> bool:
    """Whether a folder's config.json names a model for sequence classification."""
    try:
        architectures = json.loads((folder / "config.json").read_bytes()).get("architectures") or []
        return any(str(name).endswith("ForSequenceClassification") for name in architectures)
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def meanings(labels: Sequence[str]) -> tuple[str, ...]:
    """What each label means; none for a single score, which is that of `supported`. Raises ValueError.

    >>> meanings(["CONTRADICTION", "ENTAILMENT", "NEUTRAL"])
    ('contradicted', 'supported', 'unsupported')
    """
    if len(labels) == 1:
        return ()
    found = []
    for label in labels:
        plain = label.strip().lower().replace("-", "_")
        word = next((word for word, names in MEANINGS.items() if plain in names), None)
        if word is None or word in found:
            raise ValueError(
                f"id2label has {label!r}; expected are entailment, contradiction and neutral, or one score"
            )
        found.append(word)
    if "supported" not in found:
        raise ValueError("id2label has no label for entailment")
    return tuple(found)


class Entailment:
    """A cross-encoder that is open. May be used from any thread; its weights are read when it is first asked."""

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        """Raises ModelLoadError where config.json does not say what the labels mean."""
        self.folder, self.threads = folder, threads
        try:
            config = json.loads((folder / "config.json").read_bytes())
            names = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # what transformers leaves out
            self.meanings = meanings([str(names[key]) for key in sorted(names, key=int)])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelLoadError(f"{folder / 'config.json'} describes no cross-encoder: {error}") from error
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Any, int] | None = None  # Any: a tokenizer and a model, whatever transformers makes

    def judge(self, text: str, claim: str) -> dict[str, float]:
        """The probability of each of the three words, by the window of the text that supports the claim best."""
        import torch

        with self._lock:
            tokenizer, model, room = self._load()
            pairs = self._windows(tokenizer, text, claim, room)
            with torch.inference_mode():
                found = [self._probabilities(model(**pair).logits[0].float()) for pair in pairs]
        supported = max(one["supported"] for one in found)
        contradicted = min(max(one["contradicted"] for one in found), 1 - supported)
        if not math.isfinite(supported + contradicted):
            raise LLMError("the cross-encoder's figures are no numbers")
        return dict(zip(WORDS, (supported, contradicted, 1 - supported - contradicted), strict=True))

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        """The likeliest of the three words."""
        found = await self._judged(prompt)
        return Completion(max(found, key=lambda word: found[word]), "stop", Usage(0, 1))

    async def stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """The same, at once."""
        completion = await self.generate(prompt, params)
        yield Delta(completion.text, completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[float, ...]:
        """The log-probability of each word. Raises LLMError for others."""
        if unknown := [said for said in continuations if said.strip() not in WORDS]:
            raise LLMError(f"a cross-encoder cannot say {unknown[0].strip()!r}; it says one of: {', '.join(WORDS)}")
        found = await self._judged(prompt)
        return tuple(math.log(p) if (p := found[said.strip()]) > 0 else LEAST for said in continuations)

    def close(self) -> None:
        """Nothing is held that has to be given back."""

    def __enter__(self) -> "Entailment":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _judged(self, prompt: Prompt) -> dict[str, float]:
        """The last message as a claim, and the system's as the text that it is to follow from."""
        if isinstance(prompt, RawPrompt) or not prompt:
            raise LLMError("a cross-encoder needs messages: a text as the system's, and a claim as the last")
        text = "\n\n".join(message.content for message in prompt[:-1] if message.role == "system")
        return await asyncio.get_running_loop().run_in_executor(None, self.judge, text, prompt[-1].content)

    def _probabilities(self, logits: Any) -> dict[str, float]:  # Any: a tensor
        """Of one window: [labels]."""
        if not self.meanings:
            supported = float(logits[0].sigmoid())
            return {"supported": supported, "contradicted": 0.0}
        shares = dict(zip(self.meanings, logits.softmax(-1).tolist(), strict=True))
        return {"supported": shares["supported"], "contradicted": shares.get("contradicted", 0.0)}

    def _windows(self, tokenizer: Any, text: str, claim: str, room: int) -> list[Any]:
        """The claim beside each window of the text; windows share a quarter with the next."""
        text, claim = (_readable(part, tokenizer.all_special_tokens) for part in (text, claim))
        said, spans = (
            tokenizer(part, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            for part in (claim, text)
        )
        claim = claim[: said[: room // CLAIM][-1][1]] if said else claim
        free = max(room - min(len(said), room // CLAIM) - tokenizer.num_special_tokens_to_add(pair=True), 1)
        step = max(free - free // 4, 1)
        starts = range(0, len(spans) - free + step, step) if len(spans) > free else range(1)
        texts = (text[spans[at][0] : spans[min(at + free, len(spans)) - 1][1]] if spans else "" for at in starts)
        return [tokenizer(part, claim, truncation="only_first", max_length=room, return_tensors="pt") for part in texts]

    def _load(self) -> tuple[Any, Any, int]:
        if self._loaded is None:
            import torch
            from transformers import AutoModelForSequenceClassification, AutoTokenizer

            if self.threads:
                torch.set_num_threads(self.threads)
            try:
                tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
                model = AutoModelForSequenceClassification.from_pretrained(
                    self.folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
                ).eval()
            except Exception as error:
                raise ModelLoadError(f"{self.folder} is no cross-encoder that transformers loads: {error}") from error
            if model.config.num_labels != max(len(self.meanings), 1):
                raise ModelLoadError(
                    f"{self.folder}: the head has {model.config.num_labels} labels; id2label has others"
                )
            places = getattr(model.config, "max_position_embeddings", None) or MOST_TOKENS
            # RoBERTa's kind counts places from behind the padding's.
            behind = 1 + model.config.pad_token_id if "roberta" in model.config.model_type else 0
            self._loaded = tokenizer, model, min(places - behind, tokenizer.model_max_length)
        return self._loaded


def _readable(text: str, marks: Sequence[str]) -> str:
    """The text without lone surrogates, which no tokenizer takes, and in which no mark such as [SEP] is one."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    for mark in marks:
        text = text.replace(mark, f"{mark[0]} {mark[1:]}")
    return text
