"""Choose passages that bear on the question and do not repeat each other.

Maximal marginal relevance (Carbonell and Goldstein 1998): each next one has the best balance between its own score and
its likeness to those that are chosen already. This file knows scores, vectors and offsets. It knows nothing of
questions or indexes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trackbed.retrieval.types import Passage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEIGHT = 0.7  # of a passage's score against its likeness to what is chosen
SAME = 0.97  # likeness from which on a passage says nothing new
LAST = 4.0  # more than any two can differ by in worth


def diverse(
    passages: Sequence[Passage], vectors: "NDArray[np.float32]", k: int, weight: float = WEIGHT
) -> tuple[Passage, ...]:
    """At most `k` of the passages, in the order in which they were given, which is best first.

    `vectors` are theirs, of unit length: [passages, dimension]. With a weight of 1 the scores decide. In any case, what
    says the same as one that is chosen is taken only when nothing else is left.
    """
    import numpy as np

    if not 0 <= weight <= 1:
        raise ValueError(f"the weight of scores against likeness is {weight}; it is 0 to 1")
    scores = np.array([passage.score for passage in passages], dtype=np.float32)
    likeness = np.full(len(passages), -1, dtype=np.float32)  # to the one chosen that is most like it
    left = np.ones(len(passages), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(k, len(passages)):
        # The first always goes by its score; a penalty needs something that is chosen.
        worth = weight * scores - ((1 - weight) * likeness if chosen else 0) - LAST * (likeness >= SAME)
        best = int(np.argmax(np.where(left, worth, -np.inf)))
        chosen.append(best)
        left[best] = False
        shared = np.array([_shared(passages[best], other) for other in passages], dtype=np.float32)
        likeness = np.maximum(likeness, np.maximum(vectors @ vectors[best], shared))
    return tuple(passages[row] for row in sorted(chosen))


def _shared(one: Passage, other: Passage) -> float:
    """How much of the shorter stands in both: 1 where one of them is part of the other, or is the same text."""
    if one.text == other.text:
        return 1.0
    if one.source != other.source:
        return 0.0
    shared = min(one.end, other.end) - max(one.start, other.start)
    return max(shared, 0) / max(min(one.end - one.start, other.end - other.start), 1)
