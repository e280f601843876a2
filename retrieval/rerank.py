"""Put the first passages of a search in a better order, by a model that reads the question beside each.

It takes time, so it is bounded: passages are scored in batches, and when the time is over before the last one, the
order stays what it was. Scores of some and not of others would not be comparable. This file knows time and batches. It
knows nothing of models.
"""

import asyncio
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic

import numpy as np

from trackbed.retrieval.types import PairScorer, Passage

BATCH = 8  # passages between two looks at the clock


async def rerank(
    question: str, passages: Sequence[Passage], scorer: PairScorer, deadline: float = math.inf
) -> tuple[Passage, ...]:
    """The passages by their new scores, best first; of equal ones, in the order that they had.

    `deadline` is a time of `monotonic`. Raises TimeoutError when it comes first, and what the scorer raises. A scorer
    that is still at work then goes on with its batch, and ends.
    """
    over = threading.Event()
    work = asyncio.ensure_future(asyncio.to_thread(_scores, question, [one.text for one in passages], scorer, over))
    try:
        left = None if math.isinf(deadline) else max(deadline - monotonic(), 0)
        done, _ = await asyncio.wait({work}, timeout=left)
    finally:
        over.set()
        if not work.done():
            work.add_done_callback(_forget)
    if not done:
        raise TimeoutError
    scores = work.result()
    order = sorted(range(len(passages)), key=lambda n: -scores[n])
    return tuple(replace(passages[n], score=scores[n]) for n in order)


def _scores(question: str, texts: Sequence[str], scorer: PairScorer, over: threading.Event) -> list[float]:
    scores: list[float] = []
    for first in range(0, len(texts), BATCH):
        if over.is_set():
            raise TimeoutError
        found = scorer.score(question, texts[first : first + BATCH])
        if len(found) != len(texts[first : first + BATCH]) or not np.isfinite(found).all():
            raise ValueError("a scorer gives every text a number")
        scores += np.clip(found, -1, 1).tolist()
    return scores


def _forget(work: "asyncio.Future[list[float]]") -> None:
    """Take note of a late result, so that nobody warns of an exception that was never looked at."""
    if not work.cancelled():
        work.exception()
