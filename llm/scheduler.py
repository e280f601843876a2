"""In-flight batching: choose which tokens run in the next forward pass.

The engine alternates `step`, which plans a pass, with `commit`, which records it. Sequences join
and leave between passes, so a short answer never waits for a long one.

The scheduler knows token counts and cache blocks. It knows nothing of tensors, text or devices.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from trackbed.llm.blocks import BlockPool
from trackbed.llm.errors import PromptTooLong
from trackbed.llm.types import Sequence


class Work(NamedTuple):
    """A sequence's share of a pass."""

    seq: Sequence
    length: int  # how many of its next tokens run in this pass


class Scheduler:
    """What waits, what runs, and whose turn it is."""

    def __init__(self, blocks: BlockPool, *, max_seqs: int, max_tokens: int) -> None:
        self.blocks = blocks
        self.max_seqs = max_seqs
        self.max_tokens = max_tokens  # per pass, and at least max_seqs
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # oldest first

    def add(self, seq: Sequence) -> None:
        """Put a sequence at the end of the queue. Raises PromptTooLong where it could never run."""
        if seq.max_len > self.blocks.capacity:
            raise PromptTooLong(f"{seq.max_len} tokens, and the whole cache holds {self.blocks.capacity}")
        self.waiting.append(seq)

    def remove(self, seq: Sequence) -> None:
        """Forget a sequence that nobody waits for any more, between two passes."""
        (self.running if seq.admitted else self.waiting).remove(seq)
        self.blocks.release(seq)

    def step(self) -> list[Work]:
        """Plan a pass: one token for every sequence that is decoding, then prompts in chunks."""
        plan, admit = [], True

        # When the cache is full the youngest gives way. We walk from the oldest, so the one
        # that leaves is never in the plan already; at worst it is `seq` itself.
        for seq in [s for s in self.running if s.pending == 1]:
            while seq.admitted and not self.blocks.reserve(seq):
                self._preempt()
                admit = False
            if seq.admitted:
                plan.append(Work(seq, 1))

        budget = self.max_tokens - len(plan)
        prompts = self._prompts(admit)
        while budget > 0 and (prompt := next(prompts, None)):
            plan.append(Work(prompt, min(prompt.pending, budget)))
            budget -= plan[-1].length
        return plan

    def commit(self, plan: list[Work], sampled: list[int | None]) -> list[Sequence]:
        """Record a pass, with the token that each entry of `plan` has sampled, if any; return what it finished."""
        finished = []
        for (seq, length), token in zip(plan, sampled, strict=True):
            seq.done += length
            if token is not None:
                seq.tokens.append(token)
            if seq.finished:
                self.running.remove(seq)
                self.blocks.release(seq)
                finished.append(seq)
        return finished

    def _prompts(self, admit: bool) -> Iterator[Sequence]:
        """Sequences still inside their prompt, then new ones for as long as they fit."""
        yield from [s for s in self.running if s.pending > 1]
        while admit and self.waiting and len(self.running) < self.max_seqs and self.blocks.reserve(self.waiting[0]):
            seq = self.waiting.popleft()
            seq.admitted = True
            self.running.append(seq)
            yield seq

    def _preempt(self) -> None:
        """Send the youngest back to the head of the queue, to be recomputed when there is room."""
        seq = self.running.pop()
        seq.admitted, seq.done = False, 0
        self.blocks.release(seq)
        self.waiting.appendleft(seq)
