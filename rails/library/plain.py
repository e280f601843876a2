"""A text as its reader takes it, though it was written to be taken for another by a machine.

Characters that only look different become the plain ones, those that cannot be seen go, and every character still
knows where it stood. This file knows characters and words; it knows nothing of encodings, nor of what an attack is.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from trackbed.rails.library.spans import simplest

# Letters that are drawn like Latin ones: Unicode's confusables.txt (UTS #39), of which this is a part, and the small
# letters whose capitals it lists. A capital I and a small l are one there; here they are what their name says.
_LOOK = {
    "Greek": ("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹϺαγικνορστυχϱϲϳ", "ABEZHIKMNOPTYXCMayikvopotuxpcj"),
    "Cyrillic": ("ЅІЈАВЕКМНОРСТУХЬѴҮԌԜӀавгекмнорстухѕіјѡѵүһҽӏԁԛԝ", "SIJABEKMHOPCTYXbVYGWlabrekmhopctyxsijwvyheidqw"),
    "Armenian": ("ՍՏՕագզհոռսցքօ", "USOwqqhnnugfo"),
    "Latin": ("ɑɡɩʟɪɴʀʙɢʜʏᴀᴄᴅᴇᴊᴋᴍᴏᴘᴛᴜᴠᴡᴢꜰꜱ", "agilinrbghyacdejkmoptuvwzfs"),
}
CONFUSABLES = {
    ord(letter): plain for look, plains in _LOOK.values() for letter, plain in zip(look, plains, strict=True)
}
ALPHABETS = {letter: name for name, (look, _) in _LOOK.items() for letter in look}
# What cannot be seen, beside the characters of category Cf: Unicode's Default_Ignorable_Code_Point, and a blank of
# Braille. Controls that are no white space are not seen either.
INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
WORD = re.compile(r"[^\W\d_]+")
# Letters in black squares and circles, which NFKC leaves alone.
BADGES = {0x1F150 + i: chr(65 + i) for i in range(26)} | {0x1F170 + i: chr(65 + i) for i in range(26)}
LONGEST = 32  # characters that are composed into one: Unicode's stream-safe format allows 31
MARKS = 2  # on one Latin letter, at most: what carries more is decoration
OVERLAY = 1  # the combining class of marks that strike a letter out; no alphabet writes them apart


@dataclass(frozen=True, slots=True)
class View:
    """A text made of another, whose characters know where there they come from, and how."""

    text: str
    starts: Sequence[int]  # of each character: where in the text as written begins what it stands for
    ends: Sequence[int]  # and where that ends
    kinds: Sequence[str]  # what was undone to read it: base64, ...; empty where nothing was

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where in the text as written `text[start:end]` comes from; it is not empty."""
        return min(self.starts[start:end]), max(self.ends[start:end])

    def kind(self, start: int, end: int) -> str:
        """What was first undone to read `text[start:end]`; empty where nothing was."""
        return next((kind for kind in self.kinds[start:end] if kind), "")


def plain(text: str) -> View:
    """The text in NFKC, with Latin letters for those drawn like them, and nothing that cannot be seen.

    Letters of another alphabet stay in words of their own language. Lone surrogates become U+FFFD, and dashes and
    spaces of all kinds plain ones. Offsets are those of `text`.

    >>> plain("Ｉgn\\u200bоrе").text
    'Ignore'
    """
    if text.isascii() and not INVISIBLE.search(text):
        return View(text, range(len(text)), range(1, len(text) + 1), [""] * len(text))
    chars, starts, ends = list[str](), list[int](), list[int]()
    for start, end, cluster in _clusters(text):
        read = _read(cluster)
        chars.append(read)
        starts += [start] * len(read)
        ends += [end] * len(read)
    return View(_latin("".join(chars)), starts, ends, [""] * len(starts))


def _clusters(text: str) -> Iterator[tuple[int, int, str]]:
    """Each visible character with the marks that are written on it, and where they stand."""
    start, end, cluster = 0, 0, ""
    for i, char in enumerate(text):
        if _unseen(char):
            continue
        if cluster and len(cluster) < LONGEST and _attaches(char):
            cluster, end = cluster + char, i + 1
        else:
            if cluster:
                yield start, end, cluster
            start, end, cluster = i, i + 1, char
    if cluster:
        yield start, end, cluster


@lru_cache(maxsize=4096)
def _unseen(char: str) -> bool:
    return bool(INVISIBLE.match(char)) or unicodedata.category(char) == "Cf"


@lru_cache(maxsize=4096)
def _attaches(char: str) -> bool:
    """Whether NFKC may make one character of this one and the one before it: marks, and parts of Hangul and Kana."""
    return unicodedata.category(char)[0] == "M" or bool(re.match("[\u1160-\u11ff\u3131-\u318e\uff9e-\uffdc]", char))


@lru_cache(maxsize=4096)
def _read(cluster: str) -> str:
    """A character with its marks, made plain."""
    found = cluster
    for _ in range(2):  # what NFKC gives can be one of ours again, and the other way round
        found = unicodedata.normalize("NFKC", "".join(_one(c) for c in found))
    apart = unicodedata.normalize("NFD", found)
    marks = [c for c in apart if _is_mark(c)]
    if not marks:
        return found
    if apart[0].isascii() and apart[0].isalpha():
        heap = len([c for c in marks if unicodedata.combining(c) != OVERLAY]) > MARKS
        kept = (c for c in apart if not _is_mark(c) or not (heap or unicodedata.combining(c) == OVERLAY))
        return unicodedata.normalize("NFC", "".join(kept))
    if _is_mark(apart[0]) and len(marks) > MARKS:  # the rest of a heap
        return "".join(c for c in apart if not _is_mark(c))
    return found


def _is_mark(char: str) -> bool:
    return unicodedata.category(char) in ("Mn", "Me")


@lru_cache(maxsize=4096)
def _one(char: str) -> str:
    simple = simplest(char)
    return BADGES.get(ord(char), char) if simple is None else simple


def _latin(text: str) -> str:
    """Latin letters for those drawn like them, in words that are Latin otherwise.

    Words of such letters alone, and of one alphabet, are folded where no word of the text needs that or another.
    """
    if text.isascii():
        return text
    words = [(match, _script(match.group())) for match in WORD.finditer(text)]
    folded = {"mixed"} if any(script == "other" for _, script in words) else {"mixed", "either"}
    parts, at = list[str](), 0
    for match, script in words:
        start, end = match.span()
        # A letter with a mark on it is part of some alphabet, and one alone can be a sign: no disguise.
        marked = unicodedata.combining(text[end : end + 1] or " ")
        if script in folded and not marked and end - start > 1:
            parts += [text[at:start], match.group().translate(CONFUSABLES)]
            at = end
    return "".join([*parts, text[at:]])


def _script(word: str) -> str:
    """`latin`; `mixed` for letters drawn like Latin ones, among those or of two alphabets; `either`; or `other`."""
    if word.isascii():
        return "latin"
    drawn = {ALPHABETS[c] for c in word if c in ALPHABETS}
    if not all(_is_latin(c) or c in ALPHABETS for c in word):
        return "other"
    if not drawn:
        return "latin"
    return "mixed" if len(drawn) > 1 or any(c.isascii() for c in word) else "either"


def _is_latin(char: str) -> bool:
    return char < "\u0250" or "\u1e00" <= char <= "\u1eff"
