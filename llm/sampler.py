"""Logits to tokens: greedy, or drawn by temperature and top-p.

The sampler knows one row of logits at a time and its own source of chance, so what else runs in the same
pass changes nothing. It knows nothing of sequences or text.
"""

import random

import numpy as np
import numpy.typing as npt

from trackbed.llm.types import SamplingParams

Weights = npt.NDArray[np.float64]


class Sampler:
    """Chooses the tokens of one request. With a seed, the same logits give the same tokens."""

    def __init__(self, params: SamplingParams) -> None:
        self.temperature = params.temperature
        self.top_p = params.top_p
        self._random = random.Random(params.seed)  # noqa: S311  nothing here is secret

    def choose(self, logits: npt.NDArray[np.float32]) -> int:
        """The next token, by its logits [vocab]; of equals the first."""
        best = int(logits.argmax())
        if self.temperature == 0:
            return best
        with np.errstate(over="ignore"):  # the coldest temperatures take all others to minus infinity
            weights = np.exp((logits - logits[best]).astype(np.float64) / self.temperature)
        if self.top_p < 1:
            weights = keep_nucleus(weights / weights.sum(), self.top_p)
        steps = weights.cumsum()
        # Above 0 and up to the whole, so that a token without weight is never drawn.
        drawn = (1 - self._random.random()) * steps[-1]
        return int(steps.searchsorted(drawn))


def keep_nucleus(weights: Weights, top_p: float) -> Weights:
    """Zero all but the fewest tokens that together weigh `top_p` (Holtzman et al. 2019, arXiv:1904.09751): [vocab]."""
    # What weighs less than this cannot be among them: all such tokens together weigh less than 1 - top_p.
    candidates = np.flatnonzero(weights >= (1 - top_p) / len(weights))
    order = np.argsort(-weights[candidates], kind="stable")
    ordered = weights[candidates[order]]
    kept = candidates[order[ordered.cumsum() - ordered < top_p]]
    nucleus = np.zeros_like(weights)
    nucleus[kept] = weights[kept]
    return nucleus
