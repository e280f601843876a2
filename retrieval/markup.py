"""HTML as a reader of the page sees it, in Markdown. Nothing here knows files or what HTML came in."""

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from trackbed.retrieval.errors import FormatError
from trackbed.retrieval.text import decode, joined

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

META = {"author": "author", "dc.creator": "author", "date": "created", "article:published_time": "created"} | {
    "article:modified_time": "modified"
}


class Page(NamedTuple):
    """What a page of HTML says."""

    title: str
    text: str  # Markdown
    metadata: dict[str, str]


def read_html(data: bytes) -> Page:
    """The page, decoded as it declares. What is hidden, or only leads around the site, is left out."""
    from bs4.dammit import EncodingDetector

    declared = EncodingDetector.find_declared_encoding(data, is_html=True)
    try:
        soup = parsed(decode(data, declared))
        title = " ".join(soup.title.get_text().split()) if soup.title else ""
        return Page(title, _tidy(joined(_flatten(soup.body or soup))), _metadata(soup))
    except RecursionError:
        raise FormatError("its elements are nested too deeply") from None


def parsed(text: str) -> "BeautifulSoup":
    """The elements of HTML, or of simple XML: names are in small letters, and no entities are known but HTML's."""
    from bs4 import BeautifulSoup

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it may be XML, or no markup at all
        return BeautifulSoup(text, "html.parser")


def _metadata(soup: "BeautifulSoup") -> dict[str, str]:
    said: dict[str, str] = {}
    for tag in soup.find_all("meta"):
        name = META.get(str(tag.get("name") or tag.get("property")).lower(), "")
        if name and (value := " ".join(str(tag.get("content") or "").split())):
            said.setdefault(name, value)
    return said


DROPPED = frozenset({"script", "style", "noscript", "template", "svg", "nav", "head", "title", "iframe", "object"})
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
