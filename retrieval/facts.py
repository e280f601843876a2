"""What the passages of a segment say of themselves, as columns: which rows a query's filter and principals let through.

The rule is in `allowed`, and is asked of each different value of a key once, whatever the number of passages.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trackbed.retrieval.allowed import meets, readable
from trackbed.retrieval.types import ALLOW, AnyOf, Condition, Query, Value

SOURCE = "source"


class _Column:
    """A key: its different values, and which of them each fact has."""

    def __init__(self, said: Sequence[Value | None]) -> None:
        # A tuple that tells True, 1 and "1" apart stands for a value; 1 and 1.0 may have two places.
        places: dict[object, int] = {}
        codes = [places.setdefault(_mark(value), len(places)) for value in said]
        self.codes = np.array(codes, dtype=np.int32)
        self.values: list[Value | None] = [None] * len(places)
        for value, code in zip(said, codes, strict=True):
            self.values[code] = value
        self._holding: dict[object, list[int]] | None = None

    def meeting(self, condition: Condition) -> NDArray[np.bool_]:
        """The facts whose value meets a condition: [facts]."""
        if not isinstance(condition, AnyOf):
            return self.where(lambda value: meets(value, condition), range(len(self.values)))
        # Only what is equal as Python has it, where True is 1, can meet it; `meets` decides.
        candidates = {place for one in condition.values for place in self.holding.get(one, ())}
        return self.where(lambda value: meets(value, condition), sorted(candidates))

    def where(self, true: Callable[[Value | None], bool], places: Sequence[int]) -> NDArray[np.bool_]:
        """The facts whose value is at one of these places and for which this is true: [facts]."""
        meeting = np.zeros(len(self.values), dtype=np.bool_)
        for place in places:
            meeting[place] = true(self.values[place])
        return meeting[self.codes]

    @property
    def holding(self) -> Mapping[object, list[int]]:
        """The places of the values that are, or hold, one thing."""
        if self._holding is None:
            self._holding = {}
            for place, value in enumerate(self.values):
                for one in value if isinstance(value, tuple) else (value,):
                    self._holding.setdefault(one, []).append(place)
        return self._holding


class Facts:
    """The different pairs of source and metadata in a segment, and which of them each row has."""

    def __init__(self, facts: Sequence[tuple[str, Mapping[str, Value]]], of: NDArray[np.int32]) -> None:
        self._facts = facts
        self._of = of
        self._columns: dict[str, _Column] = {}

    def allowed(self, query: Query) -> NDArray[np.bool_]:
        """The rows that the query's principals may read and its filter lets through: [rows]."""
        readers = self._column(ALLOW)
        passing = readers.where(
            lambda groups: groups is None or readable({ALLOW: groups}, query.principals), range(len(readers.values))
        )
        for key, condition in query.filter.items():
            passing = passing & self._column(key).meeting(condition)
        return passing[self._of]

    def _column(self, key: str) -> _Column:
        if key not in self._columns:
            self._columns[key] = _Column(
                [source if key == SOURCE else metadata.get(key) for source, metadata in self._facts]
            )
        return self._columns[key]


def _mark(value: Value | None) -> object:
    return value if isinstance(value, tuple) else (type(value), value)
