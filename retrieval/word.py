"""DOCX to Markdown: headings, paragraphs, lists, tables and notes, in the order of the document.

python-docx opens the package and its styles. The body is walked here, since a paragraph's words may stand in
insertions, fields, content controls and text boxes. Deleted and hidden words are left out, and so is the table
of contents, which repeats the headings. What runs along all pages belongs to no paragraph and is not read.
"""

import io
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from trackbed.retrieval import markdown
from trackbed.retrieval.errors import FormatError
from trackbed.retrieval.package import check_xml, open_package, properties
from trackbed.retrieval.text import joined, stem, valid
from trackbed.retrieval.types import Document

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
UNSEEN = {"pPr", "rPr", "del", "moveFrom", "delText", "instrText", "fldData", "Fallback", "sdtPr", "tblPr", "tblGrid"}
GROUPS = {"sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag"}  # around whole paragraphs
OFF = {"0", "false", "off"}
NUMBERED = {"decimal", "decimalZero", "upperRoman", "lowerRoman", "upperLetter", "lowerLetter", "ordinal"}


def read_word(data: bytes, source: str) -> Document:
    """A Word document as Markdown."""
    with open_package(data, "[Content_Types].xml") as package:
        check_xml(package)
        said = properties(package)
    import docx

    try:
        opened = docx.Document(io.BytesIO(data))
        body = _Body(_styles(opened), _lists(opened))
        blocks = [*body.blocks(opened.element.body), *_notes(opened, body)]
    except (FormatError, MemoryError, RecursionError):
        raise
    except Exception as error:  # a broken package makes python-docx raise almost anything
        raise FormatError(f"no whole Word document ({type(error).__name__})") from error
    title = said.pop("title", "")
    return Document(source, valid(joined(blocks)), title=title or _first_heading(blocks) or stem(source), metadata=said)


class _Style(NamedTuple):
    """What a style makes of its paragraphs."""

    level: int = 0  # of a heading; 0: it is none
    title: bool = False  # of the whole document: all headings are below it
    list: str = ""  # the number of the list that they belong to
    depth: int = 0  # in that list
    contents: bool = False  # a line of the table of contents


class _Body:
    """The walk through one document. It keeps how far each numbered list has been counted."""

    def __init__(self, styles: Mapping[str, _Style], lists: Mapping[tuple[str, int], tuple[bool, int]]) -> None:
        self.styles = styles
        self.lists = lists  # by number and depth: is it numbered, and from what number on
        self.counted: dict[tuple[str, int], int] = {}
        self.in_list = False
        self.titled = False  # a title has been seen

    def blocks(self, parent: Any) -> Iterator[str]:
        """Each paragraph and table, as Markdown, with its line ends."""
        for child in parent:
            name = _name(child)
            if name == "p":
                yield from self._paragraph(child)
            elif name == "tbl":
                yield from self._rest()
                yield "".join(f"{row}\n" for row in self._rows(child)) + "\n"
            elif name in GROUPS:
                yield from self.blocks(child)

    def _paragraph(self, node: Any) -> Iterator[str]:
        boxes: list[Any] = []
        text = "".join(_words(node, boxes))
        style = self._style(node)
        level = 1 if style.title else style.level + self.titled if style.level else 0
        self.titled = self.titled or style.title
        if text.strip() and not style.contents:
            if style.list and not level:
                self.in_list = True
                yield markdown.item(style.depth, self._mark(style), text) + "\n"
            else:
                yield from self._rest()
                yield (markdown.heading(level, text) if level else markdown.plain(text.strip())) + "\n\n"
        for box in boxes:
            yield from self.blocks(box)

    def _rest(self) -> Iterator[str]:
        """The blank line under a list."""
        if self.in_list:
            self.in_list = False
            yield "\n"

    def _style(self, node: Any) -> _Style:
        style = self.styles.get(_value(node.find(f"{W}pPr/{W}pStyle")), _Style())
        return _direct(node.find(f"{W}pPr"), style)

    def _mark(self, style: _Style) -> str:
        numbered, first = self.lists.get((style.list, style.depth), (False, 1))
        if not numbered:
            return "-"
        for key in [key for key in self.counted if key[0] == style.list and key[1] > style.depth]:
            del self.counted[key]
        here = (style.list, style.depth)
        self.counted[here] = self.counted.get(here, first - 1) + 1
        return f"{self.counted[here]}."

    def _rows(self, table: Any) -> Iterator[str]:
        for row in _inner(table, "tr"):
            cells = [" ".join("".join(_words(cell, [])).split()) for cell in _inner(row, "tc")]
            if any(cells):
                yield markdown.row(cells)


def _words(node: Any, boxes: list[Any]) -> Iterator[str]:
    """What a reader sees of a paragraph or a cell. Text boxes, which hang on some word, are put into `boxes`."""
    for child in node:
        name = _name(child)
        if name == "t":
            yield child.text or ""
        elif name in ("br", "cr"):
            yield "\n"
        elif name in ("tab", "ptab"):
            yield " "
        elif name == "noBreakHyphen":
            yield "-"
        elif name == "txbxContent":
            boxes.append(child)
        elif name in ("footnoteReference", "endnoteReference"):
            yield f"[^{name[0]}{child.get(f'{W}id')}]"
        elif name == "r":
            if not _on(child.find(f"{W}rPr/{W}vanish")):
                yield from _words(child, boxes)
        elif name not in UNSEEN:
            yield from _words(child, boxes)
            if name in ("p", "tc"):  # within a cell
                yield " "


def _inner(node: Any, wanted: str) -> Iterator[Any]:
    """The rows of a table or the cells of a row, those in content controls too, but not those of tables within."""
    for child in node:
        name = _name(child)
        if name == wanted:
            yield child
        elif name in GROUPS:
            yield from _inner(child, wanted)


def _styles(opened: Any) -> dict[str, _Style]:
    """The paragraph styles by id, each with what it takes from those that it is based on."""
    nodes = {str(node.get(f"{W}styleId")): node for node in opened.styles.element.findall(f"{W}style")}
    found: dict[str, _Style] = {}
    for name in nodes:
        chain: list[str] = []
        based = name
        while based in nodes and based not in chain and based not in found:
            chain.append(based)
            based = _value(nodes[based].find(f"{W}basedOn"))
        style = found.get(based, _Style())
        for id_ in reversed(chain):
            node = nodes[id_]
            called = _value(node.find(f"{W}name")).lower()
            kind, _, number = called.rpartition(" ")
            if kind == "heading" and number.isdigit():
                style = style._replace(level=int(number))
            elif called == "title":
                style = style._replace(title=True)
            elif kind == "toc" or called == "toc heading":
                style = style._replace(contents=True)
            style = _direct(node.find(f"{W}pPr"), style)
            found[id_] = style
    return found


def _direct(properties: Any, style: _Style) -> _Style:
    """The style with what a paragraph's, or a style's, own properties change."""
    if properties is None:
        return style
    level = _value(properties.find(f"{W}outlineLvl"))
    if level.isdigit():
        style = style._replace(level=int(level) + 1 if int(level) < 9 else 0)
    numbering = properties.find(f"{W}numPr")
    if numbering is not None:
        number, depth = (_value(numbering.find(f"{W}{name}")) for name in ("numId", "ilvl"))
        style = style._replace(
            list=style.list if number == "" else "" if number == "0" else number,
            depth=min(int(depth), 8) if depth.isdigit() else style.depth,
        )
    return style


def _lists(opened: Any) -> dict[tuple[str, int], tuple[bool, int]]:
    """Of each list and depth, whether it is numbered, and its first number."""
    numbering = _related(opened, "/numbering")
    if numbering is None:
        return {}
    abstract = {node.get(f"{W}abstractNumId"): node for node in numbering.findall(f"{W}abstractNum")}
    found = {}
    for number in numbering.findall(f"{W}num"):
        levels = abstract.get(_value(number.find(f"{W}abstractNumId")))
        for level in levels.findall(f"{W}lvl") if levels is not None else ():
            first = _value(level.find(f"{W}start"))
            is_numbered = _value(level.find(f"{W}numFmt")) in NUMBERED
            depth = level.get(f"{W}ilvl") or ""
            if depth.isdigit():
                found[number.get(f"{W}numId"), int(depth)] = (is_numbered, int(first) if first.isdigit() else 1)
    return found


def _notes(opened: Any, body: _Body) -> Iterator[str]:
    """Footnotes and endnotes, each named as its mark in the text is."""
    for name in ("footnote", "endnote"):
        notes = _related(opened, f"/{name}s")
        for note in notes if notes is not None else ():
            if note.get(f"{W}type") in (None, "normal"):
                yield from body._rest()
                text = " ".join("".join(_words(note, [])).split())
                if text:
                    yield f"[^{name[0]}{note.get(f'{W}id')}]: {text}\n\n"


def _related(opened: Any, kind: str) -> Any:
    """The root of the part that stands in this relation to the document; None where there is none."""
    from docx.oxml import parse_xml

    for relation in opened.part.rels.values():
        if relation.reltype.endswith(kind) and not relation.is_external:
            return parse_xml(relation.target_part.blob)
    return None


def _name(node: Any) -> str:
    """A node's name without its namespace; empty for comments."""
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""


def _value(node: Any) -> str:
    return "" if node is None else node.get(f"{W}val") or ""


def _on(node: Any) -> bool:
    return node is not None and _value(node) not in OFF


def _first_heading(blocks: list[str]) -> str:
    return next((block.strip("# \n") for block in blocks if block.startswith("# ")), "")
