"""Find the marks in a draft: `[n]`, `[1, 2]` or `[1][2]`, where a model names the passages that a sentence rests on.

This file knows the signs. It knows nothing of sentences, nor whether a mark is right.
"""

import re

from trackbed.rails.sentences import FENCE

_NUMBERS = r"(?:\[\s?\d{1,3}(?:\s?[,;]\s?\d{1,3}){0,9}\s?\]){1,9}(?!\()"  # not before (: that is a link
MARK = re.compile(rf"^{_NUMBERS}[ \t]{{1,3}}|[ \t]{{0,3}}{_NUMBERS}", re.MULTILINE)
# In code `[1]` is an index: a fenced block, or a stretch of a line between backticks.
CODE = re.compile(r"^ {0,3}(?:```|~~~)(?s:.*?)(?:\n {0,3}(?:```|~~~)|\Z)|`[^`\n]*`", re.MULTILINE)
CODE_OR_MARK = re.compile(rf"(?P<code>{CODE.pattern})|{MARK.pattern}", re.MULTILINE)


def unmarked(draft: str) -> tuple[str, list[tuple[int, int]]]:
    """The draft without its marks, and each mark's place in what is left with its number; code stays as it is."""
    left, marks = _taken_out(draft)
    while (again := _taken_out(left))[1]:  # `[1[2]]`: a mark around a mark means nothing
        left, nested = again
        marks = [mark for mark in marks if mark[0] < nested[0][0]]
    return left, marks


def decided(draft: str) -> str:
    """The draft without an end that may yet become a mark, or turn out to be a link.

    >>> decided("It opens at nine. [1"), decided("It opens at nine. [1] On")
    ('It opens at nine. ', 'It opens at nine. [1] On')
    """
    begins = len(draft)
    while begins and ((sign := draft[begins - 1]) in "[],;" or sign.isdecimal() or sign.isspace()):
        begins -= 1
    bracket = draft.find("[", begins)
    return draft if bracket < 0 else draft[:bracket]


def code_begins(text: str) -> int:
    """Where begins what a later backtick or fence could still make code of; the text's end where nothing does."""
    line = text.rpartition("\n")[2]
    fences = sum(1 for row in text.splitlines() if FENCE.match(row))
    if fences % 2:
        return max((m.start() for m in re.finditer(r"^ {0,3}(?:```|~~~)", text, re.MULTILINE)), default=len(text))
    return len(text) - len(line) + line.index("`") if "`" in line else len(text)


def _taken_out(draft: str) -> tuple[str, list[tuple[int, int]]]:
    pieces, marks, at, length = [], [], 0, 0
    for match in CODE_OR_MARK.finditer(draft):
        if match["code"]:
            continue
        pieces.append(draft[at : match.start()])
        length += match.start() - at
        at = match.end()
        marks += [(length, int(number)) for number in re.findall(r"\d+", match.group())]
    return "".join(pieces) + draft[at:], marks
