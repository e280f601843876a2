"""XLSX to records: a heading a sheet, and below it each row a paragraph that names its values.

What is read are the values as they were last computed. Rows of one cell above the first row of several are
a sheet's title; that row names the columns. Hidden sheets are not read.
"""

import datetime
import io
from collections.abc import Iterator
from typing import Any

from trackbed.retrieval import markdown
from trackbed.retrieval.errors import FormatError
from trackbed.retrieval.package import check_xml, open_package, properties
from trackbed.retrieval.records import paragraph
from trackbed.retrieval.text import joined, stem, valid
from trackbed.retrieval.types import Document

MAX_ROWS = 2**20  # of a sheet; Excel has no more
MAX_CELLS = 5_000_000  # of a file, empty ones before a row's last counted


def read_sheets(data: bytes, source: str) -> Document:
    """A workbook of Excel as records."""
    with open_package(data, "[Content_Types].xml") as package:
        check_xml(package)
        said = properties(package)
    import openpyxl

    try:
        workbook = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        try:
            text = valid(joined(_sheets(workbook)))
        finally:
            workbook.close()
    except (FormatError, MemoryError, RecursionError):
        raise
    except Exception as error:  # a broken package makes openpyxl raise almost anything
        raise FormatError(f"no whole Excel workbook ({type(error).__name__})") from error
    title = said.pop("title", "") or stem(source)
    return Document(source, text, title=title, metadata=said, structure="records")


def _sheets(workbook: Any) -> Iterator[str]:
    left = MAX_CELLS
    for sheet in workbook.worksheets:
        if sheet.sheet_state != "visible":
            continue
        sheet.reset_dimensions()  # what the file says of its size may be anything
        heading = markdown.heading(1, sheet.title) + "\n\n"
        names: list[str] = []
        for number, values in enumerate(sheet.iter_rows(values_only=True), 1):
            left -= len(values) + 1
            if left < 0 or number > MAX_ROWS:
                raise FormatError(f"the sheet {sheet.title!r} has too many rows or cells; split it")
            cells = [_cell(value) for value in values]
            filled = sum(map(bool, cells))
            if not filled:
                continue
            if not names and filled > 1:
                names = cells
                continue
            record = paragraph(names, cells) if names else markdown.plain(next(filter(None, cells)))
            yield f"{heading}{record}\n\n"
            heading = ""
        if heading and names:  # a row and no more
            yield f"{heading}{markdown.row(names)}\n\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ")
    return " ".join(str(value).split())
