"""Passages that say alike are believed alike: scores are evened out between neighbours.

Documents that are near each other tend to answer the same questions (the cluster hypothesis, van Rijsbergen 1979), so
a score is mixed with those of the passages nearest to it (regularised scores, Diaz 2005). It lifts what the question's
own words missed, next to what they found. This file knows scores and vectors, and nothing of where they come from.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHARE = 0.4  # of a score that its neighbours have
NEAREST = 5  # neighbours
POWER = 4  # how much less a neighbour counts that is further off


def smoothed(
    scores: "NDArray[np.float32]", vectors: "NDArray[np.float32]", share: float = SHARE
) -> "NDArray[np.float32]":
    """The scores, each mixed with those of its nearest neighbours among them; no order is expected, and none made.

    `vectors` are of unit length: [scores, dimension]. What has nothing near it keeps its score.
    """
    import numpy as np

    if len(scores) < 2:
        return scores
    likeness = np.maximum(vectors @ vectors.T, 0) ** POWER  # [scores, scores]
    np.fill_diagonal(likeness, 0)
    if len(scores) > NEAREST + 1:
        least = np.partition(likeness, len(scores) - NEAREST, axis=1)[:, len(scores) - NEAREST, None]
        likeness[likeness < least] = 0
    total = likeness.sum(axis=1)
    near = np.where(total > 0, likeness @ scores / np.maximum(total, 1e-12), scores)
    mixed: NDArray[np.float32] = ((1 - share) * scores + share * near).astype(np.float32)
    return mixed
