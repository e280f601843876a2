"""Which parts of a Markdown text are code, which is shown and not carried out.

Fenced blocks and inline code (https://spec.commonmark.org/0.31.2/, sections 4.5 and 6.1). Indented code, and fences in
lists and quotations, are taken for prose: who looks for what is active looks there too.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator

FENCE = re.compile(r" {0,3}(`{3,}(?=[^`\n]*$)|~{3,})(.*)$")
TICKS = re.compile(r"`+")
BLANK = re.compile(r"\n[ \t\r]*\n")


def code_spans(text: str) -> list[tuple[int, int]]:
    """Where code stands, with its marks, in order.

    >>> code_spans("a `b` c")
    [(2, 5)]
    """
    spans, at = list[tuple[int, int]](), 0
    for start, end in _fenced(text):
        spans += [*_inline(text, at, start), (start, end)]
        at = end
    return [*spans, *_inline(text, at, len(text))]


def _fenced(text: str) -> Iterator[tuple[int, int]]:
    mark, begun, at = "", 0, 0
    for line in text.split("\n"):
        match, end = FENCE.match(line.rstrip("\r")), min(at + len(line) + 1, len(text))
        if match and not mark:
            mark, begun = match.group(1), at
        elif match and match.group(1).startswith(mark) and not match.group(2).strip():
            yield begun, end
            mark = ""
        at = end
    if mark:
        yield begun, len(text)


def _inline(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Between two runs of as many backticks, in one paragraph."""
    runs = [match.span() for match in TICKS.finditer(text, start, end)]
    breaks = [match.start() for match in BLANK.finditer(text, start, end)]
    by_length: dict[int, list[int]] = {}
    for begin, until in runs:
        by_length.setdefault(until - begin, []).append(begin)
    reached = start
    for begin, until in runs:
        alike = by_length[until - begin]
        following = bisect_right(alike, begin)
        if begin < reached or following == len(alike):
            continue
        close = alike[following] + until - begin
        if bisect_right(breaks, begin) == bisect_right(breaks, close):
            yield begin, close
            reached = close
