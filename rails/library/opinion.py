"""How probable a judge finds what it looks for in a message, for rails that ask one that needs no prompt of ours."""

import math
from collections.abc import Iterable, Sequence

from trackbed.llm.types import Generator, Message
from trackbed.rails.errors import RailFailed
from trackbed.rails.library.plain import View

SAFE, UNSAFE = "safe", "unsafe"


async def share(model: Generator, prompt: Sequence[Message], word: str) -> float:
    """Share of that word beside `safe`, 0 to 1, for the last message. Raises RailFailed, and what the model raises."""
    found, safe = await model.score(prompt, (word, SAFE))
    if math.isnan(found) or math.isnan(safe) or max(found, safe) == -math.inf:
        raise RailFailed("the judge's scores are no log-probabilities")
    return 1 / (1 + math.exp(min(safe - found, 700.0)))


async def unsafe(model: Generator, prompt: Sequence[Message]) -> float:
    """Share of `unsafe`. Raises as `share` does."""
    return await share(model, prompt, UNSAFE)


async def unsafe_reading(model: Generator, readings: Iterable[View]) -> float:
    """The highest of these of a text as it can be read, with disguises undone. Raises as `unsafe` does."""
    return max([await unsafe(model, (Message("user", view.text),)) for view in readings])
