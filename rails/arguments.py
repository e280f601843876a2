"""The arguments of a call as a text that rails read, and the call again when something in the text is masked.

The text is JSON, save that strings stand in it as they are: nothing is escaped, so that a rail finds in them what it
finds in any text. This file knows what of a text can be masked. It knows no rail and no tool.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trackbed.rails.types import Finding, ToolCall


@dataclass(frozen=True, slots=True)
class Written:
    """The arguments of a call as a text, and what stands where in it."""

    text: str
    strings: tuple[tuple[int, int], ...]  # values that are strings, in the order of the text; without their quotes
    fixed: tuple[tuple[int, int], ...]  # keys and other values, which cannot be masked


def write(call: ToolCall) -> Written:
    """The text that rails judge.

    >>> write(ToolCall("send", {"to": "a@b.org", "copies": 2})).text
    '{"copies":2,"to":"a@b.org"}'
    """
    pieces: list[str] = []
    strings: list[tuple[int, int]] = []
    fixed: list[tuple[int, int]] = []
    at = 0
    for piece, kept in _pieces(call.arguments):
        if kept is not None and piece:
            kept_in = strings if kept == "string" else fixed
            kept_in.append((at, at + len(piece)))
        elif kept == "string":
            strings.append((at, at))
        pieces.append(piece)
        at += len(piece)
    return Written("".join(pieces), tuple(strings), tuple(fixed))


def mask_call(call: ToolCall, findings: Sequence[Finding]) -> ToolCall | None:
    """The call with each finding in a string replaced by its label; None where one is in a key or another value.

    >>> mask_call(ToolCall("send", {"to": "a@b.org"}), [Finding("EMAIL_ADDRESS", 7, 14)]).text
    '{"to":"<EMAIL_ADDRESS>"}'
    """
    written = write(call)
    for finding in findings:
        touches = [(start, end) for start, end in written.strings if finding.start < end and start < finding.end]
        if not touches or any(finding.start < end and start < finding.end for start, end in written.fixed):
            return None
    texts = (masked(written.text, findings, start, end) for start, end in written.strings)
    return replace(call, arguments=_filled(call.arguments, texts))


def masked(text: str, findings: Sequence[Finding], begin: int, until: int) -> str:
    """`text[begin:until]` with its part of each finding replaced; overlapping findings become one."""
    pieces, reached = [], begin
    for finding in sorted(findings, key=lambda f: (f.start, -f.end)):
        start, end = max(finding.start, begin), min(finding.end, until)
        if start < end and start >= reached:
            pieces += [text[reached:start], f"<{finding.label}>"]
        if start < end:
            reached = max(reached, end)
    return "".join(pieces) + text[reached:until]


def _pieces(value: Any) -> Iterator[tuple[str, str | None]]:  # Any: JSON
    """The text piece by piece: each with whether it is a string, something fixed, or only holds the others together."""
    if isinstance(value, str):
        yield from (('"', None), (value, "string"), ('"', None))
    elif isinstance(value, Mapping):
        yield "{", None
        for i, key in enumerate(sorted(value)):
            yield from ((',"' if i else '"', None), (key, "fixed"), ('":', None))
            yield from _pieces(value[key])
        yield "}", None
    elif isinstance(value, tuple):
        yield "[", None
        for i, child in enumerate(value):
            if i:
                yield ",", None
            yield from _pieces(child)
        yield "]", None
    else:
        yield json.dumps(value), "fixed"


def _filled(value: Any, texts: Iterator[str]) -> Any:  # Any: JSON
    """The value with its strings replaced, in the order of the text."""
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, Mapping):
        return {key: _filled(value[key], texts) for key in sorted(value)}
    return [_filled(child, texts) for child in value] if isinstance(value, tuple) else value
