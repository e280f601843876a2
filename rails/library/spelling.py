"""Words as they are meant, which were written apart, run together, or with digits for letters.

Each function gives the edits of a text; what is edited reads as English then, or nothing is. This file knows words.
It knows nothing of encodings, nor of where in an original the text comes from.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from trackbed.rails.library.english import PREFIXES, known, split, telling
from trackbed.rails.library.plain import CONFUSABLES

LETTER, GAP = r"[^\W_]", r"[\s.\-_*|/·•~+]"
SPACED = re.compile(rf"(?<!{LETTER}){LETTER}(?:{GAP}{{1,3}}{LETTER}(?!{LETTER}))+")
GAPS = re.compile(rf"{GAP}+")
WORD = re.compile(r"[A-Za-z]+")
GAP_IN_WORD = " .-_*|·\n"
TOGETHER = re.compile(r"[A-Za-z]{12,}")
DIGITS_FOR_LETTERS = re.compile(r"[A-Za-z0-9@$!|+]+")
ACCENTED = re.compile(r"[^\W\d_]{3,}")
HUMP = re.compile(r"[A-Z][a-z]*")
LEET = tuple(str.maketrans("0134567892@$!|+", f"o{one}eas{six}tbgzasiit") for one in "il" for six in "gb")
FEWEST = 5  # letters that stand apart
PIECES = 4  # of one word
SEVERAL = 3  # words in pieces, where none of them tells
TOLD = 0.75  # the share of the letters of words without spaces that are in words of ours


class Edit(NamedTuple):
    """What `text[start:end]` is to be read as, and what was undone for that."""

    start: int
    end: int
    text: str
    kind: str


def join(text: str) -> Iterator[Edit]:
    """Letters that stand apart, words in pieces, and words that run together, as words."""
    taken = 0
    for edit in sorted([*_spaced(text), *_apart(text), *_together(text)]):
        if edit.start >= taken:
            yield edit
            taken = edit.end


def respell(text: str) -> Iterator[Edit]:
    """Words with digits or accents for letters, in a text where at least two such are words, or one that tells."""
    edits = [*_leet(text), *_accents(text)]
    words = [edit.text.lower() for edit in edits]
    if sum(len(word) > 2 and known(word) for word in words) > 1 or any(map(telling, words)):
        yield from sorted(edits)


def _spaced(text: str) -> Iterator[Edit]:
    for match in SPACED.finditer(text):
        written = match.group()
        gaps = Counter(GAPS.findall(written))
        if sum(gaps.values()) < FEWEST - 1:
            continue
        # The usual gap is that inside of words, so any other is between them.
        usual = gaps.most_common(1)[0][0]
        words = [""]
        for n, piece in enumerate(re.split(f"({GAP}+)", written)):
            if n % 2 == 0:
                words[-1] += piece
            elif piece != usual:
                words.append("")
        read = [word.translate(CONFUSABLES) for word in words]
        letters = "".join(read).lower()
        if not _is_order(letters) and sum(c.isalpha() for c in letters) >= FEWEST:
            yield Edit(*match.span(), " ".join(_cut(word) for word in read), "spaced letters")


def _is_order(letters: str) -> bool:
    """Whether they only count: a b c, or x x x."""
    return len(set(letters)) < 4 or all(a <= b for a, b in pairwise(letters))


def _cut(word: str) -> str:
    """A word, or the words of which a long one is made."""
    words = split(word.lower()) if len(word) > 6 and not known(word.lower()) else []
    return " ".join(words) if _share(words) >= 0.5 else word


def _share(words: list[str]) -> float:
    """How many of the letters are in words of ours."""
    return sum(len(word) for word in words if known(word)) / max(1, sum(map(len, words)))


def _apart(text: str) -> Iterator[Edit]:
    """Words in pieces of which one at least is no word: one that tells, or several in a text."""
    edits = list(_rejoined(text))
    if len(edits) >= SEVERAL or any(telling(edit.text.lower()) for edit in edits):
        yield from edits


def _rejoined(text: str) -> Iterator[Edit]:
    words = [(match.group().lower(), *match.span()) for match in WORD.finditer(text)]
    done = 0
    for at, (first, start, _) in enumerate(words):
        if first not in PREFIXES or at < done:
            continue
        pieces = [first]
        for count, (piece, begin, end) in enumerate(words[at + 1 : at + PIECES], start=2):
            if begin != words[at + count - 2][2] + 1 or text[begin - 1] not in GAP_IN_WORD:
                break
            pieces.append(piece)
            whole = "".join(pieces)
            if len(whole) > 3 and known(whole) and not all(map(known, pieces)):
                yield Edit(start, end, re.sub("[^A-Za-z]", "", text[start:end]), "split words")
                done = at + count
                break


def _together(text: str) -> Iterator[Edit]:
    """Several words without a space between them, of which one tells."""
    for match in TOGETHER.finditer(text):
        written = match.group()
        humps = HUMP.findall(written)
        words = humps if len(humps) > 3 and "".join(humps) == written else split(written.lower())
        low = [word.lower() for word in words]
        # Suffixes look like short words: initial is at i on.
        long = [word for word in low if len(word) > 2 and known(word)]
        enough = 2 * len(long) >= len(words) if words is humps else 10 * len(long) >= 7 * len(words)
        if len(words) > 3 and enough and _share(low) >= TOLD and any(map(telling, low)):
            yield Edit(*match.span(), " ".join(words), "joined words")


def _leet(text: str) -> Iterator[Edit]:
    for match in DIGITS_FOR_LETTERS.finditer(text):
        written = match.group().rstrip("!|+")
        if len(written) < 2 or written.isalpha() or not any(c.isalpha() for c in written):
            continue
        readings = [written.translate(table) for table in LEET]
        read = next((r for r in readings if known(r.lower())), readings[0])
        if read.isalpha():
            yield Edit(match.start(), match.start() + len(written), read, "leetspeak")


def _accents(text: str) -> Iterator[Edit]:
    """Words without their accents, where they are English so; other languages have few of those."""
    if text.isascii():
        return
    edits = []
    for match in ACCENTED.finditer(text):
        bare = "".join(c for c in unicodedata.normalize("NFD", match.group()) if not unicodedata.combining(c))
        if bare != match.group():
            edits.append(Edit(*match.span(), bare, "accents"))
    if 2 * sum(len(edit.text) > 3 and known(edit.text.lower()) for edit in edits) >= len(edits):
        yield from edits
