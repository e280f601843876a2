"""PDF: pages, bookmarks and properties survive; what runs along all pages, and what a line's end parts, does not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest
from pypdf import PdfWriter

from tests.retrieval.test_load import one, pdf, refused
from trackbed.retrieval.chunk import Chunking, chunk


def lines(*texts: str) -> str:
    """Text of more than one line, as the body of a page."""
    return ") Tj 0 -20 Td (".join(texts)


def written(
    path: Path,
    *pages: str,
    bookmarks: Sequence[tuple[str, int, int]] = (),
    said: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """A PDF of these pages, with bookmarks (title, page, the index of the one above or -1) and properties."""
    path.write_bytes(pdf(*pages))
    writer = PdfWriter(clone_from=path)
    made: list[object] = []
    for title, page, above in bookmarks:
        parent = made[above] if above >= 0 else None
        made.append(writer.add_outline_item(title=title, page_number=page, parent=parent))
    writer.add_metadata(dict(said))
    writer.write(path)
    return path


def test_bookmarks_are_headings_where_their_words_stand(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.pdf",
        lines("Cover", "1 Trains", "They run on rails."),
        lines("1.1 Rails", "They are of steel.", "The end of it.", "2. Boats", "They float."),
        bookmarks=[("Trains", 0, -1), ("Rails", 1, 0), ("Boats", 1, -1), ("Nowhere to be found", 1, 2)],
    )
    found = [(passage.heading, passage.page, passage.text.splitlines()[0]) for passage in chunk(one(path))]
    assert found == [
        ("", 1, "Cover"),
        ("Trains", 1, "1 Trains"),
        ("Trains > Rails", 2, "1.1 Rails"),
        ("Boats > Nowhere to be found", 2, "2. Boats"),
    ]


def test_properties_become_metadata(tmp_path: Path) -> None:
    said = {"/Title": "The  guide", "/Author": "Ann", "/CreationDate": "D:20240501120000Z", "/ModDate": "yesterday"}
    document = one(written(tmp_path / "a.pdf", "Text", said=said))
    assert document.title == "The guide"
    assert document.metadata == {"author": "Ann", "created": "2024-05-01T12:00:00+00:00"}


def test_words_that_a_lines_end_parts_are_joined_and_ligatures_are_letters(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf(lines("An informa-", "tion of UTF-", "8 and pages 3-", "4")))
    assert one(tmp_path / "a.pdf").text == "An information of UTF-\n8 and pages 3-\n4\n\n"


def test_what_most_pages_begin_or_end_with_is_left_out(tmp_path: Path) -> None:
    pages = [lines("The handbook", f"Body {chr(65 + i)}", "More.", f"page {i + 1} of 5") for i in range(5)]
    (tmp_path / "a.pdf").write_bytes(pdf(*pages))
    document = one(tmp_path / "a.pdf")
    assert document.text == "".join(f"Body {letter}\nMore.\n\n" for letter in "ABCDE")
    assert [document.text[start : start + 6] for start in document.pages] == ["Body B", "Body C", "Body D", "Body E"]


def test_what_only_some_pages_begin_with_stays(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf(*[lines("Chapter", f"Body {i}", "end") for i in range(3)], *"xyz"))
    assert one(tmp_path / "a.pdf").text.count("Chapter") == 3


def test_a_passage_is_a_stretch_of_the_text_across_pages(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf(*[lines(*[f"Line {i} of {page}." for i in range(20)]) for page in range(6)]))
    document = one(tmp_path / "a.pdf")
    passages = list(chunk(document, Chunking(150, 30)))
    assert {passage.page for passage in passages} == {1, 2, 3, 4, 5, 6}
    assert all(passage.text == document.text[passage.start : passage.end] for passage in passages)


@pytest.mark.parametrize("broken", [b"/Next 7 0 R", b"/Dest [99 0 R /Fit]", b"/Dest (nowhere)", b"/Title 5"])
def test_bookmarks_that_are_broken_cost_headings_and_nothing_else(tmp_path: Path, broken: bytes) -> None:
    outline = (
        b"<< /Type /Outlines /First 7 0 R /Last 7 0 R >> endobj 7 0 obj << /Title (One) /Parent 6 0 R /Next 7 0 R "
    )
    data = pdf("One").replace(b"/Pages 2 0 R >>", b"/Pages 2 0 R /Outlines 6 0 R >>")
    data = data.replace(b"xref\n", b"6 0 obj " + outline + broken + b" >> endobj\nxref\n", 1)
    (tmp_path / "a.pdf").write_bytes(data)
    assert one(tmp_path / "a.pdf").text.split() == ["One"]


def test_a_pdf_with_a_page_that_is_its_own_parent_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf("x").replace(b"/Kids [5 0 R]", b"/Kids [2 0 R]"))
    assert "no text" in refused(tmp_path / "a.pdf") or "cannot be read" in refused(tmp_path / "a.pdf")
