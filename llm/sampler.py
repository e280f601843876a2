"""Logits to tokens: greedy, or drawn by temperature and top-p.

The sampler knows one row of logits at a time and its own source of chance, so what else runs in the same
pass changes nothing. It knows nothing of sequences or text.
"""

import random

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

    def choose(self, logits: npt.NDArray[np.float32]) -> int:
        """The next token, by its logits [vocab]; of equals the first."""
        if self.temperature == 0:
            return int(logits.argmax())
        # Above 0 and up to the whole, so that a token without weight is never drawn.
        return cpu.sample(logits, self.temperature, self.top_p, 1 - self._random.random())
