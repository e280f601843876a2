"""Where in a text something stands, kept exact while the text is made plain enough to search.

People, and those who would rather not be noticed, write a card number with full-width digits, no-break spaces or
zero-width characters. `fold` writes such a text as one would read it, and still knows where each character stood.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from trackbed.rails.types import Finding


@dataclass(frozen=True, slots=True)
class Folded:
    """A text made plain."""

    text: str
    origins: Sequence[int]  # of each character: where it stands in the text as written
    length: int  # of the text as written

    def finding(self, label: str, start: int, end: int) -> Finding:
        """What stands at `text[start:end]`, as a span of the text as written."""
        return Finding(label, self.origins[start], self.origins[end - 1] + 1)

    def origin(self, index: int) -> int:
        """Where in the text as written the character at `index` stands; its end for what is behind the last one."""
        return self.origins[index] if index < len(self.origins) else self.length


def fold(text: str) -> Folded:
    """The text with plain digits, letters, spaces and dashes, and without characters that cannot be seen.

    >>> fold("４２\\u200b 5").text
    '42 5'
    """
    if text.isascii():
        return Folded(text, range(len(text)), len(text))
    plain = [_plain(c) for c in text]
    return Folded("".join(plain), [i for i, c in enumerate(plain) if c], len(text))


def disjoint(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings from left to right, none over another: what one covers, a later one gives up.

    Of findings with the same span, the first given stays.
    """
    kept: list[Finding] = []
    reached = 0
    for finding in sorted(findings, key=lambda f: (f.start, -f.end)):
        if finding.end > reached:
            kept.append(replace(finding, start=max(finding.start, reached)))
            reached = finding.end
    return tuple(kept)


def simplest(char: str) -> str | None:
    """What is read for one of the characters that differ only in how they are drawn; None for any other."""
    match unicodedata.category(char):
        case "Cf" | "Me":  # zero-width characters, soft hyphens, marks of direction; the frame of a key-cap
            return ""
        case "Cs":  # half of a surrogate pair: no text, and nothing that RE2 could be given
            return "\ufffd"
        case "Nd":
            return str(unicodedata.decimal(char))
        case "Zs":
            return " "
        case "Pd":
            return "-"
    return None


@lru_cache(maxsize=4096)
def _plain(char: str) -> str:
    """One character, or none, in place of `char`."""
    if char in "\ufe0e\ufe0f":  # which say how the character before is drawn
        return ""
    if (simple := simplest(char)) is not None:
        return simple
    if unicodedata.category(char) == "No":  # a footnote mark is not part of the word before it
        return char
    folded = unicodedata.normalize("NFKC", char)
    return folded if len(folded) == 1 and folded.isascii() else char
