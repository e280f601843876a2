"""PPTX: a page a slide, with its title, texts, tables and notes."""

from pathlib import Path

import pptx
from pptx.util import Inches

from tests.retrieval.test_load import one, refused
from trackbed.retrieval.chunk import chunk


def test_a_slide_is_a_page_under_its_title(tmp_path: Path) -> None:
    presentation = pptx.Presentation()
    layout = presentation.slide_layouts
    first = presentation.slides.add_slide(layout[1])
    first.shapes.title.text = "Our\vshop"
    frame = first.placeholders[1].text_frame
    frame.text = "Bolts"
    frame.add_paragraph().text = "small"
    frame.paragraphs[1].level = 1
    first.notes_slide.notes_text_frame.text = "Say it slowly."
    presentation.slides.add_slide(layout[6])
    last = presentation.slides.add_slide(layout[5])
    last.shapes.title.text = "Prices"
    table = last.shapes.add_table(1, 2, 0, 0, Inches(1), Inches(1)).table
    table.cell(0, 0).text, table.cell(0, 1).text = "bolt", "1 | 2"
    group = last.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, Inches(1), Inches(1)).text_frame.text = "# in a group"
    presentation.core_properties.title = "The talk"
    presentation.core_properties.author = "Ann"
    presentation.save(str(tmp_path / "a.pptx"))
    document = one(tmp_path / "a.pptx")
    assert document.text == (
        "# Our shop\n\n- Bolts\n  - small\n\nNotes: Say it slowly.\n\n"
        "# Prices\n\n| bolt | 1 \\| 2 |\n\n\\# in a group\n\n"
    )
    assert (document.title, document.metadata["author"]) == ("The talk", "Ann")
    found = [(passage.page, passage.heading) for passage in chunk(document)]
    assert found == [(1, "Our shop"), (3, "Prices")]


def test_a_hidden_slide_keeps_its_number_and_is_not_read(tmp_path: Path) -> None:
    presentation = pptx.Presentation()
    for title in ("One", "Hidden", "Three"):
        slide = presentation.slides.add_slide(presentation.slide_layouts[5])
        slide.shapes.title.text = title
    presentation.slides[1].element.set("show", "0")
    presentation.save(str(tmp_path / "a.pptx"))
    assert [(passage.page, passage.text) for passage in chunk(one(tmp_path / "a.pptx"))] == [
        (1, "# One"),
        (3, "# Three"),
    ]


def test_a_presentation_without_slides_is_named(tmp_path: Path) -> None:
    pptx.Presentation().save(str(tmp_path / "a.pptx"))
    assert "holds no text" in refused(tmp_path / "a.pptx")
