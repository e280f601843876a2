"""A tensor of a mapped file gives its memory back when told to, and is there again when looked at."""

import mmap
from pathlib import Path

import pytest

from trackbed.llm.errors import ModelLoadError
from trackbed.llm.mapped import MappedTensor, check_apart, map_file

PAGE = mmap.PAGESIZE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * (64 * PAGE // 256))
    return path


def resident(path: Path) -> int:
    """Bytes of the maps of a file that are in this process's memory."""
    found, ours = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split(" ")[0]:
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="where a process cannot look at its own maps")
def test_a_released_tensor_takes_no_memory_but_the_pages_that_it_shares(path: Path) -> None:
    size = 60 * PAGE
    tensor = MappedTensor(path, "t", "U8", (size,), PAGE // 2, size, map_file(path))
    before = bytes(tensor.data())
    assert resident(path) >= size
    tensor.release()
    assert resident(path) <= (64 - 59) * PAGE  # the tensor has 59 pages to itself
    assert bytes(tensor.data()) == before


@pytest.mark.parametrize(("offset", "size"), [(0, 0), (1, 10), (PAGE - 1, PAGE), (PAGE, PAGE), (63 * PAGE + 5, 9)])
def test_any_range_can_be_released(path: Path, offset: int, size: int) -> None:
    tensor = MappedTensor(path, "t", "U8", (size,), offset, size, map_file(path))
    before = bytes(tensor.data())
    tensor.release()
    assert bytes(tensor.data()) == before


def test_tensors_that_share_bytes_are_named(path: Path) -> None:
    mapped = map_file(path)
    a, b, c = (MappedTensor(path, name, "U8", (8,), at, 8, mapped) for name, at in (("a", 0), ("b", 8), ("c", 15)))
    check_apart([b, a])
    with pytest.raises(ModelLoadError, match="weights: c: its bytes begin at 15, and those of b end at 16: they over"):
        check_apart([c, a, b])


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="cannot be read"):
        map_file(tmp_path)
