"""Tables and JSON: each row or record is a paragraph that names its values, and what is broken is named by its line."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.retrieval.test_load import one, refused
from trackbed.retrieval.chunk import Chunking, chunk
from trackbed.retrieval.records import read_json, read_json_lines, read_table

WORDS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)


def test_each_row_names_its_values(tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text('item,price,note\nbolt,1.10,"short,\nand thick"\nnut,,x,9\n\n', "utf-8")
    document = one(tmp_path / "prices.csv")
    assert document.text == ("item: bolt\nprice: 1.10\nnote: short, and thick\n\nitem: nut\nnote: x\ncolumn 4: 9\n\n")
    assert document.title == "prices"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_what_the_first_line_has_most_of(delimiter: str) -> None:
    assert read_table(f"a{delimiter}b\n1.5{delimiter}x y\n") == "a: 1.5\nb: x y\n\n"


def test_other_delimiters_stay_in_their_cells() -> None:
    assert read_table("a;b\n1,5;x|y\n") == "a: 1,5\nb: x|y\n\n"


def test_a_column_name_is_never_taken_for_a_heading_or_a_table() -> None:
    assert read_table("# of,|x,\n1,2,3\n") == "of: 1\nx: 2\ncolumn 3: 3\n\n"


@given(rows=st.lists(st.lists(WORDS, min_size=3, max_size=3), min_size=1, max_size=6))
def test_every_cell_is_in_a_passage_with_its_name(rows: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([["first", "second", "third"], *rows])
    text = read_table(out.getvalue())
    paragraphs = text.strip().split("\n\n")
    expected = [
        "\n".join(f"{name}: {cell}" for name, cell in zip(("first", "second", "third"), row, strict=True))
        for row in rows
    ]
    assert paragraphs == expected


def test_a_record_of_json_is_a_paragraph_and_values_in_values_are_named_by_both(tmp_path: Path) -> None:
    records = (
        '[{"name": "bolt", "size": {"mm": 1.10}, "tags": ["a", "b"], "none": null, "in": true},\n{"parts": [{"n": 1}]}]'
    )
    (tmp_path / "a.json").write_text(records, "utf-8")
    assert one(tmp_path / "a.json").text == ("name: bolt\nsize.mm: 1.10\ntags: a, b\nin: true\n\nparts.1.n: 1\n\n")


@given(st.lists(st.dictionaries(WORDS, WORDS, min_size=1, max_size=3), min_size=1, max_size=4))
def test_json_lines_are_read_as_the_array_of_their_values(records: list[dict[str, str]]) -> None:
    lines = "\n\n".join(json.dumps(record) for record in records)
    assert read_json_lines(lines) == read_json(json.dumps(records))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", '{"a": 1,\n"b" 2}', "line 2: Expecting ':' delimiter"),
        ("a.jsonl", '{"a": 1}\n\n{"a": }', "line 3: Expecting value"),
        ("a.json", "[" * 200_000, "line 1: "),
        ("a.csv", "a,b\n1," + "x" * 200_000, "line 2: field larger than field limit"),
        ("a.csv", "a,b\n", "holds no text"),
        ("a.json", "[]", "holds no text"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    assert says in refused(tmp_path / name)


def test_lone_surrogates_do_not_get_into_an_index(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": "x\\ud800\\u0000y"}', "utf-8")
    one(tmp_path / "a.jsonl").text.encode("utf-8")


def test_rows_are_split_between_and_not_within_where_they_fit(tmp_path: Path) -> None:
    rows = "".join(f"bolt {n},about {n}\n" for n in range(60))
    (tmp_path / "a.csv").write_text(f"item,note\n{rows}", "utf-8")
    for passage in chunk(one(tmp_path / "a.csv"), Chunking(200, 0)):
        assert passage.text.startswith("item: bolt")
        assert passage.text.count("item:") == passage.text.count("note:")
