"""Find the dates of a text, however they are written: a year with a month, or a month with a day, at least.

It knows English months and the order of ISO 8601. A year alone is a number like any other, and of `3/4/2015` nobody
knows which is the month: it is taken for either.
"""

import re
from functools import lru_cache
from typing import NamedTuple

MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_NAMES = "|".join(rf"{month[:3]}(?:{month[3:]})?" if month != "may" else month for month in MONTHS) + "|sept"
_MONTH, _DAY, _YEAR = rf"(?P<month>{_NAMES})\b\.?", r"(?P<day>\d{1,2})(?:st|nd|rd|th)?", r"(?P<year>[12]\d{3})"
DATE = tuple(
    re.compile(rf"\b{pattern}\b", re.IGNORECASE)
    for pattern in (
        rf"{_MONTH}\s{{1,3}}{_DAY}(?:,?\s{{1,3}}{_YEAR})?",  # March 12, 2015
        rf"{_DAY}\s{{1,3}}(?:of\s{{1,3}})?{_MONTH}(?:,?\s{{1,3}}{_YEAR})?",  # 12 March 2015
        rf"{_MONTH},?\s{{1,3}}(?:of\s{{1,3}})?{_YEAR}",  # March 2015
        r"(?P<year>[12]\d{3})-(?P<number>\d{2})-(?P<day>\d{2})",  # 2015-03-12
        r"(?P<one>\d{1,2})[/.](?P<other>\d{1,2})[/.](?P<year>[12]\d{3})",  # 12/03/2015
    )
)


class Date(NamedTuple):
    """What a text says of a date: `text[start:end]`."""

    year: int | None
    month: int
    day: int | None
    start: int
    end: int

    def says(self, other: "Date") -> bool:
        """Whether this date says all that the other does."""
        return self.month == other.month and other.year in (None, self.year) and other.day in (None, self.day)


@lru_cache(maxsize=512)
def dates(text: str) -> tuple[Date, ...]:
    """The dates of a text, in order; one whose day and month may be either way round is there twice.

    >>> [(d.year, d.month, d.day) for d in dates("from 12 March 2015 to 2016-01-02, and in May 2017")]
    [(2015, 3, 12), (2016, 1, 2), (2017, 5, None)]
    """
    found: list[Date] = []
    for pattern in DATE:
        for match in pattern.finditer(text):
            if not any(date.start < match.end() and match.start() < date.end for date in found):
                found += _read(match)
    return tuple(sorted(found, key=lambda date: date.start))


def _read(match: re.Match[str]) -> list[Date]:
    said = match.groupdict()
    year, day = said.get("year"), said.get("day")
    if said.get("one"):
        pairs = {(int(said["one"]), int(said["other"])), (int(said["other"]), int(said["one"]))}
    else:
        name = said.get("month")
        month = next(i for i, full in enumerate(MONTHS, 1) if full.startswith(name.lower()[:3])) if name else 0
        pairs = {(month or int(said["number"]), int(day) if day else 0)}
    return [
        Date(int(year) if year else None, month, day or None, *match.span())
        for month, day in sorted(pairs)
        if 1 <= month <= 12 and 0 <= day <= 31
    ]
