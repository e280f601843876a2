"""Logits to tokens: greedy, or drawn by temperature and top-p, of all tokens or of those that are allowed.

The sampler knows one row of logits at a time and its own source of chance, so what else runs in the same
pass changes nothing. It knows nothing of sequences or text.
"""

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trackbed.llm.kernels import cpu
from trackbed.llm.types import SamplingParams


class Sampler:
    """Chooses the tokens of one request. With a seed, the same logits give the same tokens."""

    def __init__(self, params: SamplingParams) -> None:
        self.temperature = params.temperature
        self.top_p = params.top_p
        self._random = random.Random(params.seed)  # noqa: S311  nothing here is secret

    def choose(self, logits: npt.NDArray[np.float32], allowed: Sequence[int] | None = None) -> int:
        """The next token, by its logits [vocab]; of equals the first. Where some are `allowed`, it is one of them."""
        if allowed is not None:
            return allowed[self.choose(logits[np.asarray(allowed)])]
        if self.temperature == 0:
            return int(logits.argmax())
        # Above 0 and up to the whole, so that a token without weight is never drawn.
        return cpu.sample(logits, self.temperature, self.top_p, 1 - self._random.random())
