"""One pass through a model: which tokens of which sequences, and where their keys and values are kept.

This file knows the layout of the cache. It knows nothing of how a pass is planned, or of what is computed.
"""

from dataclasses import dataclass

BLOCK = 16  # tokens of a cache block


@dataclass(frozen=True, slots=True)
class Batch:
    """The new tokens of one or more sequences, one sequence after another."""

    tokens: list[int]
    lengths: tuple[int, ...]  # new tokens of each sequence; their sum is that of `tokens`
    contexts: tuple[int, ...]  # tokens that each sequence has in the cache once these are in it
    tables: tuple[list[int], ...]  # each sequence's cache blocks in order
    wanted: list[int]  # places in `tokens` of those whose logits are wanted, ascending

    @property
    def positions(self) -> list[int]:
        """Each token's place in its sequence."""
        pairs = zip(self.lengths, self.contexts, strict=True)
        return [place for length, context in pairs for place in range(context - length, context)]

    @property
    def slots(self) -> list[int]:
        """Where each token's key and value go: block * BLOCK + place in it."""
        sequences = zip(self.lengths, self.contexts, self.tables, strict=True)
        return [
            table[place // BLOCK] * BLOCK + place % BLOCK
            for length, context, table in sequences
            for place in range(context - length, context)
        ]
