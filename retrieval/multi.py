"""Several indexes, searched at once, as one.

A source is named by its index and its own name, `handbook/leave.md`, so that two of one name are told apart; a filter
on `source` speaks of these names. This file knows retrievers and names. It knows nothing of how each of them searches.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

from trackbed.retrieval.fuse import reciprocal_ranks
from trackbed.retrieval.types import AnyOf, Between, Condition, Passage, Query, Retriever, Shelf, Shelved

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SOURCE = "source"  # the key of a filter that is about names


class Many:
    """Retrievers with names.

    Where their scores are `comparable`, as those of one kind over one embedder are, the best scores come first. Else
    places are fused, and a score says that all that stand before it have at least this one. Where each has an index of
    its own, so have they together.
    """

    index: Shelf

    def __init__(self, retrievers: Sequence[tuple[str, Retriever]], *, comparable: bool = True) -> None:
        names = [name for name, _ in retrievers]
        if not names or "" in names or any("/" in name for name in names) or len(set(names)) < len(names):
            raise ValueError(f"indexes need different names without '/', one at least; these are {names}")
        self.retrievers = dict(retrievers)
        self.comparable = comparable
        shelved = {name: one for name, one in retrievers if isinstance(one, Shelved)}
        if len(shelved) == len(names):
            self.index = _Shelves(shelved)

    async def search(self, query: Query, k: int) -> tuple[Passage, ...]:
        """The `k` best passages of all indexes. Raises what any of them raises: none is left out in silence."""
        asked = {name: own for name in self.retrievers if (own := _asked(query, name)) is not None}
        tasks = [asyncio.ensure_future(self.retrievers[name].search(own, k)) for name, own in asked.items()]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        rankings = [[_named(one, name) for one in passages] for name, passages in zip(asked, found, strict=True)]
        known = {_key(one): one for ranking in rankings for one in ranking}
        ranks = reciprocal_ranks([_key(one) for one in ranking] for ranking in rankings)
        # Names settle what nothing else does, so that the order of the indexes does not show.
        order = sorted(known, key=lambda key: (*_rank(ranks[key], known[key].score, self.comparable), key))
        lowest = accumulate((known[key].score for key in order), min)
        return tuple(replace(known[key], score=score) for key, score in zip(order, lowest, strict=True))[: max(k, 0)]


class _Shelves:
    """The indexes of several retrievers, as one."""

    def __init__(self, shelved: Mapping[str, Shelved]) -> None:
        self._shelved = shelved

    def around(self, passage: Passage, before: int, after: int) -> tuple[Passage, ...]:
        name, _, source = passage.source.partition("/")
        found = self._shelved[name].index.around(replace(passage, source=source), before, after)
        return tuple(_named(one, name) for one in found)

    def vectors_of(self, passages: Sequence[Passage]) -> "NDArray[np.float32]":
        import numpy as np

        found = []
        for passage in passages:
            name, _, source = passage.source.partition("/")
            found.append(self._shelved[name].index.vectors_of([replace(passage, source=source)]))
        return np.concatenate(found) if found else np.empty((0, 0), dtype=np.float32)


def _key(passage: Passage) -> tuple[str, int, int, str]:
    return passage.source, passage.start, passage.end, passage.text


def _rank(fused: float, score: float, comparable: bool) -> tuple[float, float]:
    return (-score, -fused) if comparable else (-fused, -score)


def _named(passage: Passage, name: str) -> Passage:
    return replace(passage, source=f"{name}/{passage.source}")


def _asked(query: Query, name: str) -> Query | None:
    """The query in the words of one index; None where its filter lets nothing of that index through."""
    if SOURCE not in query.filter:
        return query
    condition = _within(query.filter[SOURCE], f"{name}/")
    return None if condition is None else replace(query, filter={**query.filter, SOURCE: condition})


def _within(condition: Condition, prefix: str) -> Condition | None:
    """A condition on names as one on what follows this prefix; None where no name with it meets the condition."""
    if isinstance(condition, AnyOf):
        names = [one for one in condition.values if isinstance(one, str) and one.startswith(prefix)]
        return AnyOf(tuple(str(one).removeprefix(prefix) for one in names)) if names else None
    least, most = condition
    if any(bound is not None and not isinstance(bound, str) for bound in condition):
        return None  # a name is no number
    low: str | None = None
    high: str | None = None
    if isinstance(least, str):
        if least.startswith(prefix):
            low = least.removeprefix(prefix)
        elif least > prefix:
            return None  # above all names with the prefix
    if isinstance(most, str):
        if most.startswith(prefix):
            high = most.removeprefix(prefix)
        elif most < prefix:
            return None
    return Between(low, high)
