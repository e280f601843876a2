"""Any text as one that PostgreSQL can hold, and back.

It takes every character but NUL and lone surrogates. These two, and the character that marks each, are written as
pairs. No two texts are written alike, and their order is kept, so that conditions on what is written hold of what was
meant.
"""

import re

NUL, SURROGATES = "\x01", "\ue000"  # what a pair begins with: the first character above those it stands for
_UNFIT = re.compile("[\x00\x01\ud800-\udfff\ue000]")
_PAIR = re.compile("\x01[\x01\x02]|\ue000[\u0100-\u0900]")
_LOWEST = 0xD800
_FIRST = 0x100


def stored(text: str) -> str:
    """A text as PostgreSQL can hold it."""
    return _UNFIT.sub(_write, text)


def restored(text: str) -> str:
    """The text that `stored` was given."""
    return _PAIR.sub(_read, text)


def _write(found: re.Match[str]) -> str:
    code = ord(found[0])
    return NUL + chr(code + 1) if code <= 1 else SURROGATES + chr(code - _LOWEST + _FIRST)


def _read(found: re.Match[str]) -> str:
    code = ord(found[0][1])
    return chr(code - 1) if found[0][0] == NUL else chr(code - _FIRST + _LOWEST)
