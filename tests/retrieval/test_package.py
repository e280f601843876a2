"""Zip packages that are broken, locked or bombs are refused by name, whichever format they are of."""

import io
import struct
import zipfile
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest

from tests.retrieval.test_load import pdf, refused
from trackbed.retrieval.package import ENCRYPTED, MAX_MEMBERS, MAX_UNPACKED, MAX_XML
from trackbed.retrieval.text import OLE

OFFICE = [".docx", ".pptx", ".xlsx"]
MAIN = {".docx": "word/document.xml", ".pptx": "ppt/presentation.xml", ".xlsx": "xl/workbook.xml"}
ALL = [*OFFICE, ".epub"]
LAUGHS = "<!DOCTYPE a [<!ENTITY a 'ha'>{}]><a>&j;</a>".format(
    "".join(f"<!ENTITY {name} '{f'&{before};' * 10}'>" for before, name in zip("abcdefghi", "bcdefghij", strict=True))
)


def packed(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in members.items():
            package.writestr(name, content)
    return data.getvalue()


def replaced(data: bytes, members: dict[str, bytes]) -> bytes:
    """The package with some members' content changed, or taken out where that is empty."""
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        kept = {name: package.read(name) for name in package.namelist()}
    return packed({name: content for name, content in {**kept, **members}.items() if content})


def office(suffix: str) -> bytes:
    """A small file of that kind, as its own library writes it."""
    data = io.BytesIO()
    if suffix == ".docx":
        document = docx.Document()
        document.add_paragraph("Text.")
        document.save(data)
    elif suffix == ".pptx":
        presentation = pptx.Presentation()
        presentation.slides.add_slide(presentation.slide_layouts[5]).shapes.title.text = "Text."
        presentation.save(data)
    else:
        book = openpyxl.Workbook()
        assert book.active is not None
        book.active.append(["Text."])
        book.save(data)
    return data.getvalue()


def says(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return refused(path)


@pytest.mark.parametrize("suffix", ALL)
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "holds no text"),
        (b"text", "no zip package"),
        (b"PK\x03\x04broken", "a broken zip package"),
        (pdf("Text"), "no zip package: it begins like a PDF file"),
        (OLE + ENCRYPTED, "encrypted with a password"),
        (OLE + b"WordDocument", "in the old binary format"),
        (packed({"a.txt": b"text"}), "a zip package without"),
        (packed({str(i): b"" for i in range(MAX_MEMBERS + 1)}), "a package of more than"),
    ],
    ids=["empty", "text", "broken", "pdf", "locked", "old", "zip", "members"],
)
def test_what_is_no_package_of_its_kind_is_named(tmp_path: Path, suffix: str, data: bytes, why: str) -> None:
    assert why in says(tmp_path / f"a{suffix}", data)


@pytest.mark.parametrize("suffix", OFFICE)
def test_a_document_without_its_main_part_is_named(tmp_path: Path, suffix: str) -> None:
    assert "no whole" in says(tmp_path / f"a{suffix}", replaced(office(suffix), {MAIN[suffix]: b""}))


@pytest.mark.parametrize("suffix", OFFICE)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused_before_they_are_parsed(tmp_path: Path, suffix: str, encoding: str) -> None:
    xml = f'<?xml version="1.0" encoding="{encoding}"?>{LAUGHS}'.encode(encoding)
    why = says(tmp_path / f"a{suffix}", replaced(office(suffix), {MAIN[suffix]: xml}))
    assert "a document type declaration" in why


@pytest.mark.parametrize("suffix", OFFICE)
def test_entities_in_a_rare_encoding_are_refused_too(tmp_path: Path, suffix: str) -> None:
    xml = b'<?xml version="1.0" encoding="utf-7"?>' + LAUGHS.replace("<", "+ADw-").encode()
    why = says(tmp_path / f"a{suffix}", replaced(office(suffix), {MAIN[suffix]: xml}))
    assert "in an encoding that its kind never has" in why


@pytest.mark.parametrize("suffix", OFFICE)
def test_elements_without_end_are_refused(tmp_path: Path, suffix: str) -> None:
    deep = b"<a>" * 100_000 + b"</a>" * 100_000
    assert "no whole" in says(tmp_path / f"a{suffix}", replaced(office(suffix), {MAIN[suffix]: deep}))


@pytest.mark.parametrize("suffix", ALL)
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, suffix: str) -> None:
    data = packed({"[Content_Types].xml": b"x" * 1000, "META-INF/container.xml": b"y"})
    at = data.index(b"PK\x01\x02") + 24
    bomb = data[:at] + struct.pack("<I", MAX_UNPACKED + 1) + data[at + 4 :]
    assert "and at most" in says(tmp_path / f"a{suffix}", bomb)


@pytest.mark.parametrize("suffix", OFFICE)
def test_xml_that_is_too_large_to_be_parsed_is_refused(tmp_path: Path, suffix: str) -> None:
    data = office(suffix)
    at = data.rindex(MAIN[suffix].encode()) - 46 + 24
    large = data[:at] + struct.pack("<I", MAX_XML + 1) + data[at + 4 :]
    assert "bytes of XML" in says(tmp_path / f"a{suffix}", large)


@pytest.mark.parametrize("suffix", OFFICE)
def test_a_member_that_holds_more_than_it_says_is_refused(tmp_path: Path, suffix: str) -> None:
    data = replaced(office(suffix), {MAIN[suffix]: b"<a>" + b" " * 100_000 + b"</a>"})
    at = data.rindex(MAIN[suffix].encode()) - 46 + 24
    assert "a broken zip package" in says(tmp_path / f"a{suffix}", data[:at] + struct.pack("<I", 10) + data[at + 4 :])


@pytest.mark.parametrize("suffix", ALL)
def test_a_package_that_is_locked_is_named(tmp_path: Path, suffix: str) -> None:
    data = bytearray(packed({"[Content_Types].xml": b"x", "META-INF/container.xml": b"y"}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted with a password" in says(tmp_path / f"a{suffix}", bytes(data))
