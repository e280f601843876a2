"""The words of a text as rails compare them: lower case, composed, and with where they stand."""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import re2

from trackbed.rails.library.spans import Folded

PLAIN = re.compile(r"\w+", re.ASCII)
TOKEN = re2.compile(r"[\pL\pM\pN_]+")


class Token(NamedTuple):
    """A word, as it is compared, and where it stands in the folded text."""

    text: str
    start: int
    end: int


def tokens(folded: Folded) -> Iterator[Token]:
    """The words of a folded text, from left to right."""
    if folded.text.isascii():  # the usual case, ten times as fast
        yield from (Token(m.group(), m.start(), m.end()) for m in PLAIN.finditer(folded.text.lower()))
        return
    for match in TOKEN.finditer(folded.text):
        yield Token(unicodedata.normalize("NFC", match.group()).lower(), match.start(), match.end())
