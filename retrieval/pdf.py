"""PDF to text, with the places where pages begin and the bookmarks as headings.

Of a page it keeps the lines that are its own: what most pages begin or end with, save for numbers, is a
running header or footer. Words parted at a line's end are joined. It knows nothing of files or passages.
"""

import io
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from trackbed.retrieval.errors import FormatError
from trackbed.retrieval.text import joined, looks_like, stem, valid
from trackbed.retrieval.types import Document, Heading

MAX_PAGES = 10_000
MAX_HEADINGS = 5_000
RUNNING = 0.6  # the share of pages from which on a first or last line is a running one
NUMBER = 16  # characters beside a title in its line, such as "Chapter 3. "
LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})
PARTED = re.compile(r"(?<=[^\W\d_])(?:\u00ad|-)\n(?=[a-z\u00df-\u00ff])")


def read_pdf(data: bytes, source: str) -> Document:
    """The text layer of a PDF; there is none in a scan."""
    from pypdf import PdfReader

    # What it logs of a broken file, the error says; what it logs of a readable one is of no use.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    if (looks := looks_like(data)) and not data.startswith(b"%PDF-"):
        raise FormatError(f"no PDF: it begins like {looks}")
    try:
        reader = PdfReader(io.BytesIO(data))
        # Many files are encrypted with no password, only to forbid printing.
        if reader.is_encrypted and not reader.decrypt(""):
            raise FormatError("encrypted with a password")
        if (count := len(reader.pages)) > MAX_PAGES:
            raise FormatError(f"{count} pages, and at most {MAX_PAGES} are read; split it")
        texts = _without_running_lines([_page(page) for page in reader.pages])
        metadata = _metadata(reader)
    except (FormatError, MemoryError):
        raise
    except Exception as error:  # a broken file makes pypdf raise almost anything
        raise FormatError(f"cannot be read as PDF ({type(error).__name__}: {error})") from error
    if not any(text.strip() for text in texts):
        raise FormatError("holds no text; it may be a scan")
    text = joined(texts)
    pages = tuple(accumulate(map(len, texts[:-1])))
    title = metadata.pop("title", "")
    outline = _outline(reader, text, (0, *pages, len(text)))
    return Document(source, text, title=title or stem(source), pages=pages, metadata=metadata, outline=outline)


def _page(page: Any) -> list[str]:
    """The lines of a page; Any because pypdf is imported when it is used."""
    text = valid(page.extract_text()).translate(LIGATURES)
    return [line.rstrip() for line in PARTED.sub("", text).strip().split("\n")]


def _without_running_lines(pages: Sequence[list[str]]) -> list[str]:
    """The pages' texts, each with a blank line at its end."""
    ends = [{_shape(page[0]), _shape(page[-1])} for page in pages if len(page) > 2]
    times = Counter(shape for shapes in ends for shape in shapes)
    running = {shape for shape, count in times.items() if shape and count >= max(4, RUNNING * len(pages))}
    texts = []
    for page in pages:
        if len(page) > 2:
            first, last = (_shape(page[i]) in running for i in (0, -1))
            page = page[1 if first else 0 : -1 if last else None]
        texts.append("\n".join(page).strip() + "\n\n")
    return texts


def _shape(line: str) -> str:
    """The line without the numbers that differ from page to page."""
    return "".join(" " if sign.isdigit() else sign for sign in line).strip()


def _metadata(reader: Any) -> dict[str, str]:
    """What the file says of itself; a date that is none is left out."""
    found = reader.metadata
    if not found:
        return {}
    said = {name: " ".join(valid(str(found.get(key) or "")).split()) for key, name in _NAMES.items()}
    for name in ("creation_date", "modification_date"):
        try:
            date = getattr(found, name)
        except (ValueError, TypeError, AttributeError):
            continue
        said[{"creation_date": "created", "modification_date": "modified"}[name]] = date.isoformat() if date else ""
    return {name: value for name, value in said.items() if value}


_NAMES = {"/Title": "title", "/Author": "author", "/Subject": "subject", "/Keywords": "keywords"}


def _outline(reader: Any, text: str, starts: Sequence[int]) -> tuple[Heading, ...]:
    """The bookmarks as headings, each where its words stand on its page, else where the page begins."""
    headings: list[Heading] = []
    try:
        for level, entry in _entries(reader.outline, 1):
            number = reader.get_destination_page_number(entry)
            title = " ".join(valid(str(entry.title)).split())
            if number is None or not 0 <= number < len(starts) - 1 or not title:
                continue
            begin, end = starts[number], starts[number + 1]
            if headings and headings[-1].start >= end:
                continue  # bookmarks that lead back would give text to the wrong section
            begin = max(begin, headings[-1].start if headings else 0)
            headings.append(Heading(_line_of(title, text, begin, end), level, title))
            if len(headings) == MAX_HEADINGS:
                break
    except Exception:  # noqa: BLE001  # bookmarks are broken more often than pages, and the text is whole without
        return ()
    return tuple(headings)


def _line_of(title: str, text: str, begin: int, end: int) -> int:
    """Where the line begins that is this title, with a number before it at most; else `begin`."""
    start = begin
    for line in text[begin:end].splitlines(keepends=True):
        if title.casefold() in " ".join(line.casefold().split()) and len(line) < len(title) + NUMBER:
            return start
        start += len(line)
    return begin


def _entries(outline: Sequence[Any], level: int) -> Iterator[tuple[int, Any]]:
    for entry in outline:
        if isinstance(entry, list):
            yield from _entries(entry, level + 1)
        else:
            yield level, entry
