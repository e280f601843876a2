"""A policy's YAML: what it means, where it stands, and what is refused before anybody looks at it."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trackbed.rails.errors import PolicyError
from trackbed.rails.source import MAX_BYTES, MAX_DEPTH, Node, read_source

Read = Callable[..., Node]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(text: str | bytes, **files: str) -> Node:
        for name, content in files.items():
            (tmp_path / name.replace("__", ".")).write_text(content)
        file = tmp_path / "acme.yaml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_source(file)

    return read


def refused(read: Read, text: str | bytes, **files: str) -> str:
    """The message without the folder."""
    with pytest.raises(PolicyError) as caught:
        read(text, **files)
    return str(caught.value).rpartition("/acme.yaml:")[2] if "/acme.yaml:" in str(caught.value) else str(caught.value)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("Off", "Off"),
        ("true", True),
        ("false", False),
        ("'true'", "true"),
        ("12", 12),
        ("-1.5", -1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1e999", "1e999"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2026-01-01", "2026-01-01"),
        ("4111111111111111111", "4111111111111111111"),
        ("~", None),
        ("''", ""),
    ],
)
def test_words_mean_what_yaml_1_2_says(read: Read, word: str, value: object) -> None:
    found = read(f"key: {word}").plain()["key"]
    assert (found, type(found)) == (value, type(value))


def test_a_key_is_always_a_string(read: Read) -> None:
    assert list(read("on: 1\nyes: 2\nno: 3\ntrue: 4\n5: 6\n").plain()) == ["on", "yes", "no", "true", "5"]


def test_keys_and_values_know_where_they_stand(read: Read) -> None:
    node = read("a:\n  - rail: x\n    b: 2\n").at(["a", 0, "b"])
    assert (node.key.line, node.key.column, node.key.key) == (3, 5, "a[0].b")
    assert (node.place.line, node.place.column) == (3, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: the file is empty; a policy begins with 'policy: 1'"),
        ("a: 1\nb: 2\na: 3", "3:1: 'a' is given twice; the first stands in line 1"),
        ("a: 1\n---\nb: 2", "2:1: a second document; a file holds one"),
        (
            "a: !!python/object/apply:os.system [id]",
            "1:4: 'tag:yaml.org,2002:python/object/apply:os.system' is not a tag",
        ),
        ("a: !!int 3", "1:4: 'tag:yaml.org,2002:int' is not a tag"),
        ("a: !env HOME", "1:4: '!env' is not a tag of a policy; the only one is '!include'"),
        ("a: !include [x]", "1:4: '!include' takes the path of a file"),
        ("? [a]\n: 1", "1:3: a key is a plain word"),
        ("a: [1,\nb: 2", "this is not YAML: "),
        ("a: b: c", "1:5: this is not YAML: mapping values are not allowed"),
        ("a: *b", "1:4: '*b' stands for nothing that is complete above it"),
        ("a: &a [*a]", "1:8: '*a' stands for nothing that is complete above it"),
        ("a: " + "[" * (MAX_DEPTH + 1), "nested deeper than 32"),
        ("x" * 200 + ": 1", "1:1: a key of 200 characters; the limit is 100"),
        (b"a: 1\nb: \xff", "2:1: the file is not UTF-8 text"),
        ("a: 1\nb: \x00", "2:1: a character that YAML does not allow"),
    ],
)
def test_what_is_no_policy_is_refused_with_its_place(read: Read, text: str | bytes, message: str) -> None:
    assert message in refused(read, text)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(20)),
        "a: &a [1]\n" + "".join(f"a{i}: &a [*a]\n" for i in range(1000)),
        "a: " + "[" * 200_000,
        "a: " + "{b: " * 50_000,
        "- " * 100_000,
        "? " * 100_000,
        "- 1\n" * 60_000,
        "x" * (MAX_BYTES + 1),
        '"' + "\n" * 200_000,
        "&a " * 50_000,
    ],
    ids=[
        "aliases of aliases",
        "a chain of aliases",
        "[",
        "{",
        "-",
        "?",
        "many values",
        "long",
        "open quote",
        "anchors",
    ],
)
def test_a_hostile_file_is_refused_within_a_second(read: Read, text: str) -> None:
    started = time.process_time()
    with pytest.raises(PolicyError):
        read(text)
    assert time.process_time() - started < 1


def test_an_alias_repeats_what_it_names(read: Read) -> None:
    assert read("a: &a [1, 2]\nb: *a").plain() == {"a": [1, 2], "b": [1, 2]}


def test_an_included_text_stands_in_place_and_knows_its_file(read: Read) -> None:
    node = read("a: !include words.j2", words__j2="hello\nthere").at(["a"])
    assert (node.value, Path(node.text.file).name, node.text.line) == ("hello\nthere", "words.j2", 1)


def test_an_included_yaml_file_is_read_with_the_same_care(read: Read) -> None:
    assert read("a: !include more.yaml", more__yaml="b: [yes]").plain() == {"a": {"b": ["yes"]}}
    assert "more.yaml:2:1: 'b' is given twice" in refused(read, "a: !include more.yaml", more__yaml="b: 1\nb: 2")


@pytest.mark.parametrize(
    "name", ["../outside.txt", "/etc/hostname", "sub/../../outside.txt", "link.txt", "folder/x.txt"]
)
def test_nothing_outside_the_folder_can_be_included(read: Read, tmp_path: Path, name: str) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "x.txt").write_text("secret")
    (tmp_path.parent / "outside.txt").write_text("secret")
    (tmp_path / "link.txt").symlink_to(outside / "x.txt")
    (tmp_path / "folder").symlink_to(outside)
    (tmp_path / "sub").mkdir()
    assert "1:4: " in (message := refused(read, f"a: !include {name}"))
    assert "is outside the policy's folder" in message


def test_a_file_cannot_include_itself(read: Read) -> None:
    assert "'acme.yaml' includes itself" in refused(read, "a: !include acme.yaml")
    assert "includes itself" in refused(read, "a: !include b.yaml", b__yaml="a: !include acme.yaml")


def test_a_missing_file_is_named(read: Read, tmp_path: Path) -> None:
    assert f"there is no file {tmp_path}/nope.j2" in refused(read, "a: !include nope.j2")


def test_all_files_together_are_bounded(read: Read) -> None:
    text = "\n".join(f"a{i}: !include big.txt" for i in range(4))
    assert "at most 256 KiB" in refused(read, text, big__txt="x" * 80_000)


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("ab:-[]{},&*!?|>'\"%@`#\n\t \\é~10."), max_size=60))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("any") / "acme.yaml"
    file.write_text(text)
    with suppress(PolicyError):
        read_source(file).plain()
