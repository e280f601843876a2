"""What is said of a document beside its text; and that doubt about its readers leaves it out."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.retrieval.test_load import one, refused
from trackbed.retrieval.chunk import chunk
from trackbed.retrieval.errors import DocumentUnreadable, FormatError
from trackbed.retrieval.load import load
from trackbed.retrieval.metadata import front_matter, parse
from trackbed.retrieval.types import Document

MATTER = """---
title: The handbook
year: 2024
share: 0.5
draft: false
date: 2024-05-01
tags: [rails, 7]
author: {name: Ann, team: {id: 3}}
none:
allow: [staff, board]
---
"""


def test_front_matter_becomes_metadata_and_no_passage_and_offsets_stay_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(f"{MATTER}# Heading\n\nText.\n")
    document = one(tmp_path / "a.md")
    assert (document.title, document.text) == ("The handbook", f"{MATTER}# Heading\n\nText.\n")
    assert document.metadata == {
        "year": 2024,
        "share": 0.5,
        "draft": False,
        "date": "2024-05-01",
        "tags": ("rails", "7"),
        "author.name": "Ann",
        "author.team.id": 3,
        "allow": ("staff", "board"),
    }
    [passage] = chunk(document)
    assert passage.text == "# Heading\n\nText." == document.text[passage.start : passage.end]
    assert passage.metadata["allow"] == ("staff", "board")


def test_a_sidecar_describes_any_document_and_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("item\nbolt\n")
    (tmp_path / "a.csv.meta.yaml").write_text("title: Bolts\nallow: [staff]\nproduct: shop\n")
    [document] = load([tmp_path])
    assert isinstance(document, Document)
    assert (document.source, document.title) == ("a.csv", "Bolts")
    assert document.metadata == {"allow": ("staff",), "product": "shop"}
    assert one(tmp_path / "a.csv") == document
    assert list(load([tmp_path / "a.csv.meta.yaml"])) == []


@pytest.mark.parametrize("name", ["a.md.meta.yaml", "a.meta.yaml", "a.md.meta.yml", "A.MD.Meta.YAML"])
def test_a_sidecar_is_found_by_the_name_of_the_file_or_its_stem_in_any_case(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.md").write_text("Text.")
    (tmp_path / name).write_text("allow: [staff]")
    assert one(tmp_path / "a.md").metadata == {"allow": ("staff",)}
    assert [item.metadata for item in load([tmp_path]) if isinstance(item, Document)] == [{"allow": ("staff",)}]


def test_a_sidecar_wins_over_front_matter_and_over_what_the_format_says(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<title>Old</title><meta name="author" content="Bob"><p>Text')
    (tmp_path / "a.html.meta.yaml").write_text("title: New\nauthor: Ann\n")
    document = one(tmp_path / "a.html")
    assert (document.title, document.metadata) == ("New", {"author": "Ann"})


def test_a_sidecar_that_describes_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "handbook.pdf.meta.yaml").write_text("allow: [staff]")
    (tmp_path / "handbok.md").write_text("Text.")
    _, error = load([tmp_path])
    assert "describes no file beside it" in str(error)


def test_a_sidecar_does_not_describe_a_folder_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "staff").mkdir()
    (tmp_path / "staff" / "a.md").write_text("Text.")
    (tmp_path / "staff.meta.yaml").write_text("allow: [staff]")
    _, error = load([tmp_path])
    assert "describes no file beside it" in str(error)


@pytest.mark.parametrize("name", ["a.txt", "a.rst", "a.html", "a.markdown"])
def test_front_matter_names_readers_whatever_text_it_stands_in(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("---\nallow: [staff]\n---\nCaf\u00e9.", "utf-8")
    document = one(tmp_path / name)
    assert document.metadata == {"allow": ("staff",)}
    assert [passage.text for passage in chunk(document)] == ["Caf\u00e9."]


@pytest.mark.parametrize(
    "allow",
    [
        "allow: staff",
        "allow:",
        "allow: [1]",
        "allow: [no]",
        "allow: ['']",
        "allow: [[staff]]",
        "allow: {staff: true}",
        "allow: [staff",
        "allow: [staff]\nallow: [everybody]",
        "Allow: [staff]",
        "allows: [staff]",
        "alow: [staff]",
        "'allow ': [staff]",
        "permissions: {allow: [staff]}",
        "a: &x [staff]\nallow: *x",
        "allow: !!python/object:os.system [staff]",
        "allow: [staff]\n\tx: 1",
        "allow [staff]",
        "a: " + "x" * 20_000 + "\nallow: [staff]",
    ],
)
@pytest.mark.parametrize("place", ["front matter", "sidecar"])
def test_a_document_whose_readers_cannot_be_told_is_left_out_and_named(tmp_path: Path, allow: str, place: str) -> None:
    matter = f"---\n{allow}\n---\n" if place == "front matter" else ""
    if matter and len(matter) > 16_384:
        return  # front matter of that length is text
    (tmp_path / "a.md").write_text(f"{matter}Secret.")
    if not matter:
        (tmp_path / "a.md.meta.yaml").write_text(allow)
    assert "Secret" not in refused(tmp_path / "a.md")


@pytest.mark.parametrize("sidecar", ["", "just text", "- a\n- b", "a: [", "a: {b: *c}", "\0", "a: !!binary aGk="])
def test_a_sidecar_that_cannot_be_read_leaves_its_document_out(tmp_path: Path, sidecar: str) -> None:
    (tmp_path / "a.md").write_text("Secret.")
    (tmp_path / "a.md.meta.yaml").write_text(sidecar)
    assert "its sidecar a.md.meta.yaml" in refused(tmp_path / "a.md")


def test_a_sidecar_that_is_a_folder_leaves_its_document_out(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Secret.")
    (tmp_path / "a.md.meta.yaml").mkdir()
    assert "its sidecar" in refused(tmp_path / "a.md")


def test_of_two_sidecars_neither_is_believed(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Secret.")
    for name in ("a.md.meta.yaml", "a.meta.yaml"):
        (tmp_path / name).write_text("allow: [staff]")
    assert "described by a.md.meta.yaml and a.meta.yaml" in refused(tmp_path / "a.md")


def test_front_matter_and_sidecar_must_name_the_same_readers(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("---\nallow: [staff]\n---\nSecret.")
    (tmp_path / "a.md.meta.yaml").write_text("allow: [everybody]")
    assert "differ in `allow`" in refused(tmp_path / "a.md")
    (tmp_path / "a.md.meta.yaml").write_text("product: shop")
    assert one(tmp_path / "a.md").metadata == {"allow": ("staff",), "product": "shop"}


def test_a_link_to_a_document_has_the_readers_of_the_document(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "secret.md").write_text("Secret.")
    (tmp_path / "part" / "secret.md.meta.yaml").write_text("allow: [staff]")
    (tmp_path / "copy.md").symlink_to(tmp_path / "part" / "secret.md")
    [document] = load([tmp_path])
    assert isinstance(document, Document)
    assert (document.source, document.metadata) == ("copy.md", {"allow": ("staff",)})


def test_a_sidecar_may_be_a_link_but_not_out_of_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "docs"
    inside.mkdir()
    (tmp_path / "elsewhere.yaml").write_text("secret: value")
    (inside / "a.md").write_text("Text.")
    (inside / "a.md.meta.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    found = [str(item) for item in load([inside])]
    assert found == [
        f"{inside}/a.md: its sidecar is a link that leads out of the folder, which is not followed",
        f"{inside}/a.md.meta.yaml: a link that leads out of the folder is not followed",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "---\n\nProse that follows a ruled line.\n\n---\nMore",
        "---\nno end",
        "--- \nprose\n---\n",
        "text\n---\na: b\n---",
    ],
)
def test_a_ruled_line_is_no_front_matter(text: str) -> None:
    assert front_matter(text) == (0, {})


@pytest.mark.parametrize("text", ["---\n---\nText", "\n---\n# comment\n...\nText", "---\r\na: b\r\n---\r\nText"])
def test_front_matter_ends_at_its_second_mark(text: str) -> None:
    assert text[front_matter(text)[0] :] == "Text"


def test_what_yaml_unfolds_is_bounded() -> None:
    for bomb in ("a: &a [x, x]\nb: &b [*a, *a]", f"a: [{'{b: 1}, ' * 400}]", "a: " + "[" * 5000, "a: 1" + "0" * 9000):
        with pytest.raises(FormatError):
            parse(bomb)


@given(st.text(max_size=80) | st.text("allow:[]{}&*- \n#'\"x", max_size=40))
def test_whatever_stands_in_a_sidecar_is_read_or_refused(text: str) -> None:
    try:
        said = parse(text) or {}
    except FormatError:
        return
    groups = said.get("allow", ())
    assert isinstance(groups, tuple)
    assert all(group.strip() for group in groups)


@given(st.text("-.\nalow: []x#", max_size=60))
def test_a_text_that_begins_by_naming_readers_is_never_shown_to_all(text: str) -> None:
    matter = f"---\nallow: [staff]\n{text}"
    try:
        start, said = front_matter(matter)
    except FormatError:
        return
    assert start
    assert said["allow"] == ("staff",)


def test_a_path_that_is_refused_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Secret.")
    (tmp_path / "a.md.meta.yaml").write_text("allow: staff")
    [error] = load([tmp_path])
    assert isinstance(error, DocumentUnreadable)
    assert str(error).startswith(f"{tmp_path}/a.md: its sidecar a.md.meta.yaml: `allow` must be a list")
