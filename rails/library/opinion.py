"""How probable a guard model finds `unsafe` of a message, for rails that ask one that needs no prompt of ours."""

import math
from collections.abc import Sequence

from trackbed.llm.types import Generator, Message
from trackbed.rails.errors import RailFailed
from trackbed.rails.library.views import views

SAFE, UNSAFE = "safe", "unsafe"


async def unsafe(model: Generator, prompt: Sequence[Message]) -> float:
    """Share of `unsafe` beside `safe`, 0 to 1, for the last message. Raises RailFailed, and what the model raises."""
    unsafe, safe = await model.score(prompt, (UNSAFE, SAFE))
    if math.isnan(unsafe) or math.isnan(safe) or max(unsafe, safe) == -math.inf:
        raise RailFailed("the guard's scores are no log-probabilities")
    return 1 / (1 + math.exp(min(safe - unsafe, 700.0)))


async def unsafe_reading(model: Generator, text: str) -> float:
    """The highest of these of a text as it can be read, with disguises undone. Raises as `unsafe` does."""
    return max([await unsafe(model, (Message("user", view),)) for view in views(text)])
