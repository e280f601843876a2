"""A plan becomes tensors, and the model's answer is shared out to the plan's sequences.

The runner knows tokens, blocks and the cache. It knows nothing of requests, or of what comes next.
"""

import torch

from trackbed.llm.batch import BLOCK, Batch, KVCache
from trackbed.llm.models.llama import Llama
from trackbed.llm.scheduler import Work
from trackbed.llm.types import Sequence


class ModelRunner:
    """A model and the cache that its sequences share."""

    def __init__(self, model: Llama, cache: KVCache) -> None:
        self.model = model
        self.cache = cache
        self.device = cache.keys.device

    def run(self, plan: list[Work]) -> list[torch.Tensor]:
        """For each entry of the plan the logits of its wanted tokens, float32 [wanted, vocab]."""
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        wanted: list[int] = []
        for seq, length in plan:
            new = range(seq.done, seq.done + length)
            wanted += [len(tokens) + position - seq.done for position in wanted_positions(seq, length)]
            tokens += seq.tokens[seq.done : seq.done + length]
            positions += new
            slots += [seq.blocks[position // BLOCK] * BLOCK + position % BLOCK for position in new]
        batch = Batch(
            tokens=self._tensor(tokens),
            positions=self._tensor(positions),
            lengths=tuple(length for _, length in plan),
            contexts=tuple(seq.done + length for seq, length in plan),
            tables=tuple(self._tensor(seq.blocks) for seq, _ in plan),
            slots=self._tensor(slots),
            wanted=self._tensor(wanted),
        )
        logits = self.model.forward(batch, self.cache)
        return list(torch.split(logits, [len(wanted_positions(seq, length)) for seq, length in plan]))

    def _tensor(self, numbers: list[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self.device)


def wanted_positions(seq: Sequence, length: int) -> range:
    """Which of its next tokens a sequence wants logits for: the last it has, or each from the prompt's last on."""
    end = seq.done + length
    if seq.scored:
        return range(min(max(seq.done, seq.prompt_len - 1), end), end)
    return range(end - 1 if end == len(seq.tokens) else end, end)
