"""Tables and records as text: each row or record a paragraph, and in it a line `name: value` for each field.

So a passage names what its values are, wherever the file is split. This file knows neither files nor documents.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from trackbed.retrieval import markdown
from trackbed.retrieval.text import joined

DELIMITERS = ",;\t|"


def read_table(text: str) -> str:
    """Comma-separated values, or parted by semicolons, tabs or bars, whichever the first line has most of.

    The first row names the columns. Raises ValueError with the line where a row cannot be read.
    """
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(DELIMITERS, key=first.count))
    try:
        names = next(reader, [])
        return _joined(paragraph(names, row) for row in reader)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def paragraph(names: Sequence[str], row: Sequence[str]) -> str:
    """A row as text: a line for each cell that is not empty, which names it."""
    cells = ((_plain(names[i]) if i < len(names) else "", i, cell) for i, cell in enumerate(row))
    return "\n".join(_line(name or f"column {i + 1}", cell) for name, i, cell in cells if cell.strip())


def read_json(text: str) -> str:
    """A JSON value; of an array, each element is a record. Raises ValueError with the line where it is no JSON."""
    found = _parsed(text, 1)
    return _joined(joined(_lines(record, ""), "\n") for record in (found if isinstance(found, list) else [found]))


def read_json_lines(text: str) -> str:
    """JSON Lines: a value each line; blank lines count for nothing. Raises ValueError with the line that is no JSON."""
    lines = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    return _joined(joined(_lines(_parsed(line, number), ""), "\n") for number, line in lines)


def _parsed(text: str, line: int) -> Any:
    try:
        # Numbers stay as they are written: 1.10 is not 1.1.
        return json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {line + error.lineno - 1}: {error.msg}") from error
    except RecursionError:
        raise ValueError(f"line {line}: its values are nested too deeply") from None


def _lines(value: Any, name: str) -> Iterator[str]:
    """The fields of a value; those of a value in a value are named by both, with a full stop."""
    if isinstance(value, list) and any(isinstance(part, list | dict) for part in value):
        value = {str(number): part for number, part in enumerate(value, 1)}
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _lines(part, f"{name}.{key}" if name else str(key))
        return
    if isinstance(value, list):
        value = ", ".join(_text(part) for part in value if part is not None)
    if value is not None and (said := _text(value)).strip():
        yield _line(_plain(name), said) if name else markdown.plain(" ".join(said.split()))


def _text(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _line(name: str, value: str) -> str:
    return f"{name}: {' '.join(value.split())}"


def _plain(name: str) -> str:
    """A name that nothing takes for a heading, a table or code."""
    return " ".join(name.split()).lstrip("#|`~ ")


def _joined(paragraphs: Iterable[str]) -> str:
    return joined(f"{paragraph}\n\n" for paragraph in paragraphs if paragraph)
