"""DOCX: real documents as python-docx writes them, with what it cannot write put into their XML."""

import io
from pathlib import Path
from typing import Any

import docx
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from tests.retrieval.test_load import one, refused
from trackbed.retrieval.chunk import Chunking, chunk


def saved(document: Any, path: Path) -> Path:
    document.core_properties.title = ""
    document.core_properties.author = ""
    document.save(str(path))
    return path


def body(path: Path, *blocks: str) -> str:
    """The text of a document of these blocks of XML."""
    document = docx.Document()
    for block in blocks:
        document.element.body.insert(
            len(document.element.body) - 1, parse_xml(block.replace(">", f" {nsdecls('w')}>", 1))
        )
    return one(saved(document, path / "a.docx")).text


def test_headings_lists_and_tables_become_markdown_in_their_order(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_heading("The handbook", 0)
    document.add_paragraph("It says  much.")
    document.add_heading("Prices", 1)
    document.add_paragraph("bolts", style="List Bullet")
    document.add_paragraph("small ones", style="List Bullet 2")
    document.add_paragraph("first", style="List Number")
    document.add_paragraph("second", style="List Number")
    table = document.add_table(2, 2)
    for cell, text in zip(
        (cell for row in table.rows for cell in row.cells), ["Size", "a | b", "1", "2 €"], strict=True
    ):
        cell.text = text
    document.add_heading("Sizes", 2)
    document.add_paragraph("# not a heading\nand a second line")
    found = one(saved(document, tmp_path / "a.docx"))
    assert found.title == "The handbook"
    assert found.text == (
        "# The handbook\n\nIt says much.\n\n## Prices\n\n- bolts\n- small ones\n1. first\n2. second\n\n"
        "| Size | a \\| b |\n| 1 | 2 € |\n\n### Sizes\n\n\\# not a heading\nand a second line\n\n"
    )
    assert [passage.heading for passage in chunk(found)] == [
        "The handbook",
        "The handbook > Prices",
        "The handbook > Prices > Sizes",
    ]


def test_a_passage_is_a_stretch_of_the_text_and_holds_whole_rows(tmp_path: Path) -> None:
    document = docx.Document()
    table = document.add_table(30, 3)
    for number, row in enumerate(table.rows):
        for cell in row.cells:
            cell.text = f"cell of row {number}"
    found = one(saved(document, tmp_path / "a.docx"))
    passages = list(chunk(found, Chunking(200, 0)))
    assert [row for passage in passages for row in passage.text.splitlines()] == found.text.strip().splitlines()


def test_properties_become_metadata(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_paragraph("Text.")
    document.core_properties.title = "The handbook"
    document.core_properties.author = "Ann"
    document.core_properties.keywords = "rails, bolts"
    document.save(str(tmp_path / "a.docx"))
    found = one(tmp_path / "a.docx")
    assert found.title == "The handbook"
    assert (found.metadata["author"], found.metadata["keywords"]) == ("Ann", "rails, bolts")
    assert str(found.metadata["created"]).startswith("2013-")


def test_two_readings_of_one_file_are_the_same(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_paragraph("Text.")
    assert one(saved(document, tmp_path / "a.docx")) == one(tmp_path / "a.docx")


def test_words_in_insertions_links_fields_and_controls_are_read_and_deleted_and_hidden_ones_are_not(
    tmp_path: Path,
) -> None:
    assert body(
        tmp_path,
        "<w:p><w:r><w:t>a</w:t></w:r><w:ins><w:r><w:t>b</w:t></w:r></w:ins><w:del><w:r><w:delText>X</w:delText></w:r></w:del>"
        "<w:hyperlink><w:r><w:t>c</w:t></w:r></w:hyperlink><w:moveFrom><w:r><w:t>X</w:t></w:r></w:moveFrom>"
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t>X</w:t></w:r><w:r><w:rPr><w:vanish w:val='0'/></w:rPr><w:t>d</w:t></w:r>"
        "<w:fldSimple><w:r><w:t>e</w:t></w:r></w:fldSimple><w:r><w:instrText>X</w:instrText><w:tab/><w:noBreakHyphen/></w:r></w:p>",
        "<w:sdt><w:sdtPr/><w:sdtContent><w:p><w:r><w:t>f</w:t></w:r></w:p></w:sdtContent></w:sdt>",
        "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>g</w:t></w:r></w:p><w:p><w:r><w:t>h</w:t></w:r></w:p></w:tc></w:tr></w:tbl>",
    ) == "abcde -\n\nf\n\n| g h |\n\n"  # fmt: skip


def test_a_text_box_follows_its_paragraph_and_is_read_once(tmp_path: Path) -> None:
    box = "<w:txbxContent><w:p><w:r><w:t>in the box</w:t></w:r></w:p></w:txbxContent>"
    assert body(
        tmp_path,
        "<w:p><w:r><w:t>outside</w:t><mc:AlternateContent xmlns:mc='http://schemas.openxmlformats.org/markup-compatibility/2006'>"
        f"<mc:Choice Requires='w'>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback></mc:AlternateContent></w:r></w:p>",
    ) == "outside\n\nin the box\n\n"  # fmt: skip


def test_a_heading_is_known_by_its_outline_level_whatever_its_style_is_called(tmp_path: Path) -> None:
    document = docx.Document()
    style = document.styles.add_style("Kapitel", 1)
    style.element.get_or_add_pPr().append(parse_xml(f"<w:outlineLvl {nsdecls('w')} w:val='1'/>"))
    document.styles.add_style("Unterkapitel", 1).base_style = style
    document.add_paragraph("One", style="Kapitel")
    document.add_paragraph("Two", style="Unterkapitel")
    document.add_paragraph("toc", style=document.styles.add_style("toc 1", 1))
    assert one(saved(document, tmp_path / "a.docx")).text == "## One\n\n## Two\n\n"


def test_styles_that_are_based_on_each_other_end(tmp_path: Path) -> None:
    document = docx.Document()
    first, second = (document.styles.add_style(name, 1) for name in ("First", "Second"))
    first.base_style, second.base_style = second, first
    document.add_paragraph("Text.", style="First")
    assert one(saved(document, tmp_path / "a.docx")).text == "Text.\n\n"


def test_what_is_another_office_document_is_named(tmp_path: Path) -> None:
    import openpyxl

    data = io.BytesIO()
    openpyxl.Workbook().save(data)
    (tmp_path / "a.docx").write_bytes(data.getvalue())
    assert "no whole Word document" in refused(tmp_path / "a.docx")


def test_a_document_without_words_is_named(tmp_path: Path) -> None:
    assert "holds no text" in refused(saved(docx.Document(), tmp_path / "a.docx"))


@pytest.mark.parametrize("depth", [40, 2000])
def test_tables_in_tables_are_read_or_refused(tmp_path: Path, depth: int) -> None:
    document = docx.Document()
    inner = "<w:p><w:r><w:t>deep</w:t></w:r></w:p>"
    for _ in range(depth):
        inner = f"<w:tbl><w:tr><w:tc>{inner}</w:tc></w:tr></w:tbl>"
    path = saved(document, tmp_path / "a.docx")
    from tests.retrieval.test_package import replaced

    xml = f"<w:document {nsdecls('w')}><w:body>{inner}</w:body></w:document>"
    path.write_bytes(replaced(path.read_bytes(), {"word/document.xml": xml.encode()}))
    assert one(path).text == "| deep |\n\n" if depth < 80 else refused(path)
