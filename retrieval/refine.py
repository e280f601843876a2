"""From candidates to what a reader is given: put in order, without repetition, and with what stands around.

Any retriever's passages can be refined. Each step is bounded in passages and all of them in time; a step that there is
no time for, or that fails, is left out, and that is said. No step adds what the query may not find. This file knows the
order of the steps. It knows nothing of models or indexes.
"""

import asyncio
import math
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from trackbed.retrieval.diversity import diverse
from trackbed.retrieval.found import Found
from trackbed.retrieval.rerank import rerank
from trackbed.retrieval.searchable import searchable
from trackbed.retrieval.types import Embedder, PairScorer, Passage, Query, Retriever, Shelf, Shelved
from trackbed.retrieval.widen import Widening, widen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CANDIDATES = 30  # that are looked at to find the best few
MOST = 200  # candidates, however many are asked for
SECONDS = 2.0  # for all steps after the search


class Refined:
    """A retriever whose candidates are refined.

    With a `scorer` they are put in its order, and have its scores. With `diversity`, 0 to 1, passages that repeat each
    other give way; at 1 only those that say the same do. Likeness is told by the index's own vectors, else by the
    embedder. With a widening, each has what stands around it in its document. `seconds` are for
    all of it; None: no bound.
    """

    def __init__(
        self,
        retriever: Retriever,
        *,
        scorer: PairScorer | None = None,
        embedder: Embedder | None = None,
        diversity: float | None = None,
        widening: Widening = Widening(),
        candidates: int = CANDIDATES,
        seconds: float | None = SECONDS,
    ) -> None:
        shelved = isinstance(retriever, Shelved)
        if diversity is not None and not 0 <= diversity <= 1:
            raise ValueError(f"diversity is {diversity}; it is 0 to 1")
        if diversity is not None and not shelved and embedder is None:
            raise ValueError("diversity needs an embedder, since this retriever has no vectors of its own")
        if widening and not shelved:
            raise ValueError("neighbours and parents need a retriever that has an index of its own")
        if not 1 <= candidates <= MOST:
            raise ValueError(f"candidates are {candidates}; they are 1 to {MOST}")
        self.retriever = retriever
        self.scorer = scorer
        self.embedder = embedder
        self.diversity = diversity
        self.widening = widening
        self.candidates = candidates
        self.seconds = seconds

    @property
    def _shelf(self) -> Shelf | None:
        return self.retriever.index if isinstance(self.retriever, Shelved) else None

    async def search(self, query: Query, k: int) -> tuple[Passage, ...]:
        """At most `k` passages, the best first."""
        return (await self.find(query, k)).passages

    async def find(self, query: Query, k: int) -> Found:
        """The same, and what was done. Raises what the search raises; the steps after it raise nothing."""
        chooses = self.scorer is not None or self.diversity is not None
        passages = await self.retriever.search(query, max(k, self.candidates) if chooses and k > 0 else k)
        notes: dict[str, int | str] = {"candidates": len(passages)}
        deadline = math.inf if self.seconds is None else monotonic() + self.seconds
        if self.scorer and passages:
            passages = await self._step("rerank", self._reranked(query, passages, deadline), passages, deadline, notes)
        if self.diversity is not None and k < len(passages):
            chosen = asyncio.to_thread(self._diverse, passages, k, self.diversity)
            passages = await self._step("diversity", chosen, passages, deadline, notes)
        passages = passages[: max(k, 0)]
        if self.widening and passages and (shelf := self._shelf):
            widened = asyncio.to_thread(widen, passages, shelf, query, self.widening)
            passages = await self._step("widening", widened, passages, deadline, notes)
        return Found(passages, notes)

    async def _reranked(self, query: Query, passages: Sequence[Passage], deadline: float) -> tuple[Passage, ...]:
        """The candidates in the scorer's order; what comes after them stays after them."""
        assert self.scorer
        first, later = passages[: self.candidates], passages[self.candidates :]
        ordered = await rerank(query.text, first, self.scorer, deadline)
        return (*ordered, *(replace(one, score=min(one.score, ordered[-1].score)) for one in later))

    def _diverse(self, passages: Sequence[Passage], k: int, weight: float) -> tuple[Passage, ...]:
        first = passages[: max(MOST, k)]
        return diverse(first, self._vectors(first), k, weight)

    def _vectors(self, passages: Sequence[Passage]) -> "NDArray[np.float32]":
        if shelf := self._shelf:
            return shelf.vectors_of(passages)
        assert self.embedder
        return self.embedder.embed([searchable(passage) for passage in passages])

    async def _step(
        self,
        name: str,
        work: Coroutine[Any, Any, tuple[Passage, ...]],
        given: tuple[Passage, ...],
        deadline: float,
        notes: dict[str, int | str],
    ) -> tuple[Passage, ...]:
        """What a step makes of what it is given; that itself where the step fails or comes too late."""
        task = asyncio.ensure_future(work)
        try:
            left = None if math.isinf(deadline) else max(deadline - monotonic(), 0)
            await asyncio.wait({task}, timeout=left)
            if not task.done():
                raise TimeoutError
            made = task.result()
        except Exception as error:  # noqa: BLE001 - the passages are there, in the order of the search
            notes[name] = f"left out: {type(error).__name__}"
            return given
        finally:
            if not task.done():
                task.cancel()
        notes[name] = len(made)
        return made
