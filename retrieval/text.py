"""Bytes to text, and what makes text fit for an index. Nothing here knows files or formats."""

import codecs
from collections.abc import Iterable

from trackbed.retrieval.errors import FormatError

MAX_CHARACTERS = 32 * 2**20  # of a document; a long book has two or three million
BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark begins alike
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
SIGNATURES = {
    b"%PDF-": "a PDF file",
    b"PK\x03\x04": "a zip file, such as office documents are",
    OLE: "an office document of the old kind, or an encrypted one",
    b"{\\rtf": "an RTF document",
}


def decode(data: bytes, declared: str | None = None) -> str:
    """By byte order mark, by declaration, as UTF-8, else as Windows-1252; what fits none of them is no text."""
    if looks := looks_like(data):
        raise FormatError(f"no text: it begins like {looks}; give it the suffix of what it is")
    for mark, encoding in BOMS:
        if data.startswith(mark):
            candidates, data = [encoding], data[len(mark) :]
            break
    else:
        candidates = [declared or "utf-8", "utf-8", "cp1252"]
    for encoding in candidates:
        try:
            text = data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
        if "\0" in text:
            break
        return text
    raise FormatError("a binary file, or in an encoding that is not read; save it as UTF-8")


def looks_like(data: bytes) -> str:
    """What a file is by its first bytes; empty when they tell nothing."""
    return next((what for signature, what in SIGNATURES.items() if data.startswith(signature)), "")


def valid(text: str) -> str:
    """The text without lone surrogates and NULs, which PDF fonts and escapes in JSON can lead to."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "")


def joined(parts: Iterable[str], between: str = "") -> str:
    """The parts as one text. A small file may unfold to a large one, so they are counted as they come."""
    kept, length = [], 0
    for part in parts:
        length += len(part) + len(between)
        if length > MAX_CHARACTERS:
            raise FormatError(f"its text has more than {MAX_CHARACTERS} characters; split it")
        kept.append(part)
    return between.join(kept)


def stem(source: str) -> str:
    """A file's name without folder and suffix: the title of what has no other."""
    name = source.rpartition("/")[2]
    return name.rpartition(".")[0] or name
