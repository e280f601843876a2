"""EPUB: the chapters in the order of reading, from a package that names them."""

from pathlib import Path

import pytest

from tests.retrieval.test_load import one, refused
from tests.retrieval.test_package import packed, replaced
from trackbed.retrieval.chunk import chunk

CONTAINER = b"""<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
BOOK = """<?xml version="1.0" encoding="utf-8"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>The  Book</dc:title><dc:creator>Ann</dc:creator>
<dc:creator>Bob</dc:creator><dc:date>2024-05-01</dc:date><dc:language>en</dc:language></metadata>
<manifest><item id="two" href="text/two%20.xhtml" media-type="application/xhtml+xml"/>
<item id="one" href="text/one.xhtml#start" media-type="application/xhtml+xml"/>
<item id="picture" href="a.png" media-type="image/png"/></manifest>
<spine><itemref idref="one"/><itemref idref="picture"/><itemref idref="missing"/>
<itemref idref="two"/></spine></package>"""
PAGE = '<?xml version="1.0"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml"><head><title>t</title></head><body>{}</body></html>'
ENCRYPTION = """<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<enc:EncryptedData xmlns:enc="http://www.w3.org/2001/04/xmlenc#"><enc:EncryptionMethod Algorithm="{}"/>
<enc:CipherData><enc:CipherReference URI="OEBPS/x"/></enc:CipherData></enc:EncryptedData></encryption>"""


def book(path: Path, **members: str) -> Path:
    """A small book; members, by the name before its suffix, are put in or in place of what is there."""
    names = {"encryption": "META-INF/encryption.xml", "opf": "OEBPS/book.opf", "container": "META-INF/container.xml"}
    data = packed(
        {
            "mimetype": b"application/epub+zip",
            "META-INF/container.xml": CONTAINER,
            "OEBPS/book.opf": BOOK.encode(),
            "OEBPS/text/one.xhtml": PAGE.format("<h1>One</h1><p>First &amp; foremost.</p>").encode(),
            "OEBPS/text/two .xhtml": PAGE.format("<h1>Two</h1><h2>Part</h2><p>Last.</p>").encode(),
        }
    )
    path.write_bytes(replaced(data, {names[name]: content.encode() for name, content in members.items()}))
    return path


def test_chapters_are_read_in_the_order_of_the_spine(tmp_path: Path) -> None:
    document = one(book(tmp_path / "a.epub"))
    assert document.text == "# One\n\nFirst & foremost.\n\n# Two\n\n## Part\n\nLast.\n\n"
    assert (document.title, document.metadata) == (
        "The Book",
        {"author": "Ann, Bob", "created": "2024-05-01", "language": "en"},
    )
    assert [passage.heading for passage in chunk(document)] == ["One", "Two > Part"]


def test_a_locked_book_is_named_and_fonts_alone_do_not_lock_it(tmp_path: Path) -> None:
    locked = ENCRYPTION.format("http://www.w3.org/2001/04/xmlenc#aes128-cbc")
    assert "digital rights management" in refused(book(tmp_path / "a.epub", encryption=locked))
    assert "digital rights management" in refused(book(tmp_path / "a.epub", encryption="<encryption/>"))
    fonts = ENCRYPTION.format("http://www.idpf.org/2008/embedding")
    assert one(book(tmp_path / "b.epub", encryption=fonts)).title == "The Book"


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"opf": ""}, "a package without its member 'OEBPS/book.opf'"),
        ({"opf": "<package/>"}, "a book without chapters"),
        ({"container": "<container/>"}, "a package without its member ''"),
        ({"opf": BOOK.replace("text/one.xhtml", "../../../etc/passwd")}, "a package without its member"),
        ({"opf": BOOK.replace('idref="one"', "").replace("two%20", "three")}, "a package without its member"),
    ],
)
def test_a_book_without_its_parts_is_named(tmp_path: Path, members: dict[str, str], says: str) -> None:
    assert says in refused(book(tmp_path / "a.epub", **members))


def test_a_chapter_that_is_named_ten_thousand_times_is_read_once(tmp_path: Path) -> None:
    spine = '<itemref idref="one"/>' * 10_000
    document = one(book(tmp_path / "a.epub", opf=BOOK.replace("<spine>", f"<spine>{spine}")))
    assert document.text.count("First") == 1
