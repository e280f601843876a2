"""A safetensors file is read as the library reads it; one that is damaged is a ModelLoadError, and nothing else."""

import json
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.torch import save_file

from trackbed.llm.errors import ModelLoadError
from trackbed.llm.safetensors_file import DTYPES, SafetensorsFile, read_folder, read_safetensors

TENSORS = {
    "a.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "b.weight": torch.arange(6, dtype=torch.float16),
    "c.weight": torch.arange(10, dtype=torch.bfloat16).reshape(5, 2),
    "none": torch.zeros(0, 4),
    "scalar": torch.tensor(3.0),
    "counts": torch.arange(3),
}
SETTINGS = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
HUGE = [-1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30]


def entry(kind: Any = "U8", shape: Any = (4,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": offsets}


def safetensors(header: Any, data: bytes = bytes(4), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def read(folder: Path, content: bytes) -> SafetensorsFile:
    path = folder / "changed.safetensors"
    path.write_bytes(content)
    return read_safetensors(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})
    return path


def test_tensors_are_where_the_library_finds_them(path: Path) -> None:
    file = read_safetensors(path)
    assert file.metadata == {"format": "pt"}
    assert file.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        found = file.tensors[name]
        assert found.shape == tuple(tensor.shape)
        assert bytes(file.data(name)) == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    assert [file.tensors[name].kind for name in ("a.weight", "b.weight", "c.weight")] == ["F32", "F16", "BF16"]


def test_tensors_are_not_copied(path: Path) -> None:
    data = read_safetensors(path).data("a.weight")
    assert isinstance(data, memoryview)
    assert data.readonly


def test_the_dtypes_are_those_of_the_library() -> None:
    with pytest.raises(SafetensorError) as caught:
        deserialize(safetensors({"a": entry("no such")}))
    listed = str(caught.value).partition("expected one of")[2]
    assert set(listed.split("`")[1::2]) == set(DTYPES)
    for kind, bits in DTYPES.items():
        deserialize(safetensors({"a": entry(kind, [8], [0, bits])}, bytes(bits)))


def test_a_file_cut_anywhere_is_damaged(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(len(whole)):
        with pytest.raises(ModelLoadError, match=r"changed\.safetensors: "):
            read(path.parent, whole[:length])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"1234567", "header length: needs 8 bytes, and the file has 7"),
        (safetensors({}, length=2**64 - 1), "header length: it is 18446744073709551615, and the file has 6 bytes more"),
        (safetensors({}, length=2**63), "header length: it is 9223372036854775808"),
        (safetensors(b""), "header: it is no JSON"),
        (safetensors(b"{"), "header: it is no JSON"),
        (safetensors(b"\xff{}"), "header: it is no JSON in UTF-8"),
        (safetensors(b"[]"), "header: it is no JSON object"),
        (safetensors(b"[" * 100_000), "header: it is no JSON"),
        (safetensors(b'{"a":' * 100_000), "header: it is no JSON"),
        (safetensors(b'{"a": ' + b"9" * 5000 + b"}"), "header: it is no JSON"),
        (safetensors(b'{"a": NaN}'), "header: it is no JSON in UTF-8: NaN is no JSON"),
        (safetensors(b'{"a": 1, "a": 1}'), "header: it is no JSON in UTF-8: a key stands twice"),
        (safetensors({"a\n": entry()}), r"header: 'a\\n' is no name of a tensor"),
        (safetensors({"\ud800": entry()}), r"header: '\\ud800' is no name of a tensor"),
        (safetensors({"": entry()}), "header: '' is no name"),
        (safetensors({"a" * 70_000: entry()}), "header: 'a+' is no name"),
        (safetensors({"__metadata__": {"a": 1}}, b""), "__metadata__: it is no object of strings"),
        (safetensors({"__metadata__": [1]}, b""), "__metadata__: it is no object of strings"),
        (safetensors({"a": 1}), "a: it is no object with dtype"),
        (safetensors({"a": {}}), "a: its dtype is None; it can be: .*F32"),
        (safetensors({"a": entry("F99")}), "a: its dtype is 'F99'; it can be: .*F32"),
        (safetensors({"a": entry(["U8"])}), r"a: its dtype is \['U8'\]"),
        (safetensors({"a": entry(shape=4)}), "a: its shape is 4"),
        (safetensors({"a": entry(shape=[4.0])}), r"a: its shape is \[4.0\]"),
        (safetensors({"a": entry(shape=[True, 4])}), r"a: its shape is \[True, 4\]"),
        (safetensors({"a": entry(shape=[-2, -2])}), r"a: its shape is \[-2, -2\]"),
        (safetensors({"a": entry(shape=[2**40, 2**40])}), r"a: its shape is \[1099511627776, 1099511627776\]"),
        (safetensors({"a": entry(shape=[2**62] * 10_000)}), r"a: its shape is \[46"),
        (safetensors({"a": entry(shape=[5])}), "a: its data_offsets hold 4 bytes, and its shape as U8 5"),
        (safetensors({"a": entry("F32", [2])}), "a: its data_offsets hold 4 bytes, and its shape as F32 8"),
        (safetensors({"a": entry("F4", [7])}), "a: its data_offsets hold 4 bytes, and its shape as F4 3.5"),
        (safetensors({"a": entry(offsets=[0])}), r"a: its data_offsets are \[0\]"),
        (safetensors({"a": entry(offsets=[4, 0])}), r"a: its data_offsets are \[4, 0\]"),
        (safetensors({"a": entry(offsets=[-4, 0])}), r"a: its data_offsets are \[-4, 0\]"),
        (safetensors({"a": entry(offsets=[0, None])}), r"a: its data_offsets are \[0, None\]"),
        (safetensors({"a": entry(offsets=[1, 5])}), "a: its bytes end at byte .*: it is truncated"),
        (safetensors({"a": entry(offsets=[2**62, 2**62 + 4])}), "a: its bytes end at byte 4611"),
        (safetensors({"a": entry(), "b": entry()}), "b: its bytes begin at .*, and those of a end at .*: they overlap"),
        (safetensors({"a": entry(), "b": entry(shape=[0], offsets=[2, 2])}), "b: its bytes begin .* they overlap"),
        (safetensors({"a": entry()}, bytes(5)), "data_offsets: the tensors and the header take .* bytes, and the file"),
        (safetensors({"a": entry(offsets=[1, 5])}, bytes(5)), "data_offsets: the tensors and the header take"),
        (safetensors({}), "data_offsets: the tensors and the header take 10 bytes, and the file 14"),
    ],
)
def test_a_damaged_field_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(ModelLoadError, match=rf"changed\.safetensors: {words}"):
        read(tmp_path, content)


def judge(folder: Path, content: bytes) -> None:
    """Either all of a file can be read, and the library reads it too, or it is refused by name; in little memory."""
    tracemalloc.start()
    try:
        file = read(folder, content)
    except ModelLoadError as error:
        assert str(error).startswith(f"{folder / 'changed.safetensors'}: ")  # noqa: PT017
    else:
        expected = dict(deserialize(content))
        assert file.tensors.keys() == expected.keys()
        for name, tensor in file.tensors.items():
            assert (tensor.kind, list(tensor.shape)) == (expected[name]["dtype"], expected[name]["shape"])
            assert bytes(file.data(name)) == bytes(expected[name]["data"])
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1e6 + 100 * len(content)


@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=8))
@SETTINGS
def test_flipped_bits_are_either_harmless_or_named(path: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray(path.read_bytes())
    size = 8 + int.from_bytes(content[:8], "little")
    for place, bits in flips:
        content[place % size] ^= bits
    judge(path.parent, bytes(content))


whole = st.integers(-1, 9) | st.sampled_from(HUGE)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPES, "F99", "", None, 1]),
        "shape": st.lists(whole, max_size=3) | whole,
        "data_offsets": st.lists(whole, min_size=1, max_size=3) | st.none(),
    },
    optional={"more": st.text(max_size=3)},
)
plausible = st.integers(0, 4).map(lambda n: entry("F16", [n], [0, 2 * n]))
headers = st.dictionaries(st.sampled_from(["a", "b", "", "__metadata__", "c\0"]), entries | plausible, max_size=3)


@given(
    header=headers | st.binary(max_size=60),
    data=st.binary(max_size=12),
    length=st.none() | st.integers(0, 200) | st.sampled_from([n for n in HUGE if 0 <= n < 2**64]),
)
@SETTINGS
def test_any_header_is_refused_or_read(tmp_path: Path, header: Any, data: bytes, length: int | None) -> None:
    judge(tmp_path, safetensors(header, data, length))


@given(sizes=st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=4), data=st.data())
@SETTINGS
def test_any_file_of_neighbours_is_read(tmp_path: Path, sizes: list[list[int]], data: st.DataObject) -> None:
    header, end = dict[str, Any](), 0
    for place, shape in enumerate(sizes):
        size = 2 * int(np.prod(shape, dtype=int))
        header[f"t{place}"] = entry("F16", shape, [end, end + size])
        end += size
    content = safetensors({name: header[name] for name in data.draw(st.permutations(sorted(header)))}, bytes(end))
    assert read(tmp_path, content).tensors.keys() == header.keys()
    judge(tmp_path, content)


def shards(folder: Path, **weight_map: Any) -> None:
    save_file({"a": torch.ones(2), "b": torch.zeros(3)}, folder / "one.safetensors")
    save_file({"c": torch.ones(4)}, folder / "two.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards_are_found_by_their_index(tmp_path: Path) -> None:
    shards(tmp_path, a="one.safetensors", b="one.safetensors", c="two.safetensors")
    one, two = read_folder(tmp_path)
    assert (set(one.tensors), set(two.tensors)) == ({"a", "b"}, {"c"})


def test_a_folder_without_an_index_has_one_file(path: Path) -> None:
    (file,) = read_folder(path.parent)
    assert file.path == path


@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        ({}, "weight_map: it is no object"),
        ({"a": "../one.safetensors"}, "weight_map: '../one.safetensors' is not a file of this folder"),
        ({"a": "/etc/passwd"}, "weight_map: '/etc/passwd' is not a file of this folder"),
        ({"a": ".."}, "weight_map: '..' is not a file"),
        ({"a": "."}, "weight_map: '.' is not a file"),
        ({"a": ""}, "weight_map: '' is not a file"),
        ({"a": "one\0"}, r"weight_map: 'one\\x00' is not a file"),
        ({"a": 1}, "weight_map: 1 is not a file"),
        ({"a": ["one.safetensors"]}, r"weight_map: \['one.safetensors'\] is not a file"),
        ({"a": "two.safetensors", "c": "two.safetensors"}, "weight_map: 'a' is not in two.safetensors"),
        ({"a": "one.safetensors", "d\n": "one.safetensors"}, r"weight_map: 'd\\n' is not in one.safetensors"),
    ],
)
def test_an_index_that_is_wrong_names_its_field(tmp_path: Path, weight_map: dict[str, Any], words: str) -> None:
    shards(tmp_path, **weight_map)
    with pytest.raises(ModelLoadError, match=rf"model\.safetensors\.index\.json: {words}"):
        read_folder(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    shards(tmp_path, a="one.safetensors", z="three.safetensors")
    with pytest.raises(ModelLoadError, match=r"three\.safetensors: cannot be read"):
        read_folder(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    shards(tmp_path, a="one.safetensors", c="two.safetensors")
    save_file({"a": torch.ones(2), "c": torch.ones(4)}, tmp_path / "two.safetensors")
    with pytest.raises(ModelLoadError, match=r"two\.safetensors: a: it stands in one\.safetensors too"):
        read_folder(tmp_path)


def test_reading_needs_neither_torch_nor_the_library(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from trackbed.llm.safetensors_file import read_safetensors;"
        "read_safetensors(Path(sys.argv[1])); sys.exit(bool({'torch', 'safetensors'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


def test_the_library_opens_what_this_test_writes(path: Path) -> None:
    with safe_open(path, "np") as opened:
        assert set(opened.keys()) == TENSORS.keys()
