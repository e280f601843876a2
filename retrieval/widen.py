"""What stands around a hit: its neighbours in the document, or the section that it is from.

A hit and what is joined to it make one stretch of the document, so that offsets go on to hold. Hits that come to share
text become one. Only passages that the query may find are joined. This file knows passages and offsets. It knows
nothing of scores or of how passages are found.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from trackbed.retrieval.allowed import allowed
from trackbed.retrieval.types import Passage, Query, Shelf

MOST = 10  # neighbours on either side
SECTION = 4000  # characters of a section: of a longer one, what is nearest to the hit
FAR = 32  # passages on either side that a section is looked for in


@dataclass(frozen=True, slots=True)
class Widening:
    """How much is joined to a hit: so many neighbours on either side; with `parent`, the section under its heading."""

    neighbours: int = 0
    parent: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.neighbours <= MOST:
            raise ValueError(f"neighbours are {self.neighbours}; they are 0 to {MOST}")

    def __bool__(self) -> bool:
        return self.parent or self.neighbours > 0


class _Stretch(NamedTuple):
    """Passages of a document that follow each other, and the hit that they came for."""

    hit: Passage
    parts: tuple[Passage, ...]


def widen(hits: Sequence[Passage], shelf: Shelf, query: Query, widening: Widening) -> tuple[Passage, ...]:
    """The hits with what stands around them, in their order and with their scores; no more than there were."""
    stretches: list[_Stretch] = []
    for hit in hits:
        stretches = _merged(stretches, _Stretch(hit, _around(hit, shelf, query, widening)))
    return tuple(_joined(stretch) for stretch in stretches)


def _around(hit: Passage, shelf: Shelf, query: Query, widening: Widening) -> tuple[Passage, ...]:
    """The hit and what is joined to it, in the document's order; the hit alone where it is there no more."""
    reach = FAR if widening.parent else widening.neighbours
    near = shelf.around(hit, reach, reach)
    at = next((n for n, one in enumerate(near) if _span(one) == _span(hit) and one.text == hit.text), None)
    if at is None:
        return (hit,)

    def fits(n: int, first: int, last: int) -> bool:
        one = near[n]
        if one.source != hit.source or not allowed(one, query):
            return False
        short = near[last].end - near[first].start <= SECTION
        return abs(n - at) <= widening.neighbours or (widening.parent and one.heading == hit.heading and short)

    # Outwards, on both sides in turn, as far as there is room and nothing is missing between.
    first = last = at
    before = after = True
    while before or after:
        after = (
            after and last + 1 < len(near) and _follows(near[last], near[last + 1]) and fits(last + 1, first, last + 1)
        )
        last += after
        before = before and first > 0 and _follows(near[first - 1], near[first]) and fits(first - 1, first - 1, last)
        first -= before
    return tuple(near[first : last + 1])


def _merged(stretches: Sequence[_Stretch], new: _Stretch) -> list[_Stretch]:
    """The stretches with one more; it becomes one with those that it shares text with, at the first one's place."""
    kept: list[_Stretch] = []
    place = len(stretches)
    for stretch in stretches:
        parts = _union(stretch.parts, new.parts)
        if parts is None:
            kept.append(stretch)
        else:
            place = min(place, len(kept))
            new = _Stretch(max(stretch.hit, new.hit, key=lambda hit: hit.score), parts)
    return [*kept[:place], new, *kept[place:]]


def _union(some: Sequence[Passage], others: Sequence[Passage]) -> tuple[Passage, ...] | None:
    """Both as one; None where they share no text, or do not fit together."""
    apart = some[0].end <= others[0].start and some[-1].end <= others[0].start
    if some[0].source != others[0].source or apart or others[-1].end <= some[0].start:
        return None
    parts = sorted({_span(one): one for one in (*some, *others)}.values(), key=_span)
    return tuple(parts) if all(map(_follows, parts, parts[1:])) else None


def _follows(one: Passage, following: Passage) -> bool:
    """Whether both together are a stretch of the document: they share text, touch, or the gap is known."""
    shared = one.end - following.start
    if shared >= 0:
        return following.start > one.start and following.text[:shared] == one.text[len(one.text) - shared :]
    return len(one.gap) == -shared


def _joined(stretch: _Stretch) -> Passage:
    """The stretch as one passage, with what is said of its hit."""
    text, end = "", stretch.parts[0].start
    for part in stretch.parts:
        text += part.text[max(end - part.start, 0) :]
        end = part.end
        if part is not stretch.parts[-1]:
            text, end = text + part.gap, end + len(part.gap)
    first, last = stretch.parts[0], stretch.parts[-1]
    pages = _pages(stretch.parts)
    return replace(stretch.hit, text=text, start=first.start, end=last.end, page=first.page, pages=pages, gap=last.gap)


def _pages(parts: Sequence[Passage]) -> tuple[int, ...]:
    """Where later pages begin in a stretch: inside its parts, or between them, which is where the next part begins."""
    begun: list[int] = []
    if (first := parts[0].page) is None:
        return ()
    for part in parts:
        begun += [part.start] * ((part.page or first) - first - len(begun))
        begun += [place for place in part.pages if not begun or place > begun[-1]]
    return tuple(begun)


def _span(passage: Passage) -> tuple[int, int]:
    return passage.start, passage.end
