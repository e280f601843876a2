"""No file takes the ingestion down: what loops, crashes or is made to break a reader is named, and the rest is read."""

import os
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.retrieval.test_code import PYTHON
from tests.retrieval.test_epub import book
from tests.retrieval.test_load import pdf
from tests.retrieval.test_package import OFFICE, office
from trackbed.retrieval.chunk import chunk
from trackbed.retrieval.errors import DocumentUnreadable, FormatError
from trackbed.retrieval.isolated import Isolated
from trackbed.retrieval.load import LOADERS, load
from trackbed.retrieval.types import Document


def files(folder: Path) -> dict[str, bytes]:
    """A whole file of each rich format, by its suffix."""
    return {
        **{suffix: office(suffix) for suffix in OFFICE},
        ".epub": book(folder / "whole.epub").read_bytes(),
        ".pdf": pdf("One", "Two"),
        ".html": b"<title>T</title><h1>A</h1><p>b<table><tr><td>c</table><pre>d</pre>",
        ".py": PYTHON.encode(),
        ".md": b"---\nallow: [staff]\n---\n# A\n\nText.",
        ".csv": b"a,b\n1,2\n",
        ".json": b'[{"a": 1}]',
    }


def test_what_is_read_in_another_process_is_what_is_read_in_this_one(tmp_path: Path) -> None:
    for suffix, data in files(tmp_path).items():
        (tmp_path / f"a{suffix}").write_bytes(data)
    with Isolated() as isolated:
        for path in sorted(tmp_path.iterdir()):
            assert isolated.read(path, path.name) == LOADERS[path.suffix](path.read_bytes(), path.name)


def test_a_file_that_takes_too_long_is_named_and_its_reader_ended(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "endless.html")  # whoever opens it waits for ever
    with Isolated(seconds=1) as isolated:
        with pytest.raises(FormatError, match="was not read within 1 seconds"):
            isolated.read(tmp_path / "endless.html", "endless.html")
        assert isolated._worker is None


@pytest.mark.parametrize(
    ("ending", "says"),
    [
        (signal.SIGSEGV, "makes its reader crash"),
        (signal.SIGXCPU, "takes too long"),
        (signal.SIGKILL, "too much memory"),
    ],
)
def test_a_reader_that_crashes_is_an_error_of_the_file_and_the_next_is_read(
    tmp_path: Path, ending: signal.Signals, says: str
) -> None:
    os.mkfifo(tmp_path / "endless.html")
    (tmp_path / "a.html").write_text("<p>Text")
    with Isolated() as isolated:
        isolated.read(tmp_path / "a.html", "a.html")
        assert isolated._worker is not None
        crash = threading.Timer(0.1, os.kill, (isolated._worker.pid, ending))
        crash.start()
        with pytest.raises(FormatError, match=says):
            isolated.read(tmp_path / "endless.html", "endless.html")
        crash.join()
        assert isolated.read(tmp_path / "a.html", "a.html").text == "Text\n"


def test_a_reader_ends_with_the_ingestion(tmp_path: Path) -> None:
    with Isolated() as isolated:
        with pytest.raises(FormatError, match="No such file"):
            isolated.read(tmp_path / "a.html", "a.html")
        assert isolated._worker is not None
        pid = isolated._worker.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_folder_of_documents_is_no_place_to_import_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bs4.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "a.html").write_text("<p>Text")
    monkeypatch.chdir(tmp_path)
    assert all(isinstance(item, Document) for item in load([Path()]))
    assert not (tmp_path / "ran").exists()


def test_hostile_files_are_named_and_the_rest_is_ingested(tmp_path: Path) -> None:
    hostile = {
        "deep.html": b"<div>" * 5_000 + b"deep",
        "deep.py": b"x = " + b"(" * 5_000 + b")" * 5_000,
        "deep.json": b"[" * 200_000,
        "loop.pdf": pdf("x").replace(b"/Kids [5 0 R]", b"/Kids [2 0 R]"),
        "self.pdf": pdf("x").replace(b"/Contents 4 0 R", b"/Contents 5 0 R"),
        "empty.docx": b"",
        "wrong.xlsx": pdf("x"),
    }
    for name, data in hostile.items():
        (tmp_path / name).write_bytes(data)
    for suffix, data in files(tmp_path).items():
        (tmp_path / f"whole{suffix}").write_bytes(data)
    found = list(load([tmp_path]))
    assert {item.source for item in found if isinstance(item, Document)} == {
        "deep.py",  # which is text, if not Python
        *(f"whole{suffix}" for suffix in files(tmp_path)),
    }
    assert {item.source for item in found if isinstance(item, DocumentUnreadable)} == set(hostile) - {"deep.py"}


def broken(draw: st.DrawFn, data: bytes) -> bytes:
    """The file with some bytes changed, cut out or repeated."""
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, 40))
        data = (
            data[:at]
            + draw(st.binary(max_size=20) | st.sampled_from([data[:50], b"<!", b"&#", b"<<", b"[["]))
            + data[at + cut :]
        )
    return data


@pytest.mark.parametrize("examples", [2, pytest.param(300, marks=pytest.mark.many)])
def test_whatever_bytes_a_file_has_it_is_read_or_named(tmp_path: Path, examples: int) -> None:
    whole = files(tmp_path)
    folder = tmp_path / "broken"
    folder.mkdir()

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        for suffix, content in whole.items():
            for number in range(3):
                (folder / f"{number}{suffix}").write_bytes(data.draw(st.composite(broken)(content)))
        found = list(load([folder]))
        assert len(found) == 3 * len(whole)
        for item in found:
            if isinstance(item, Document):
                assert all(passage.text == item.text[passage.start : passage.end] for passage in chunk(item))
                if item.source.endswith(".md") and item.text.startswith("---\nallow: [staff]\n"):
                    assert item.metadata["allow"] == ("staff",)

    run()
