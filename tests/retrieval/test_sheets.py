"""XLSX: a heading a sheet, a paragraph a row, and bounds on what a small file may unfold to."""

import datetime
from pathlib import Path

import openpyxl
import pytest

from tests.retrieval.test_load import one, refused
from tests.retrieval.test_package import replaced
from trackbed.retrieval.chunk import Chunking, chunk

SHEET = "xl/worksheets/sheet1.xml"
XML = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">{}<sheetData>{}</sheetData></worksheet>'


def workbook(path: Path, *rows: list[object], title: str = "Prices") -> Path:
    book = openpyxl.Workbook()
    assert book.active is not None
    book.active.title = title
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def test_each_row_names_its_values_under_the_name_of_its_sheet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    book.active.title = "Prices"
    for row in (["Of 2024"], [], ["item", "price", None, "since"], ["bolt", 1.0, "x", datetime.date(2024, 5, 1)]):
        book.active.append(row)
    book.active.append(["nut", 1.25, None, datetime.datetime(2024, 5, 1, 8, 30)])
    notes = book.create_sheet("Notes")
    notes.append(["# a"])
    notes.append([True])
    hidden = book.create_sheet("Hidden")
    hidden.append(["secret"])
    hidden.sheet_state = "hidden"
    names = book.create_sheet("Names")
    names.append(["just", "names"])
    book.properties.creator = "Ann"
    book.save(tmp_path / "a.xlsx")
    document = one(tmp_path / "a.xlsx")
    assert document.text == (
        "# Prices\n\nOf 2024\n\nitem: bolt\nprice: 1\ncolumn 3: x\nsince: 2024-05-01\n\n"
        "item: nut\nprice: 1.25\nsince: 2024-05-01 08:30:00\n\n# Notes\n\n"
        "\\# a\n\ntrue\n\n# Names\n\n| just | names |\n\n"
    )
    assert document.metadata["author"] == "Ann"
    assert [passage.heading for passage in chunk(document)] == ["Prices", "Notes", "Names"]


def test_rows_stay_whole_where_they_fit(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", ["item", "note"], *([f"bolt {i}", "One. Two. Three."] for i in range(40)))
    for passage in chunk(one(path), Chunking(200, 50)):
        assert passage.text.count("item:") == passage.text.count("Three.")


@pytest.mark.parametrize("dimension", ['<dimension ref="A1:XFD1048576"/>', '<dimension ref="A1:A1"/>'])
def test_what_a_sheet_says_of_its_size_is_not_believed(tmp_path: Path, dimension: str) -> None:
    path = workbook(tmp_path / "a.xlsx", ["x"])
    rows = "<row r='1'><c r='A1'><v>1</v></c><c r='B1'><v>2</v></c></row><row r='2'><c r='B2'><v>3</v></c></row>"
    path.write_bytes(replaced(path.read_bytes(), {SHEET: XML.format(dimension, rows).encode()}))
    assert one(path).text == "# Prices\n\n2: 3\n\n"


@pytest.mark.parametrize(
    "rows",
    [
        "<row r='999999999999'><c r='A999999999999'><v>1</v></c></row>",
        "".join(f"<row r='{i}'><c r='XFD{i}'><v>1</v></c></row>" for i in range(1, 400)),
    ],
)
def test_a_sheet_of_enormous_size_is_named(tmp_path: Path, rows: str) -> None:
    path = workbook(tmp_path / "a.xlsx", ["x"])
    path.write_bytes(replaced(path.read_bytes(), {SHEET: XML.format("", rows).encode()}))
    assert "too many rows or cells" in refused(path)


def test_one_long_text_in_many_cells_is_bounded(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", ["item", "note"], *(["x" * 30_000, "y" * 30_000] for _ in range(600)))
    assert path.stat().st_size < 1_000_000
    assert "its text has more than" in refused(path)


def test_an_empty_workbook_is_named(tmp_path: Path) -> None:
    assert "holds no text" in refused(workbook(tmp_path / "a.xlsx"))
