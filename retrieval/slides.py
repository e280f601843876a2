"""PPTX to Markdown: a page a slide, its title a heading, its texts, tables and the speaker's notes below.

Hidden slides keep their number and are not read. Charts and drawings are not read either.
"""

import io
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from trackbed.retrieval import markdown
from trackbed.retrieval.errors import FormatError
from trackbed.retrieval.package import check_xml, open_package, properties
from trackbed.retrieval.text import joined, stem, valid
from trackbed.retrieval.types import Document


def read_slides(data: bytes, source: str) -> Document:
    """A PowerPoint presentation as Markdown."""
    with open_package(data, "[Content_Types].xml") as package:
        check_xml(package)
        said = properties(package)
    import pptx

    try:
        presentation = pptx.Presentation(io.BytesIO(data))
        slides = [valid(joined(_slide(slide))) for slide in presentation.slides]
    except (FormatError, MemoryError, RecursionError):
        raise
    except Exception as error:  # a broken package makes python-pptx raise almost anything
        raise FormatError(f"no whole PowerPoint presentation ({type(error).__name__})") from error
    text = joined(slides)
    pages = tuple(accumulate(map(len, slides[:-1])))
    return Document(source, text, title=said.pop("title", "") or stem(source), pages=pages, metadata=said)


def _slide(slide: Any) -> Iterator[str]:
    if slide.element.get("show") in ("0", "false"):
        return
    title = slide.shapes.title
    if title is not None and title.text_frame.text.strip():
        yield markdown.heading(1, _text(title.text_frame)) + "\n\n"
    for shape in slide.shapes:
        if title is None or shape.shape_id != title.shape_id:
            yield from _shape(shape)
    notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    if notes is not None and notes.text.strip():
        yield f"Notes: {markdown.plain(_text(notes).strip())}\n\n"


def _shape(shape: Any) -> Iterator[str]:
    if hasattr(shape, "shapes"):  # a group
        for inner in shape.shapes:
            yield from _shape(inner)
    elif getattr(shape, "has_table", False):
        for row in shape.table.rows:
            yield markdown.row(_text(cell.text_frame) for cell in row.cells) + "\n"
        yield "\n"
    elif shape.has_text_frame and shape.text_frame.text.strip():
        lines = [(paragraph.level, paragraph.text.replace("\v", "\n")) for paragraph in shape.text_frame.paragraphs]
        listed = shape.is_placeholder and len(lines) > 1
        for level, line in lines:
            if line.strip():
                yield (markdown.item(level, "-", line) if listed else markdown.plain(line.strip()) + "\n") + "\n"
        if listed:
            yield "\n"


def _text(frame: Any) -> str:
    return str(frame.text).replace("\v", "\n")
