"""Files to documents: one function a format, in a table.

Markdown and text stay as they are, so that offsets are offsets in the file (its characters, a byte order
mark not counted). HTML becomes Markdown, PDF plain text with the places where pages begin, and of tables and
JSON each row or record becomes a paragraph. Nothing here knows passages or vectors.
"""

import codecs
import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trackbed.retrieval.errors import DocumentUnreadable
from trackbed.retrieval.records import read_json, read_json_lines, read_table
from trackbed.retrieval.types import Document

if TYPE_CHECKING:
    from bs4 import Tag

MAX_BYTES = 32 * 2**20  # of a file; a long book has two or three million characters
BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark begins alike
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def load(paths: Iterable[Path]) -> Iterator[Document | DocumentUnreadable]:
    """Every document of these files and folders, in sorted order; what cannot be read is given as its error.

    A folder is walked whole, save for hidden files and links that lead out of it. A document's source is its
    path inside the folder, or the file's name. Raises DocumentUnreadable at once for a path that is not there.
    """
    seen: set[Path] = set()
    sources: set[str] = set()
    for root in paths:
        if not root.exists():
            raise DocumentUnreadable(f"{root}: there is no such file or folder")
        for path in _files(root, root.resolve()):
            if isinstance(path, DocumentUnreadable):
                yield path
                continue
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            source = path.name if path == root else path.relative_to(root).as_posix()
            if source in sources:
                yield DocumentUnreadable(f"{path}: another document is called {source!r}; ingest the folder above both")
                continue
            sources.add(source)
            try:
                yield _read(path, source)
            except DocumentUnreadable as error:
                yield error


def _read(path: Path, source: str) -> Document:
    """One file as a document. Raises DocumentUnreadable, which names the file and what is wrong with it."""
    reader = LOADERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(LOADERS)
        raise DocumentUnreadable(
            f"{path}: files of the kind {path.suffix or path.name!r} are not read; known are {known}"
        )
    try:
        if not path.is_file():
            raise DocumentUnreadable(f"{path}: not a plain file")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise DocumentUnreadable(f"{path}: {size} bytes, and at most {MAX_BYTES} are read; split it")
        document = reader(path.read_bytes(), source)
    except OSError as error:
        raise DocumentUnreadable(f"{path}: {error.strerror or error}") from error
    except _Unreadable as error:
        raise DocumentUnreadable(f"{path}: {error}") from error
    if not document.text.strip():
        raise DocumentUnreadable(f"{path}: holds no text")
    return document


class _Unreadable(Exception):
    """What is wrong with a file's bytes, told by a reader that does not know the file's name."""


def _files(path: Path, root: Path) -> Iterator[Path | DocumentUnreadable]:
    """The files at and under `path`, in sorted order. `root`, resolved, is what links must stay inside of."""
    if not path.is_dir():
        yield path
        return
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        yield DocumentUnreadable(f"{path}: {error.strerror or error}")
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        found = path / entry.name
        if not entry.is_symlink():
            yield from _files(found, root)
        elif not found.resolve().is_relative_to(root):
            yield DocumentUnreadable(f"{found}: a link that leads out of the folder is not followed")
        elif found.is_file():  # a folder inside is walked under its own name
            yield found


def _markdown(data: bytes, source: str) -> Document:
    text = _decode(data)
    headings = (line.lstrip("#").strip() for line in text.splitlines() if line.startswith("# "))
    return Document(source, text, title=next(headings, _stem(source)))


def _text(data: bytes, source: str) -> Document:
    return Document(source, _decode(data), title=_stem(source))


def _html(data: bytes, source: str) -> Document:
    from bs4 import BeautifulSoup
    from bs4.dammit import EncodingDetector

    declared = EncodingDetector.find_declared_encoding(data, is_html=True)
    try:
        soup = BeautifulSoup(_decode(data, declared), "html.parser")
        title = " ".join(soup.title.get_text().split()) if soup.title else ""
        text = _tidy("".join(_flatten(soup.body or soup)))
    except RecursionError:
        raise _Unreadable("its elements are nested too deeply") from None
    return Document(source, text, title=title or _stem(source))


def _pdf(data: bytes, source: str) -> Document:
    from pypdf import PdfReader

    # What it logs of a broken file, the error says; what it logs of a readable one is of no use.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = PdfReader(io.BytesIO(data))
        # Many files are encrypted with no password, only to forbid printing.
        if reader.is_encrypted and not reader.decrypt(""):
            raise _Unreadable("encrypted with a password")
        texts = [_valid(page.extract_text()).rstrip() + "\n\n" for page in reader.pages]
        title = (reader.metadata.title if reader.metadata else None) or ""
    except _Unreadable:
        raise
    except Exception as error:  # a broken file makes pypdf raise almost anything
        raise _Unreadable(f"cannot be read as PDF ({type(error).__name__}: {error})") from error
    if not any(text.strip() for text in texts):
        raise _Unreadable("holds no text; it may be a scan")
    pages, end = [], 0
    for text in texts[:-1]:
        end += len(text)
        pages.append(end)
    return Document(source, "".join(texts), title=_valid(str(title)).strip() or _stem(source), pages=tuple(pages))


def _records(read: Callable[[str], str]) -> Callable[[bytes, str], Document]:
    def loader(data: bytes, source: str) -> Document:
        text = _decode(data)
        try:
            return Document(source, _valid(read(text)), title=_stem(source))
        except ValueError as error:
            raise _Unreadable(str(error)) from error

    return loader


LOADERS: Mapping[str, Callable[[bytes, str], Document]] = {
    ".md": _markdown,
    ".markdown": _markdown,
    ".txt": _text,
    ".rst": _text,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".csv": _records(read_table),
    ".tsv": _records(read_table),
    ".json": _records(read_json),
    ".jsonl": _records(read_json_lines),
    ".ndjson": _records(read_json_lines),
}


def _decode(data: bytes, declared: str | None = None) -> str:
    """By byte order mark, by declaration, as UTF-8, else as Windows-1252; what fits none of them is no text."""
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
    raise _Unreadable("a binary file, or in an encoding that is not read; save it as UTF-8")


def _valid(text: str) -> str:
    """The text without lone surrogates and NULs, which PDF fonts and escapes in JSON can lead to."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "")


def _stem(source: str) -> str:
    return source.rpartition("/")[2].rpartition(".")[0]


DROPPED = frozenset({"script", "style", "noscript", "template", "svg", "nav", "head", "iframe", "object"})
BLOCKS = frozenset(
    {"p", "div", "section", "article", "main", "header", "footer", "aside", "ul", "ol", "dl", "dt", "dd", "table"}
    | {"blockquote", "figure", "figcaption", "form", "fieldset", "details", "summary", "address", "hr"}
)
FENCES = ("```", "~~~~~~")
HEADINGS = {f"h{level}": "#" * level for level in range(1, 7)}


def _flatten(node: "Tag") -> Iterator[str]:
    """What a reader of the page sees, as Markdown."""
    from bs4.element import NavigableString, PreformattedString, Tag

    for child in node.children:
        if isinstance(child, Tag):
            if child.name in DROPPED or _hidden(child):
                continue
            if child.name in HEADINGS:
                yield f"\n\n{HEADINGS[child.name]} {_line(child)}\n\n"
            elif child.name == "pre":
                code = child.get_text()
                fence = FENCES["```" in code]
                yield "\n\n".join(("", f"{fence}\n{code}\n{fence}", ""))
            elif child.name == "tr":
                cells = child.find_all(["td", "th"], recursive=False)
                yield f"\n| {' | '.join(_line(cell) for cell in cells)} |"
            elif child.name == "br":
                yield "\n"
            elif child.name == "li":
                yield "\n- "
                yield from _flatten(child)
            elif child.name in BLOCKS:
                yield "\n\n"
                yield from _flatten(child)
                yield "\n\n"
            else:
                yield from _flatten(child)
        elif isinstance(child, NavigableString) and not isinstance(child, PreformattedString):
            # White space is one space, and the one at the ends parts this text from its neighbours.
            yield " ".join(f"<{child}>".split())[1:-1]


def _tidy(text: str) -> str:
    """The text with one blank line between blocks; code is left as it is."""
    lines: list[str] = []
    fence = ""
    for line in text.split("\n"):
        if not fence:
            line = " ".join(line.split())
            if not line and not (lines and lines[-1]):
                continue
        if line in FENCES:
            fence = "" if line == fence else fence or line
        lines.append(line)
    return "\n".join(lines).strip() + "\n"


def _line(node: "Tag") -> str:
    return " ".join("".join(_flatten(node)).split())


def _hidden(tag: "Tag") -> bool:
    style = str(tag.get("style", "")).replace(" ", "").lower()
    return tag.has_attr("hidden") or "display:none" in style or "visibility:hidden" in style
