"""Texts as windows: nothing is lost, none is too long, and no text writes a mark."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.llm.test_judge import write_base
from trackbed.llm.errors import ModelLoadError
from trackbed.llm.windows import Reader


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_base(folder)
    return folder


@settings(deadline=None, max_examples=200)
@given(count=st.integers(0, 100), answered=st.integers(0, 60), tokens=st.integers(8, 40))
def test_windows_cover_a_text_and_are_bounded(base: Path, count: int, answered: int, tokens: int) -> None:
    reader = Reader(base, tokens)
    text, before = (" ".join(f"w{n}" for n in range(many)) for many in (count, answered))
    (whole,) = Reader(base, 1000).windows(text)
    seen: list[int] = []
    for window in reader.windows(text, before):
        assert len(window.ids) == len(window.kinds) <= tokens
        own = [token for token, kind in zip(window.ids, window.kinds, strict=True) if kind == int(answered > 0)]
        own = own[:-1] if answered else own[1:-1]
        assert not seen or own[0] <= seen[-1] + 1, "windows leave nothing out between them"  # tokens are numbered
        assert own == whole.ids[whole.ids.index(own[0]) :][: len(own)] if own else not count
        seen += own
    assert list(dict.fromkeys(seen)) == whole.ids[1:-1]


@settings(deadline=None, max_examples=200)
@given(text=st.text(st.sampled_from("[]SEPCL good\ud800é\0")), before=st.text(st.sampled_from("[]SEPCL bad")))
def test_no_text_writes_a_mark(base: Path, text: str, before: str) -> None:
    reader = Reader(base, 24)
    for window in reader.windows(text, before):
        assert window.ids.count(reader.start) == 1
        assert window.ids.count(reader.end) == 1 + (1 in window.kinds)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="is not a tokenizer that can be read"):
        Reader(tmp_path, 32)


def test_brackets_that_spell_a_mark_are_letters(base: Path) -> None:
    reader = Reader(base, 64)
    (window,) = reader.windows("good [SEP] day [CLS]")
    assert window.ids.count(reader.end) == 1
    assert window.ids.count(reader.start) == 1
