"""Which intent a message has: by its likeness to examples, and by a model only where that leaves it open.

This file knows vectors and names. What an intent leads to is not its business.
"""

import asyncio
import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trackbed.llm.types import Message
from trackbed.rails.deadline import within
from trackbed.rails.dialog import NONE, Dialog
from trackbed.rails.errors import PolicyError, RailFailed
from trackbed.rails.types import Models

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LIKELY = 0.5  # the probability above which a model's intent is believed: more than all others together
SHOWN = 3  # examples of each intent that a model is shown


@dataclass(frozen=True, slots=True)
class Guess:
    """What a message is taken for."""

    intent: str | None  # None: nothing that is sure enough
    score: float  # the cosine to the nearest example, or the probability that a model gives
    nearest: str | None  # the intent of that score, sure or not
    by: str = "embedder"  # or `example`, or the model's name


NOTHING = Guess(None, 0.0, None)


class Intents:
    """The intents of a dialog, ready to be told apart."""

    def __init__(self, dialog: Dialog, models: Models) -> None:
        if dialog.intents and models.embedder is None and dialog.model is None:
            raise PolicyError(
                "the dialog has intents, and nothing to tell them by; give the pipeline an embedder, or name a model "
                "under 'classify'",
                dialog.place,
            )
        self.dialog = dialog
        self.embedder = models.embedder
        self.model = models.generators[dialog.model] if dialog.model else None
        examples = [(example.text, name) for name, given in dialog.intents.items() for example in given]
        self.known = dict(reversed(examples))  # of two intents with one example, the first
        self.names = tuple(name for name, examples in dialog.intents.items() for _ in examples)
        self.lock = threading.Lock()
        self.vectors: NDArray[np.float32] | None = None  # of the examples: [examples, dimension]

    async def classify(self, text: str) -> Guess:
        """What the message is taken for. Raises RailFailed, TimeoutError, and what the embedder or the model raise."""
        guess = NOTHING
        if text in self.known:  # as buttons send it: a text is as near to itself as can be
            name = self.known[text]
            return Guess(name, 1.0, name, "example")
        if self.embedder and self.dialog.intents:
            async with asyncio.timeout(self.dialog.timeout):
                guess = await asyncio.get_running_loop().run_in_executor(None, self._nearest, text)
        if guess.intent is None and self.model and self.dialog.intents:
            guess = await within(self.dialog.timeout, asyncio.ensure_future(self._asked(text)))
        return guess

    def _nearest(self, text: str) -> Guess:
        assert self.embedder is not None
        with self.lock:  # turns may run on several event loops; the first embeds the examples for all
            if self.vectors is None:
                self.vectors = self.embedder.embed([e.text for given in self.dialog.intents.values() for e in given])
        scores = self.vectors @ self.embedder.embed([text])[0]
        best = int(scores.argmax())
        score = float(scores[best])
        if not math.isfinite(score):
            raise RailFailed("the embedder gives no finite likeness")
        return Guess(self.names[best] if score >= self.dialog.threshold else None, round(score, 4), self.names[best])

    async def _asked(self, text: str) -> Guess:
        """What a model takes the message for: read from the probabilities of the names, so nothing is parsed."""
        assert self.model is not None
        assert self.dialog.model is not None
        names = [*self.dialog.intents, NONE]
        scores = await self.model.score([Message("user", self._question(text))], names)
        weights = [math.exp(score - max(scores)) for score in scores]
        best = max(range(len(names)), key=weights.__getitem__)
        share = weights[best] / sum(weights)
        if len(scores) != len(names) or not math.isfinite(share):
            raise RailFailed("the model gives no probability for each intent")
        nearest = None if names[best] == NONE else names[best]
        return Guess(nearest if share > LIKELY else None, round(share, 4), nearest, self.dialog.model)

    def _question(self, text: str) -> str:
        described = [
            f"- {name}: such as " + "; ".join(example.text for example in examples[:SHOWN])
            for name, examples in self.dialog.intents.items()
        ]
        lines = [
            "What does a message ask for? These are the kinds:",
            *described,
            f"- {NONE}: anything else",
            "",
            f"The message: {text}",
            "",
            "Answer with the name of its kind alone.",
        ]
        return "\n".join(lines)
