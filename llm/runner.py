"""A plan becomes one pass, and the model's answer is shared out to the plan's sequences.

The runner knows tokens, blocks and the cache. It knows nothing of requests, or of what comes next.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from trackbed.llm.batch import Batch
from trackbed.llm.models.llama import Llama
from trackbed.llm.scheduler import Work
from trackbed.llm.types import Sequence


class ModelRunner:
    """A model and the cache that its sequences share."""

    def __init__(self, model: Llama, cache: Any) -> None:  # Any: whatever the model's kernels keep theirs in
        self.model = model
        self.cache = cache

    def run(self, plan: list[Work]) -> list[npt.NDArray[np.float32]]:
        """For each entry of the plan the logits of its wanted tokens, float32 [wanted, vocab]."""
        tokens: list[int] = []
        wanted: list[int] = []
        ends: list[int] = []  # of each entry's share of `wanted`
        for seq, length in plan:
            wanted += [len(tokens) + position - seq.done for position in wanted_positions(seq, length)]
            tokens += seq.tokens[seq.done : seq.done + length]
            ends.append(len(wanted))
        batch = Batch(
            tokens=tokens,
            lengths=tuple(length for _, length in plan),
            contexts=tuple(seq.done + length for seq, length in plan),
            tables=tuple(seq.blocks for seq, _ in plan),
            wanted=wanted,
        )
        return np.split(self.model.forward(batch, self.cache), ends[:-1])


def wanted_positions(seq: Sequence, length: int) -> range:
    """Which of its next tokens a sequence wants logits for: the last it has, or each from the prompt's last on."""
    end = seq.done + length
    if seq.scored:
        return range(min(max(seq.done, seq.prompt_len - 1), end), end)
    return range(end - 1 if end == len(seq.tokens) else end, end)
