"""EPUB to Markdown: the chapters in the order of reading, each read as the page of HTML that it is.

The package is walked by zipfile and the HTML reader alone. A book under digital rights management is not read;
fonts that are only obfuscated are no such book.
"""

import posixpath
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import unquote

from trackbed.retrieval.errors import FormatError
from trackbed.retrieval.markup import parsed, read_html
from trackbed.retrieval.package import MAX_XML, open_package, unpacked
from trackbed.retrieval.text import decode, joined, stem, valid
from trackbed.retrieval.types import Document

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
FONTS_ONLY = {"http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"}
SAID = {"dc:title": "title", "dc:creator": "author", "dc:date": "created", "dc:language": "language"}
CHAPTERS = {"application/xhtml+xml", "text/html", "application/x-dtbook+xml"}


def read_epub(data: bytes, source: str) -> Document:
    """A book as Markdown."""
    with open_package(data, CONTAINER) as package:
        if ENCRYPTION in package.namelist() and _locked(_part(package, ENCRYPTION)):
            raise FormatError("encrypted by digital rights management")
        root = _part(package, CONTAINER).find("rootfile")
        path = str(root.get("full-path") or "") if root else ""
        book = _part(package, path)
        text = valid(joined(_chapters(package, book, posixpath.dirname(path))))
    said = {name: _said(book, tag) for tag, name in SAID.items()}
    title = said.pop("title")
    return Document(source, text, title=title or stem(source), metadata={key: one for key, one in said.items() if one})


def _chapters(package: zipfile.ZipFile, book: "BeautifulSoup", folder: str) -> Iterator[str]:
    items = {str(item.get("id")): item for item in _all(book, "item")}
    order = [items.get(str(reference.get("idref"))) for reference in _all(book, "itemref")]
    names = [_path(item, folder) for item in order if item and item.get("media-type") in CHAPTERS]
    if not names:
        raise FormatError("a book without chapters")
    if sum(package.getinfo(name).file_size for name in set(names) & set(package.namelist())) > MAX_XML:
        raise FormatError(f"chapters of more than {MAX_XML} bytes; split it")
    for name in dict.fromkeys(names):  # a chapter that the spine names twice is read once
        yield read_html(unpacked(package, name)).text + "\n"


def _path(item: "Tag", folder: str) -> str:
    return posixpath.normpath(posixpath.join(folder, unquote(str(item.get("href")).partition("#")[0])))


def _locked(encryption: "BeautifulSoup") -> bool:
    methods = {
        str(method.get("algorithm") or method.get("Algorithm")) for method in _all(encryption, "encryptionmethod")
    }
    return not methods <= FONTS_ONLY or not methods


def _part(package: zipfile.ZipFile, name: str) -> "BeautifulSoup":
    """A part of the package's own. The HTML parser reads it as well."""
    return parsed(decode(unpacked(package, name)))


def _all(soup: "BeautifulSoup", name: str) -> "list[Tag]":
    """The elements of that name, in whichever namespace."""
    return soup.find_all(lambda tag: tag.name.rpartition(":")[2] == name)


def _said(book: "BeautifulSoup", name: str) -> str:
    return ", ".join(" ".join(tag.get_text().split()) for tag in book.find_all(name))
