"""Files to documents: one function a format, in a table.

Markdown, text and code stay as they are, so that offsets are offsets in the file (its characters, a byte order
mark not counted). Word, PowerPoint, e-books and HTML become Markdown, PDF plain text, and of tables and JSON
each row or record becomes a paragraph. What users say of a document, in front matter or in a sidecar file
beside it, becomes its metadata. Nothing here knows passages or vectors.
"""

import codecs
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from trackbed.retrieval.code import read_code, read_settings
from trackbed.retrieval.epub import read_epub
from trackbed.retrieval.errors import DocumentUnreadable, FormatError
from trackbed.retrieval.files import File, files
from trackbed.retrieval.isolated import Isolated
from trackbed.retrieval.markup import read_html
from trackbed.retrieval.metadata import front_matter, merged, parse, titled
from trackbed.retrieval.pdf import read_pdf
from trackbed.retrieval.records import read_json, read_json_lines, read_table
from trackbed.retrieval.sheets import read_sheets
from trackbed.retrieval.slides import read_slides
from trackbed.retrieval.text import MAX_CHARACTERS, decode, stem, valid
from trackbed.retrieval.types import Document, Value
from trackbed.retrieval.word import read_word

MAX_BYTES = 32 * 2**20  # of a file
MAX_SIDECAR = 64 * 2**10


def load(paths: Iterable[Path]) -> Iterator[Document | DocumentUnreadable]:
    """Every document of these files and folders, in sorted order; what cannot be read is given as its error.

    A folder is walked whole, save for hidden files and links that lead out of it. A document's source is its
    path inside the folder, or the file's name. Raises DocumentUnreadable at once for a path that is not there.
    """
    seen: set[Path] = set()
    sources: set[str] = set()
    with Isolated() as isolated:
        for root in paths:
            if not root.exists():
                raise DocumentUnreadable(f"{root}: there is no such file or folder")
            for file in files(root):
                if isinstance(file, DocumentUnreadable):
                    yield file
                    continue
                path, _, source = file
                if path.resolve() in seen:
                    continue
                seen.add(path.resolve())
                if source in sources:
                    clash = f"{path}: another document is called {source!r}; ingest the folder above both"
                    yield DocumentUnreadable(clash, source)
                    continue
                sources.add(source)
                try:
                    yield read(file, isolated.read if path.suffix.lower() in ISOLATED else read_content)
                except DocumentUnreadable as error:
                    yield error


def read_content(path: Path, source: str) -> Document:
    """What the file holds, read in this process. Raises FormatError, OSError, and what else a file can bring about."""
    return LOADERS[path.suffix.lower()](path.read_bytes(), source)


def read(file: File, content: Callable[[Path, str], Document] = read_content) -> Document:
    """One file as a document. Raises DocumentUnreadable, which names the file and what is wrong with it."""
    path, _, source = file
    try:
        if path.suffix.lower() not in LOADERS:
            kind = path.suffix or path.name
            known = ", ".join(suffix for suffix in LOADERS if suffix not in (*CODE, *SETTINGS))
            raise FormatError(f"files of the kind {kind!r} are not read; known are {known} and source code")
        beside = _beside(file)
        if not path.is_file():
            raise FormatError("not a plain file")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise FormatError(f"{size} bytes, and at most {MAX_BYTES} are read; split it")
        if not size:
            raise FormatError("holds no text")
        document = content(path, source)
        metadata = merged(document.metadata, beside)
        if not document.text[document.start :].strip():
            raise FormatError("holds no text")
        if len(document.text) > MAX_CHARACTERS:
            raise FormatError(f"its text has more than {MAX_CHARACTERS} characters; split it")
    except OSError as error:
        raise DocumentUnreadable(f"{path}: {error.strerror or error}", source) from error
    except FormatError as error:
        raise DocumentUnreadable(f"{path}: {error}", source) from error
    except MemoryError as error:
        raise DocumentUnreadable(f"{path}: needs more memory than there is; split it", source) from error
    except RecursionError as error:
        raise DocumentUnreadable(f"{path}: nested too deeply", source) from error
    title = titled(metadata, document.title)
    return replace(document, title=title, metadata={key: one for key, one in metadata.items() if key != "title"})


def _beside(file: File) -> dict[str, Value]:
    """What the sidecar says. Two of them, or one that cannot be read, leave it open who may read the document."""
    if not file.sidecars:
        return {}
    if len(file.sidecars) > 1:
        raise FormatError(f"described by {' and '.join(path.name for path in file.sidecars)}; keep one")
    [path] = file.sidecars
    try:
        if not path.is_file() or path.stat().st_size > MAX_SIDECAR:
            raise FormatError(f"not a plain file of at most {MAX_SIDECAR} bytes")
        said = parse(decode(path.read_bytes()))
    except OSError as error:
        raise FormatError(f"its sidecar {path.name}: {error.strerror or error}") from error
    except FormatError as error:
        raise FormatError(f"its sidecar {path.name}: {error}") from error
    if not said:
        raise FormatError(f"its sidecar {path.name}: says nothing; it is a mapping, such as `allow: [staff]`")
    return said


def _markdown(data: bytes, source: str) -> Document:
    text = decode(data)
    start, said = front_matter(text)
    headings = (line.lstrip("#").strip() for line in text[start:].splitlines() if line.startswith("# "))
    return Document(source, text, title=next(headings, stem(source)), metadata=said, start=start)


def _text(data: bytes, source: str) -> Document:
    text = decode(data)
    start, said = front_matter(text)  # not usual here, but it may say who must not read it
    return Document(source, text, title=stem(source), metadata=said, start=start)


def _html(data: bytes, source: str) -> Document:
    said: Mapping[str, Value] = {}
    if data.lstrip().startswith((b"---", codecs.BOM_UTF8 + b"---")):
        text = decode(data)
        start, said = front_matter(text)
        data = codecs.BOM_UTF8 + text[start:].encode()
    page = read_html(data)
    return Document(source, page.text, title=page.title or stem(source), metadata={**page.metadata, **said})


def _records(read: Callable[[str], str]) -> Callable[[bytes, str], Document]:
    def loader(data: bytes, source: str) -> Document:
        text = decode(data)
        try:
            return Document(source, valid(read(text)), title=stem(source), structure="records")
        except ValueError as error:
            raise FormatError(str(error)) from error

    return loader


CODE = (
    *(".py", ".pyi", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".java", ".kt", ".scala", ".swift", ".cs", ".dart"),
    *(".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".go", ".rs", ".rb", ".php", ".sh", ".bash", ".sql", ".lua", ".proto"),
)
SETTINGS = (".yaml", ".yml", ".toml", ".ini", ".cfg", ".css", ".scss")
LOADERS: Mapping[str, Callable[[bytes, str], Document]] = {
    ".md": _markdown,
    ".markdown": _markdown,
    ".txt": _text,
    ".rst": _text,
    ".html": _html,
    ".htm": _html,
    ".pdf": read_pdf,
    ".docx": read_word,
    ".pptx": read_slides,
    ".xlsx": read_sheets,
    ".xlsm": read_sheets,
    ".epub": read_epub,
    ".csv": _records(read_table),
    ".tsv": _records(read_table),
    ".json": _records(read_json),
    ".jsonl": _records(read_json_lines),
    ".ndjson": _records(read_json_lines),
    **dict.fromkeys(CODE, read_code),
    **dict.fromkeys(SETTINGS, read_settings),
}

# What a library reads that may loop, crash, or use up memory over a file that is made to.
ISOLATED = frozenset({".html", ".htm", ".pdf", ".docx", ".pptx", ".xlsx", ".xlsm", ".epub", ".py", ".pyi"})
