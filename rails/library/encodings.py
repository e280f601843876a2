"""What is written in code inside a text: base64, hexadecimal, escapes, rot13 and backward writing.

Each function gives edits that put what is meant in place of what is written. What would not be text, or for rot13 and
backward writing no English, stays. This file knows encodings; it knows nothing of attacks.
"""

import base64
import binascii
import codecs
import html
import re
from collections.abc import Callable, Iterator
from string import ascii_lowercase
from urllib.parse import unquote

from trackbed.rails.library.english import WORDS, known, telling
from trackbed.rails.library.spelling import Edit

BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}(?:\r?\n[A-Za-z0-9+/_-]{4,})*={0,2}")
HEX = re.compile(r"(?<![0-9A-Za-z])(?:0x|\\x)?[0-9A-Fa-f]{2}(?:[ :,-]{0,2}(?:0x|\\x)?[0-9A-Fa-f]{2}){7,}")
ESCAPE = re.compile(
    r"(?:%[0-9A-Fa-f]{2})+|&#(?:[0-9]{1,7}|[xX][0-9A-Fa-f]{1,6});|\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2})"
)
WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)?")
TAGS = re.compile("\U0001f3f4?([\U000e0020-\U000e007f]+)")
SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{8,}")
BREAK = re.compile(r'[:"“”`\d]')  # what introduces a quotation, or is in a name of something else
FEWEST_LETTERS = 7  # of words that a stretch of code has to come to
DENSITY = 0.4  # the share of its letters that are in words
LETTERS = frozenset(ascii_lowercase)  # words alone of any language
OURS = WORDS | LETTERS
BACKWARDS = "reversed"  # the kind of what was written so
STRANGERS = 3  # words in a row that need not be any of ours


def decode(text: str, *, flipped: bool = False) -> Iterator[Edit]:
    """What is written in code, disjoint and in order; with `flipped`, backward writing has its words in their place."""
    found = [*_base64(text), *_hexadecimal(text), *_escapes(text)]
    found += _stretches(text, "rot13", ROT13, _rot13)
    found += _stretches(text, BACKWARDS, BACKWARD, _each_backward if flipped else _backward)
    taken = 0
    for edit in sorted(found, key=lambda edit: (edit.start, -edit.end)):
        if edit.start >= taken:
            yield edit
            taken = edit.end


def smuggled(text: str) -> Iterator[Edit]:
    """Text in characters that are never drawn: tags, which copy ASCII, and variation selectors, which can copy bytes.

    Tags that make a black flag that of a country are its own.
    """
    for match in TAGS.finditer(text):
        hidden = "".join(chr(ord(c) - 0xE0000) for c in match.group(1) if c < "\U000e007f")
        if len(hidden) > 6 or (hidden and not match.group().startswith("\U0001f3f4")):
            yield Edit(*match.span(1), hidden, "tags")
    for match in SELECTORS.finditer(text):
        raw = bytes(ord(c) - 0xFE00 if c < "\uffff" else ord(c) - 0xE0100 + 16 for c in match.group())
        if (read := _readable(raw)) is not None:
            yield Edit(*match.span(), read, "variation selectors")


def _base64(text: str) -> Iterator[Edit]:
    for match in BASE64.finditer(text):
        whole = re.sub(r"\s", "", match.group())
        if (read := _from_base64(whole)) is not None:
            yield Edit(*match.span(), read, "base64")
            continue
        at = match.start()
        for line in match.group().splitlines(keepends=True) if "\n" in match.group() else ():
            if len(line.strip()) >= 16 and (read := _from_base64(line.strip())) is not None:
                yield Edit(at, at + len(line.rstrip()), read, "base64")
            at += len(line)


def _from_base64(written: str) -> str | None:
    letters = written.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return _readable(base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True))
    except (binascii.Error, ValueError):
        return None


def _hexadecimal(text: str) -> Iterator[Edit]:
    for match in HEX.finditer(text):
        digits = re.sub(r"0x|\\x|[^0-9A-Fa-f]", "", match.group())
        read = _readable(bytes.fromhex(digits))
        # Numbers in a row can be letters by chance; they are no words, and no code in turn.
        if read is not None and (not digits.isdecimal() or _has_word(read) or HEX.fullmatch(read)):
            yield Edit(*match.span(), read, "hex")


def _escapes(text: str) -> Iterator[Edit]:
    found = [Edit(*match.span(), _unescaped(match.group()), "escapes") for match in ESCAPE.finditer(text)]
    if sum(len(edit.text) for edit in found) > 1:
        yield from found


def _unescaped(written: str) -> str:
    if written.startswith("%"):
        return unquote(written, errors="replace")
    if written.startswith("&"):
        return html.unescape(written)
    return chr(int(written[2:], 16))


def _readable(raw: bytes) -> str | None:
    """The bytes as text, where they are some: UTF-8, most of it letters, digits and spaces, nearly all printable."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    letters = sum(c.isalnum() or c.isspace() for c in text)
    printable = sum(c.isprintable() or c in "\r\n\t" for c in text)
    return text if letters >= 0.6 * len(text) and printable >= 0.95 * len(text) else None


def _has_word(text: str) -> bool:
    return any(len(word) > 2 and known(word) for word in re.findall("[a-z]+", text.lower()))


def _rot13(text: str) -> str:
    return codecs.encode(text, "rot13")


def _backward(text: str) -> str:
    return text[::-1]


def _each_backward(text: str) -> str:
    return WORD.sub(lambda match: match.group()[::-1], text)


ROT13 = frozenset(map(_rot13, WORDS)) | LETTERS
BACKWARD = frozenset(map(_backward, WORDS)) | LETTERS


def _stretches(text: str, kind: str, theirs: frozenset[str], turn: Callable[[str], str]) -> Iterator[Edit]:
    """Stretches without a word of ours, dense in words of `theirs`, as `turn` reads them."""
    low = text.lower()
    if len(low) != len(text) or (theirs - OURS).isdisjoint(WORD.findall(low)):
        return
    run: list[tuple[int, int, int]] = []  # where a word stands, and how many letters of one of theirs it has
    strangers, last = 0, 0
    for match in WORD.finditer(low):
        word, start, end = match.group(), *match.span()
        ends = BREAK.search(text, last, start)
        last = end
        if ends or (word in OURS and word not in theirs):
            yield from _stretch(text, kind, run, turn)
            run, strangers = [], 0
        if word in theirs:
            run.append((start, end, 0 if word in OURS else len(word)))
            strangers = 0
        elif word not in OURS:
            run.append((start, end, -1))
            strangers += 1
            if strangers > STRANGERS:
                yield from _stretch(text, kind, run, turn)
                run = run[-STRANGERS:]
    yield from _stretch(text, kind, run, turn)


def _stretch(text: str, kind: str, run: list[tuple[int, int, int]], turn: Callable[[str], str]) -> Iterator[Edit]:
    read = [(start, end) for start, end, letters in run if letters > 0]
    if not read:
        return
    total = sum(end - start for start, end in read)
    unread = sum(end - start for start, end, letters in run if letters < 0)
    tells = any(telling(turn(text[start:end].lower())) for start, end in read)
    if (len(read) > 1 or tells) and total >= FEWEST_LETTERS and total >= DENSITY * (total + unread):
        start, end = run[0][0], run[-1][1]
        yield Edit(start, end, turn(text[start:end]), kind)
