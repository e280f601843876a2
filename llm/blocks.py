"""Who holds which blocks of the KV cache.

The pool knows block numbers. It knows nothing of what is in them.
"""

from trackbed.llm.types import Sequence


class BlockPool:
    """All blocks of a cache, `size` tokens each."""

    def __init__(self, blocks: int, size: int) -> None:
        self.size = size
        self.capacity = blocks * size  # tokens
        self.free = list(range(blocks))

    def reserve(self, seq: Sequence) -> bool:
        """Give the sequence blocks for all its tokens; or nothing, where too few are free."""
        missing = -(-len(seq.tokens) // self.size) - len(seq.blocks)
        if missing > len(self.free):
            return False
        seq.blocks += [self.free.pop() for _ in range(missing)]
        return True

    def release(self, seq: Sequence) -> None:
        """Take back all that the sequence holds."""
        self.free += seq.blocks
        seq.blocks = []
