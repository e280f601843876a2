"""Several rankings become one: by places, or by scores that are brought to one scale.

Whatever order the rankings come in, the outcome is the same. This file knows places and numbers. It knows nothing of
indexes, passages or questions.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

K = TypeVar("K", bound=Hashable)
CONSTANT = 60  # of reciprocal ranks, as in the paper: the higher, the less the first places count over later ones
WEIGHT = 0.5  # of meaning against words
NOTHING = 1e-6  # a limit below it is none


def reciprocal_ranks(rankings: Iterable[Sequence[K]], constant: int = CONSTANT) -> dict[K, float]:
    """Reciprocal rank fusion (Cormack et al. 2009): a score for each thing that is ranked, 1 for the first of all.

    A ranking holds things best first, none twice. One that does not hold a thing counts nothing for it.
    """
    places: dict[K, list[int]] = {}
    count = 0
    for ranking in rankings:
        count += 1
        for place, thing in enumerate(ranking, 1):
            places.setdefault(thing, []).append(place)
    most = count / (constant + 1)
    # The sum is exact before it is rounded, so that the order of rankings does not show.
    return {thing: math.fsum(1 / (constant + place) for place in at) / most for thing, at in places.items()}


def weighted(
    cosines: "NDArray[np.float32]", words: "NDArray[np.float32]", limit: float, weight: float = WEIGHT
) -> "NDArray[np.float32]":
    """A convex combination of both scores on their theoretical scales (Bruch et al. 2022, arXiv:2210.11934).

    A cosine is at most 1, and a score by words at most `limit`, which is what a text of nothing but the question's
    words would come near to. So the outcome, -1 to 1, means the same from one question to the next. Where no word of
    the question is known, and `limit` is nothing, the cosine decides alone.
    """
    import numpy as np

    if limit < NOTHING:
        return np.clip(cosines, -1, 1)
    fused: NDArray[np.float32] = weight * np.clip(cosines, -1, 1) + (1 - weight) * np.clip(words / limit, 0, 1)
    return fused.astype(np.float32)
