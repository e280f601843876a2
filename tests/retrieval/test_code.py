"""Source code: the file as it stands, split at its definitions, each passage under the name of what it defines."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.retrieval.test_load import one, refused
from trackbed.retrieval.chunk import Chunking, chunk
from trackbed.retrieval.code import read_code
from trackbed.retrieval.load import CODE, SETTINGS

PYTHON = '''\
"""A module."""

import os

# How many there are.
COUNT = 1


# Adds.
@cached
def add(a, b):
    # not a heading
    return a + b


class Shop:
    """Sells."""

    def open(self):
        return "open"

    async def close(self):

        return "closed"

    name = "shop"


if __name__ == "__main__":
    add(1, 2)
'''
LINES = st.sampled_from(
    [
        *("def f():", "class A {", "    x = 1", "  void g(int a) {", "}", "", "# c", "  // d", "func (r R) M() {"),
        *(
            "\tif x {",
            "const a = (b) => {",
            "create table t (",
            "\x0c",
            "'''",
            "x = {",
            "é",
            "fn z() -> u8 {",
            "(" * 300,
        ),
    ]
)
TEXTS = st.lists(LINES | st.text(max_size=30), max_size=25).flatmap(
    lambda lines: st.sampled_from(["\n", "\r\n", "\r"]).map(lambda end: end.join(lines))
)


def headings(path: Path, size: int = 900) -> list[tuple[str, str]]:
    passages = chunk(one(path), Chunking(size, 0))
    return [(passage.heading, passage.text.splitlines()[0].strip()) for passage in passages]


def test_python_is_split_at_its_definitions_with_the_comments_above_them(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(PYTHON)
    assert one(tmp_path / "shop.py").text == PYTHON
    assert one(tmp_path / "shop.py").title == "shop.py"
    assert headings(tmp_path / "shop.py") == [
        ("", '"""A module."""'),
        ("add", "# Adds."),
        ("Shop", "class Shop:"),
        ("", 'if __name__ == "__main__":'),
    ]


def test_a_class_that_does_not_fit_is_split_at_its_methods(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(PYTHON)
    assert headings(tmp_path / "shop.py", 100)[2:] == [
        ("Shop", "class Shop:"),
        ("Shop > open", "def open(self):"),
        ("Shop > close", "async def close(self):"),
        ("Shop", 'name = "shop"'),
        ("", 'if __name__ == "__main__":'),
    ]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.js", "import a;\n\n// A\nexport function add(a) {\n}\n\nconst sub = (a) => {\n};\n", ["", "add", "sub"]),
        ("a.ts", "export interface Shop {\n}\n\nexport default class Cart {\n}\n", ["Shop", "Cart"]),
        ("A.java", "package a;\n\n/** Doc. */\n@Final\npublic class Shop extends B {\n    int x;\n}\n", ["", "Shop"]),
        ("a.c", "#include <a.h>\n\nint add(int a,\n        int b)\n{\n}\n\nint main(void)\n{\n}\n", ["", "main"]),
        ("a.cpp", "namespace shop {\nint x;\n}\n\nvoid Cart::add(int a) {\n}\n", ["shop", "add"]),
        ("a.go", "package a\n\nfunc Add(a int) int {\n}\n\nfunc (c *Cart) Sub() {\n}\n", ["", "Add", "Sub"]),
        ("a.rs", "use a;\n\n#[inline]\npub fn add(a: u8) -> u8 {\n}\n\nstruct Cart {\n}\n", ["", "add", "Cart"]),
        ("a.rb", "require 'a'\n\nclass Cart\n  def add\n  end\nend\n", ["", "Cart"]),
        ("a.php", "<?php\n\nfunction add($a) {\n}\n", ["", "add"]),
        ("a.sh", "#!/bin/sh\nset -e\n\nadd() {\n  echo 1\n}\n\nadd 1\n", ["", "add", ""]),
        ("a.sql", "CREATE TABLE IF NOT EXISTS shop.item (\n  id int\n);\n\nselect 1;\n", ["shop.item", ""]),
        ("a.yaml", "a: 1\n\nb: 2\n", [""]),
        ("a.css", "p { }\n", [""]),
    ],
)  # fmt: skip
def test_a_definition_is_told_by_how_its_line_looks(tmp_path: Path, name: str, text: str, found: list[str]) -> None:
    (tmp_path / name).write_text(text)
    assert [heading for heading, _ in headings(tmp_path / name)] == found


def test_methods_one_step_inside_are_told_too(tmp_path: Path) -> None:
    (tmp_path / "A.java").write_text(
        "public class Shop {\n    private int x;\n\n    public int add(int a) {\n        if (a) {\n        }\n    }\n\n"
        "    @Override\n    public void close() {\n    }\n}\n"
    )
    assert headings(tmp_path / "A.java", 80) == [
        ("Shop", "public class Shop {"),
        ("Shop > add", "public int add(int a) {"),
        ("Shop > close", "@Override"),
    ]


def test_a_function_that_does_not_fit_is_split_at_its_blank_lines(tmp_path: Path) -> None:
    groups = [f"    a{i} = 1\n    b{i} = 2\n    c{i} = 3\n" for i in range(20)]
    (tmp_path / "a.py").write_text("def f():\n" + "\n".join(groups))
    for passage in chunk(one(tmp_path / "a.py"), Chunking(150, 0)):
        assert passage.heading == "f"
        assert passage.text.count("a") == passage.text.count("c")


def test_python_of_another_version_is_read_by_its_looks(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("print 'old'\n\ndef add(a, b):\n    return a\n")
    assert [heading for heading, _ in headings(tmp_path / "a.py")] == ["", "add"]


def test_what_a_program_says_of_escapes_is_no_warning_of_ours(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    return '\\d'\n")
    assert [heading for heading, _ in headings(tmp_path / "a.py")] == ["f"]


@pytest.mark.parametrize("suffix", [*CODE, *SETTINGS])
def test_code_that_is_empty_or_binary_is_named(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(b" \n")
    assert "holds no text" in refused(tmp_path / f"a{suffix}")
    (tmp_path / f"a{suffix}").write_bytes(b"\x7fELF\0\0")
    assert "a binary file" in refused(tmp_path / f"a{suffix}")


@given(TEXTS, st.sampled_from(["a.py", "a.c"]), st.integers(10, 200))
def test_every_character_of_code_is_in_a_passage_once(text: str, name: str, size: int) -> None:
    document = read_code(text.encode("utf-8", "replace"), name) if "\0" not in text else None
    if document is None:
        return
    covered: list[int] = []
    for passage in chunk(document, Chunking(size, size // 3)):
        assert passage.text == document.text[passage.start : passage.end]
        assert len(passage.text) <= size
        covered.extend(range(passage.start, passage.end))
    assert covered == sorted(set(covered))
    assert all(document.text[i].isspace() for i in set(range(len(document.text))) - set(covered))
