"""Split a document into passages: at headings first, then paragraphs, then sentences, then size.

A passage is a stretch of the document, so that a citation can be found again: its text is the document's
text from `start` to `end`. Code blocks, tables and records stay whole where they fit, and so do the definitions
of a program. Nothing here knows formats of files, vectors or questions; structure is the document's outline,
else it is read from Markdown, and plain text has little of it.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Literal, NamedTuple

from trackbed.retrieval.types import Document, Heading, Passage

SIZE = 900  # characters: about 200 word pieces, where MiniLM reads 256
OVERLAP = 150
TITLE = 120  # of one heading

# Every quantifier is bounded or cannot be entered twice at one place, so that this is linear in the text.
SENTENCE_END = re.compile(r"[.!?…][\"')\]”’»]{0,3}\s|[。！？]|\n(?=[ \t]{0,12}(?:[-*+•]|\d{1,3}[.)])[ \t])")


class Chunking(NamedTuple):
    """How long passages are, and how much of the one before each may begin with; in characters."""

    size: int = SIZE
    overlap: int = OVERLAP


def chunk(document: Document, chunking: Chunking = Chunking()) -> Iterator[Passage]:
    """The document's passages, in order, from its start on. Every character that is not blank is in one, or in two.

    No passage is longer than the size, holds text of two sections, or breaks a code block or a table row
    that would fit in one.
    """
    before = None
    for passage in _passages(document, chunking):
        if before:
            yield replace(before, gap=document.text[before.end : passage.start])
        before = passage
    if before:
        yield before


def _passages(document: Document, chunking: Chunking) -> Iterator[Passage]:
    size, overlap = chunking
    if not 0 <= overlap < size:
        raise ValueError(f"passages of {size} characters cannot overlap by {overlap}")
    metadata = {**document.metadata, "title": document.title} if document.title else document.metadata
    for section in _sections(document, size):
        pieces = list(_pieces(document.text, section.blocks, size))
        for start, end in _packed(pieces, size, overlap):
            yield Passage(
                document.text[start:end],
                document.source,
                start,
                end,
                heading=section.heading,
                page=bisect_right(document.pages, start) + 1 if document.pages else None,
                metadata=metadata,
                pages=tuple(page for page in document.pages if start < page < end),
            )


Kind = Literal["heading", "prose", "lines"]  # lines: a code block or a table, which is not made of sentences


class _Block(NamedTuple):
    """What belongs together: characters `start` to `end`."""

    start: int
    end: int
    kind: Kind
    level: int = 0  # of a heading
    title: str = ""


class _Section(NamedTuple):
    """The blocks from one heading to the next; a heading right above a deeper one begins its section."""

    heading: str
    blocks: list[_Block]


class _Piece(NamedTuple):
    """What is not split any more, without white space around it."""

    start: int
    end: int
    sentence: bool  # may be repeated as overlap


def _sections(document: Document, size: int) -> Iterator[_Section]:
    text = document.text
    if document.structure == "code":
        for heading, start, end in _stretches(document, size):
            yield _Section(heading, list(_groups(text, start, end)))
    elif document.outline:
        for heading, start, end in _stretches(document, 0):
            yield _Section(heading, list(_blocks(text, start, end)))
    else:
        blocks = _blocks(text, document.start, len(text))
        if document.structure == "records":  # a record is a paragraph, and none is split at its sentences
            blocks = (block._replace(kind="lines") if block.kind == "prose" else block for block in blocks)
        yield from _headed(blocks)


def _stretches(document: Document, whole: int) -> Iterator[tuple[str, int, int]]:
    """Headings, start and end of what stands between the headings of an outline.

    A section with others inside is one stretch where it has at most `whole` characters.
    """
    length = len(document.text)
    outline = [Heading(document.start, 1, ""), *document.outline]
    ends, open_ = [length] * len(outline), list[int]()
    for i, heading in enumerate(outline):
        while open_ and outline[open_[-1]].level >= heading.level:
            ends[open_.pop()] = heading.start
        open_.append(i)
    above: list[Heading] = []
    done = document.start
    for i, heading in enumerate(outline):
        above = [*(one for one in above if one.level < heading.level), heading]
        start, end = max(heading.start, done), outline[i + 1].start if i + 1 < len(outline) else length
        if ends[i] - heading.start <= whole:
            end = ends[i]
        if start < end:
            yield " > ".join(one.title[:TITLE] for one in above if one.title), start, end
            done = end


def _headed(blocks: Iterable[_Block]) -> Iterator[_Section]:
    """The blocks by the headings among them."""
    above: list[_Block] = []
    held: list[_Block] = []
    for block in blocks:
        if block.kind == "heading":
            if held and (held[-1].kind != "heading" or held[-1].level >= block.level):
                yield _Section(" > ".join(heading.title for heading in above), held)
                held = []
            above = [*(heading for heading in above if heading.level < block.level), block]
        held.append(block)
    if held:
        yield _Section(" > ".join(heading.title for heading in above), held)


def _groups(text: str, start: int, end: int) -> Iterator[_Block]:
    """Lines with no blank line between them."""
    begin = start
    for line in text[start:end].splitlines(keepends=True):
        if not line.strip():
            if begin < start:
                yield _Block(begin, start, "lines")
            begin = start + len(line)
        start += len(line)
    if begin < start:
        yield _Block(begin, start, "lines")


def _blocks(text: str, start: int, end: int) -> Iterator[_Block]:
    raw = text[start:end].splitlines(keepends=True)
    lines = [line.strip() for line in raw]
    starts = list(accumulate(map(len, raw), initial=start))
    i = 0
    while i < len(lines):
        j, level, title = i + 1, 0, ""
        kind: Kind = "lines"
        if fence := _fence(lines, i):
            while j < len(lines) and not _closes(lines[j], fence):
                j += 1
            j = min(j + 1, len(lines))
        elif lines[i].startswith("|"):
            while j < len(lines) and lines[j].startswith("|"):
                j += 1
        elif level := _heading_level(lines[i]):
            kind, title = "heading", _title(lines[i])
        elif level := _underlined_level(lines, i):
            j, kind, title = i + 2, "heading", _title(lines[i])
        elif lines[i]:
            kind = "prose"
            while j < len(lines) and lines[j] and not _begins(lines, j):
                j += 1
        if lines[i]:
            yield _Block(starts[i], starts[j], kind, level, title)
        i = j


def _begins(lines: Sequence[str], i: int) -> bool:
    """The line begins a block even without a blank line above it."""
    return bool(_fence(lines, i) or lines[i].startswith("|") or _heading_level(lines[i]))


def _fence(lines: Sequence[str], i: int) -> str:
    """The marks that open a code block, or front matter, at this line; empty when none do."""
    line = lines[i]
    if i == 0 and line == "---" and ":" in "".join(lines[1:2]) and line in lines[2:]:
        return line
    mark = line[:1]
    return line[: len(line) - len(line.lstrip(mark))] if line.startswith(("```", "~~~")) else ""


def _closes(line: str, fence: str) -> bool:
    return line.startswith(fence) and not line.strip(fence[0])


def _heading_level(line: str) -> int:
    """1 to 6 for a heading written with #; 0 for any other line."""
    marks = len(line) - len(line.lstrip("#"))
    return marks if marks <= 6 and line[marks : marks + 1].isspace() else 0


def _underlined_level(lines: Sequence[str], i: int) -> int:
    """1 or 2 for a line above a row of = or -; 0 for any other."""
    below = lines[i + 1] if i + 1 < len(lines) else ""
    if not lines[i] or len(below) < 3 or below.strip(below[0]):
        return 0
    return {"=": 1, "-": 2}.get(below[0], 0)


def _title(line: str) -> str:
    """A heading's words, without marks or an anchor such as {#usage}."""
    title = line.strip("# \t").replace("`", "").replace("*", "")
    if title.endswith("}") and "{" in title:
        title = title[: title.rindex("{")].rstrip()
    return title[:TITLE]


def _pieces(text: str, blocks: Sequence[_Block], size: int) -> Iterator[_Piece]:
    """The sentences, whole code blocks and whole tables of a section; lines and words of what is longer than `size`."""
    lead = 0  # the length of the headings that the next block should stay together with
    for block in blocks:
        start, end = _trimmed(text, block.start, block.end)
        room = max(size - lead, (size + 1) // 2)
        if block.kind == "prose":
            parts = _sentences(text, start, end)
        elif block.kind == "lines" and end - start > room:
            parts = _lines(text, start, end)
        else:
            parts = iter([(start, end)])
        for part in parts:
            for piece in _cut(text, *_trimmed(text, *part), room):
                yield _Piece(*piece, block.kind == "prose")
        lead = lead + block.end - block.start if block.kind == "heading" else 0


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in SENTENCE_END.finditer(text, start, end):
        yield start, match.end()
        start = match.end()
    yield start, end


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for line in text[start:end].splitlines(keepends=True):
        yield start, start + len(line)
        start += len(line)


def _cut(text: str, start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Stretches of at most `size` characters, between words where there is a word's end in the second half."""
    while end - start > size:
        stop = start + size
        middle = start + size // 2
        stop = next((i for i in range(stop, middle, -1) if text[i].isspace()), stop)
        yield _trimmed(text, start, stop)
        start, end = _trimmed(text, stop, end)
    if start < end:
        yield start, end


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The same stretch without white space at its ends."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _packed(pieces: Sequence[_Piece], size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Runs of pieces, none longer than `size` and all of about one length, each with some of the one before."""
    if not pieces:
        return
    end = pieces[-1].end
    whole = end - pieces[0].start
    parts = max(1, math.ceil((whole - overlap) / (size - overlap)))
    enough = (whole + (parts - 1) * overlap) / parts
    held: list[_Piece] = []
    for piece in pieces:
        start = held[0].start if held else piece.start
        full = piece.end - start > size or piece.start - start >= enough
        if full and end - start > size:
            yield start, held[-1].end
            held = _repeated(held, piece, size, overlap)
        held.append(piece)
    yield held[0].start, held[-1].end


def _repeated(held: Sequence[_Piece], following: _Piece, size: int, overlap: int) -> list[_Piece]:
    """The last sentences of a passage, as many as the next may begin with: fewer than all, so that each is new."""
    kept: list[_Piece] = []
    for piece in reversed(held[1:]):
        if not piece.sentence or held[-1].end - piece.start > overlap or following.end - piece.start > size:
            break
        kept.insert(0, piece)
    return kept
