"""A GGUF file is read as the gguf package wrote it; one that is damaged is a ModelLoadError, and nothing else."""

import contextlib
import struct
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trackbed.llm.errors import ModelLoadError, UnknownQuant
from trackbed.llm.gguf import GgufFile, read_gguf

ROWS = np.arange(128, dtype=np.float32).reshape(2, 64) / 7
KINDS = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"]
METADATA = {
    "some.text": ("add_string", "zwölf\n"),
    "some.byte": ("add_uint8", 255),
    "some.negative": ("add_int8", -128),
    "some.short": ("add_uint16", 65535),
    "some.negative_short": ("add_int16", -32768),
    "some.whole": ("add_uint32", 2**32 - 1),
    "some.negative_whole": ("add_int32", -(2**31)),
    "some.long": ("add_uint64", 2**64 - 1),
    "some.negative_long": ("add_int64", -(2**63)),
    "some.real": ("add_float32", 0.5),
    "some.double": ("add_float64", 1e300),
    "some.yes": ("add_bool", True),
    "some.texts": ("add_array", ["a", "", "c"]),
    "some.numbers": ("add_array", [1, -2, 3]),
    "some.reals": ("add_array", [0.5, 1.5]),
    "some.flags": ("add_array", [True, False]),
    "some.nested": ("add_array", [[1, 2], [3]]),
}


def write(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    for key, (add, value) in METADATA.items():
        getattr(writer, add)(key, value)
    for kind in KINDS:
        stored = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(f"{kind}.weight", gguf.quants.quantize(ROWS, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    write(path)
    return path


@pytest.fixture(scope="module")
def whole(path: Path) -> bytes:
    return path.read_bytes()


def read(path: Path, content: bytes) -> GgufFile:
    changed = path.with_name("changed.gguf")
    changed.write_bytes(content)
    return read_gguf(changed)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def header(*, tensors: int = 0, keys: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def tensor(*sizes: int, name: str = "t", kind: int = 0, offset: int = 0) -> bytes:
    shape = struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
    return header(tensors=1) + text(name) + shape + struct.pack("<IQ", kind, offset)


def test_metadata_is_read_as_it_was_written(path: Path) -> None:
    found = read_gguf(path).metadata
    assert {key: found[key] for key in METADATA} == {key: value for key, (_, value) in METADATA.items()}
    assert found["general.architecture"] == "llama"


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_are_found_where_they_were_written(path: Path, kind: str) -> None:
    file = read_gguf(path)
    found = file.tensors[f"{kind}.weight"]
    assert (found.kind, found.shape) == (kind, ROWS.shape)
    assert bytes(file.data(found.name)) == gguf.quants.quantize(ROWS, gguf.GGMLQuantizationType[kind]).tobytes()


def test_tensors_are_not_copied(path: Path) -> None:
    data = read_gguf(path).data("F32.weight")
    assert isinstance(data, memoryview)
    assert data.readonly


def test_version_2_is_read(path: Path, whole: bytes) -> None:
    assert read(path, whole[:4] + struct.pack("<I", 2) + whole[8:]).metadata == read_gguf(path).metadata


def test_a_file_cut_anywhere_is_damaged(path: Path, whole: bytes) -> None:
    used = max(t.offset + t.size for t in read_gguf(path).tensors.values())
    for length in {*range(0, used, 37), *range(100), used - 1}:
        with pytest.raises(ModelLoadError, match=r"changed\.gguf: "):
            read(path, whole[:length])


@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=8))
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_flipped_bits_are_either_harmless_or_named(path: Path, whole: bytes, flips: list[tuple[int, int]]) -> None:
    content = bytearray(whole)
    header_size = min(tensor.offset for tensor in read_gguf(path).tensors.values())
    for place, bits in flips:
        content[place % header_size] ^= bits
    try:
        file = read(path, bytes(content))
    except ModelLoadError as error:
        assert str(error).startswith(f"{path.with_name('changed.gguf')}: ")  # noqa: PT017
    else:
        assert sum(len(file.data(name)) for name in file.tensors) >= 0


@given(content=st.binary(max_size=200))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_after_the_magic_are_refused_or_read(path: Path, content: bytes) -> None:
    with contextlib.suppress(ModelLoadError):
        read(path, header(tensors=1, keys=1) + content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"PK\3\4" + bytes(60), "magic: it is b'PK.*this is no GGUF file"),
        (header(version=1), "version: it is 1; versions 2 and 3 are read"),
        (header(version=0x03000000), "version: it is 50331648"),
        (header(tensors=2**60), "tensor count: it is 1152921504606846976, more than the file of 24 bytes can hold"),
        (header(keys=2**63), "metadata count: it is"),
        (header(keys=1) + text("a") + struct.pack("<IQ", 8, 2**62) + b"xyz", "a: it is 4611686018427387904, more"),
        (header(keys=1) + text("a") + struct.pack("<IIQ", 9, 4, 2**61), "a: it has 2305843009213693952 items"),
        (header(keys=1) + text("a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9, "a: it nests too deep"),
        (header(keys=1) + text("a") + struct.pack("<II", 77, 0), "a: its type is 77"),
        (header(keys=1) + text("a\nb") + bytes(64), "name of metadata 0: it is no name"),
        (header(keys=1) + struct.pack("<Q", 1) + b"\xff" + bytes(64), "name of metadata 0: it is not UTF-8"),
        (header(keys=2) + 2 * (text("a") + struct.pack("<IB", 0, 1)) + bytes(64), "a: it stands twice"),
        (
            header(keys=1) + text("general.alignment") + struct.pack("<II", 4, 33) + bytes(64),
            "general.alignment: it is 33, not a power of two",
        ),
        (tensor(1, 1, 1, 1, 1) + bytes(64), "t: it has 5 dimensions; 1 to 4 are possible"),
        (tensor(0) + bytes(64), r"t: its shape \(0,\) does not fit F32"),
        (tensor(31, 2, kind=2) + bytes(256), r"t: its shape \(2, 31\) does not fit Q4_0, in blocks of 32"),
        (tensor(4, offset=1) + bytes(256), "t: its offset 1 is no multiple of 32"),
        (tensor(2**40, 2**40) + bytes(256), "t: its .* bytes end at byte .*, and the file has 321: it is truncated"),
        (tensor(4, offset=2**63) + bytes(256), "t: its 16 bytes end at byte .*: it is truncated"),
    ],
)
def test_a_damaged_field_is_named(path: Path, content: bytes, words: str) -> None:
    with pytest.raises(ModelLoadError, match=rf"changed\.gguf: {words}"):
        read(path, content)


def test_a_storage_that_nobody_knows_is_refused(path: Path) -> None:
    with pytest.raises(UnknownQuant, match="t: stored as type 99, which is not known"):
        read(path, tensor(4, kind=99) + bytes(256))


def test_a_tensor_that_stands_twice_is_refused(path: Path) -> None:
    info = tensor(4)[24:]
    with pytest.raises(ModelLoadError, match="t: it stands twice"):
        read(path, header(tensors=2) + info + info + bytes(256))


def test_tensors_that_overlap_are_refused(path: Path) -> None:
    infos = tensor(16)[24:] + tensor(4, name="u", offset=32)[24:]
    with pytest.raises(
        ModelLoadError, match=r"changed\.gguf: u: its bytes begin at .*, and those of t end at .*overlap"
    ):
        read(path, header(tensors=2) + infos + bytes(256))


HUGE = [2**16, 2**24, 2**31, 2**32 - 1, 2**40, 2**60, 2**63, 2**64 - 1]
counts = st.integers(0, 4) | st.sampled_from(HUGE)
names = st.sampled_from([b"a", b"b", b"general.alignment", b"split.count", b"split.no", b"", b"\xff", b"a\0"])
strings = st.one_of(names, st.binary(max_size=8)).flatmap(
    lambda raw: (st.just(len(raw)) | counts).map(lambda length: struct.pack("<Q", length) + raw)
)
types = st.integers(0, 13) | st.sampled_from([99, 2**31, 2**32 - 1])
numbers = st.binary(min_size=1, max_size=1) | st.binary(min_size=4, max_size=8)
arrays = st.builds(
    lambda kind, count, items: struct.pack("<IQ", kind, count) + b"".join(items),
    types,
    counts,
    st.lists(strings | numbers, max_size=4),
)
keys = st.builds(
    lambda name, kind, value: name + struct.pack("<I", kind) + value, strings, types, strings | numbers | arrays
)
tensors = st.builds(
    lambda name, sizes, dimensions, kind, offset: (
        name
        + struct.pack("<I", len(sizes) if dimensions is None else dimensions)
        + struct.pack(f"<{len(sizes)}QIQ", *sizes, kind, offset)
    ),
    strings,
    st.lists(counts | st.just(32), min_size=1, max_size=4),
    st.none() | st.sampled_from([0, 5, 2**32 - 1]),
    types | st.just(30),
    st.sampled_from([0, 32, 64, 1, *HUGE]),
)


@given(
    said=st.tuples(st.none() | counts, st.none() | counts),
    keys=st.lists(keys, max_size=3),
    tensors=st.lists(tensors, max_size=3),
    rest=st.integers(0, 300),
)
@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_claims_are_refused_or_true_and_cost_no_memory(
    path: Path, said: tuple[int | None, int | None], keys: list[bytes], tensors: list[bytes], rest: int
) -> None:
    tensor_count, key_count = (len(list_) if n is None else n for n, list_ in zip(said, (tensors, keys), strict=True))
    content = header(tensors=tensor_count, keys=key_count) + b"".join(keys) + b"".join(tensors) + bytes(rest)
    tracemalloc.start()
    try:
        file = read(path, content)
    except ModelLoadError as error:
        assert str(error).startswith(f"{path.with_name('changed.gguf')}: ")  # noqa: PT017
    else:
        for name, found in file.tensors.items():
            assert len(file.data(name)) == found.size
            assert found.offset >= 24
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1e6


def write_shards(folder: Path, tensors: int = 5, each: int = 2, **metadata: int) -> list[Path]:
    """A model in shards, as the gguf package splits it."""
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama", split_max_tensors=each)
    for key, value in metadata.items():
        writer.add_uint32(key, value)
    for number in range(tensors):
        writer.add_tensor(f"t{number}", ROWS + number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("model-*.gguf"))


def edit(path: Path, before: bytes, after: bytes) -> None:
    content = path.read_bytes()
    assert content.count(before) == 1
    assert len(before) == len(after)
    path.unlink()
    path.write_bytes(content.replace(before, after))


def key(name: str, kind: str, value: int) -> bytes:
    return text(name) + struct.pack(f"<I{kind}", {"H": 2, "i": 5}[kind], value)


def test_opening_the_first_shard_opens_all(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    assert [shard.name[5:] for shard in shards] == [f"-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    file = read_gguf(shards[0])
    assert file.path == shards[0]
    assert file.metadata["general.architecture"] == "llama"
    assert sorted(file.tensors) == ["t0", "t1", "t2", "t3", "t4"]
    for number in range(5):
        found = np.frombuffer(file.data(f"t{number}"), np.float32).reshape(ROWS.shape)
        np.testing.assert_array_equal(found, ROWS + number)


@pytest.mark.parametrize(
    ("shard", "before", "after", "words"),
    [
        (2, key("split.no", "H", 1), key("split.no", "H", 2), "split.no: it is 2; expected is 1"),
        (2, key("split.count", "H", 3), key("split.count", "H", 4), "split.count: it is 4; expected is 3"),
        (2, text("split.no"), text("split.na"), "split.no: it is -1; expected is 1"),
        (1, key("split.count", "H", 3), key("split.count", "H", 9), "split.no: it is 0 of 9; open the first"),
        (
            1,
            key("split.tensors.count", "i", 5),
            key("split.tensors.count", "i", 6),
            "split.tensors.count: it is 6, and the shards have 5 tensors",
        ),
        (2, text("t2"), text("t1"), "t1: it stands in another shard too"),
    ],
)
def test_a_shard_that_does_not_fit_names_its_field(
    tmp_path: Path, shard: int, before: bytes, after: bytes, words: str
) -> None:
    shards = write_shards(tmp_path)
    edit(shards[shard - 1], before, after)
    with pytest.raises(ModelLoadError, match=rf"model-0000{shard}-of-00003\.gguf: {words}"):
        read_gguf(shards[0])


@pytest.mark.parametrize("value", [2**63, 2**64 - 1])
def test_a_huge_number_of_shards_is_refused(path: Path, value: int) -> None:
    claim = text("split.count") + struct.pack("<IQ", 10, value)
    with pytest.raises(ModelLoadError, match=rf"changed\.gguf: split\.no: it is 0 of {value}; open the first"):
        read(path, header(keys=1) + claim)


def test_a_number_of_shards_that_is_no_number_is_refused(path: Path) -> None:
    claim = text("split.count") + struct.pack("<I", 8) + text("two")
    with pytest.raises(ModelLoadError, match=r"changed\.gguf: split\.count: it is 'two'; a whole number was expected"):
        read(path, header(keys=1) + claim)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"absent\.gguf: cannot be read"):
        read_gguf(tmp_path / "absent.gguf")
