"""Logits to tokens: greedy, or drawn by temperature and top-p.

The sampler knows one row of logits at a time and its own source of chance, so what else runs in the same
pass changes nothing. It knows nothing of sequences or text.
"""

import random

import torch

from trackbed.llm.types import SamplingParams


class Sampler:
    """Chooses the tokens of one request. With a seed, the same logits give the same tokens."""

    def __init__(self, params: SamplingParams) -> None:
        self.temperature = params.temperature
        self.top_p = params.top_p
        self._random = random.Random(params.seed)  # noqa: S311  nothing here is secret

    def choose(self, logits: torch.Tensor) -> int:
        """The next token, by its logits [vocab]."""
        if self.temperature == 0:
            return int(logits.argmax())
        logits = logits.double().cpu()
        weights = torch.softmax((logits - logits.max()) / self.temperature, dim=0)
        if self.top_p < 1:
            weights = keep_nucleus(weights, self.top_p)
        steps = weights.cumsum(0)
        # Above 0 and up to the whole, so that a token without weight is never drawn.
        drawn = (1 - self._random.random()) * steps[-1]
        return int(torch.searchsorted(steps, drawn))


def keep_nucleus(weights: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero all but the fewest tokens that together weigh `top_p` (Holtzman et al. 2019, arXiv:1904.09751): [vocab]."""
    # What weighs less than this cannot be among them: all such tokens together weigh less than 1 - top_p.
    candidates = (weights >= (1 - top_p) / len(weights)).nonzero().squeeze(1)
    ordered, order = weights[candidates].sort(descending=True, stable=True)
    before = ordered.cumsum(0) - ordered
    kept = candidates[order[before < top_p]]
    return torch.zeros_like(weights).index_copy_(0, kept, weights[kept])
