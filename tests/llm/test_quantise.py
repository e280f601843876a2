"""A checkpoint in fewer bits, while it is loaded and on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.llm import tiny
from trackbed.llm.checkpoint import FORMATS, Safetensors, load_model
from trackbed.llm.errors import ModelLoadError
from trackbed.llm.kernels import cpu, plain_pass
from trackbed.llm.quantise import quantise_checkpoint
from trackbed.llm.stored import Coded

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "head_dim": 16}
IDS = list(range(3, 60))
BATCH = tiny.batch((IDS, 0, [4, 0, 2, 9]))
CODED: list[Coded] = ["int8", "int4", "int8_rows", "int4_rows"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "whole"
    tiny.make(**SIZES).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", CODED)
def test_the_file_holds_what_loading_makes_of_the_weights(folder: Path, tmp_path: Path, dtype: Coded) -> None:
    quantise_checkpoint(folder, tmp_path / "less", dtype)
    weights, whole = Safetensors(tmp_path / "less"), Safetensors(folder)
    for name in weights.tensors:
        stored = whole.read(name)
        looked_up = name in ("model.embed_tokens.weight", "lm_head.weight")
        loaded = cpu.encode(stored, "int8" if looked_up else dtype) if len(stored.shape) == 2 else stored
        np.testing.assert_array_equal(cpu.unpack(weights.read(name)), cpu.unpack(loaded))
    assert tiny.forward(load_model(tmp_path / "less"), BATCH).isfinite().all()
    sizes = [(path / "model.safetensors").stat().st_size for path in (folder, tmp_path / "less")]
    assert sizes[1] < sizes[0] * (0.35 if dtype.startswith("int8") else 0.28)


def test_more_bits_are_closer(folder: Path) -> None:
    exact = tiny.forward(load_model(folder, dtype="float32"), BATCH)
    off = {dtype: tiny.distance(tiny.forward(load_model(folder, dtype=dtype), BATCH), exact) for dtype in CODED}
    assert off["int8"] < 0.3
    assert off["int8"] < off["int4"]
    assert off["int8_rows"] < off["int4_rows"]


def test_what_stands_in_the_way_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"absent: is no folder"):
        quantise_checkpoint(tmp_path / "absent", tmp_path / "less", "int8")
    with pytest.raises(ModelLoadError, match=r"whole: is there already"):
        quantise_checkpoint(folder, folder, "int8")
    odd = tmp_path / "odd"
    tiny.make().save_pretrained(odd)
    with pytest.raises(ModelLoadError, match=r"down_proj.weight has 44 columns, no multiple of 32; set dtype instead"):
        quantise_checkpoint(odd, tmp_path / "less", "int8")
    assert not (tmp_path / "less").exists()
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(ModelLoadError, match="dtype is 'int4'; on cpu it is one of: auto, float32, bfloat16"):
        load_model(folder, dtype="int4", kernels=plain_pass)


@pytest.mark.parametrize("formats", ["[1]", "{", '{"a": "Q9"}', '{"a": 3}', "[" * 100_000])
def test_metadata_that_names_no_formats_is_refused(folder: Path, tmp_path: Path, formats: str) -> None:
    quantise_checkpoint(folder, tmp_path / "less", "int8")
    path = tmp_path / "less" / "model.safetensors"
    save_file(load_file(path), path, metadata={FORMATS: formats})
    with pytest.raises(ModelLoadError, match=r"model\.safetensors: trackbed\.formats: it does not name formats of"):
        load_model(tmp_path / "less")


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (34, r"up_proj\.weight is \[96, 32\]; its config expects \[96, 64\]"),
        (1, r"trackbed\.formats: '.*up_proj\.weight' is no tensor of bytes \(U8\) in rows of whole Q8_0 blocks"),
        (-1, r"trackbed\.formats: '.*up_proj\.weight' is no tensor of bytes \(U8\) in rows of whole Q8_0 blocks"),
    ],
)
def test_bytes_of_the_wrong_size_are_refused(folder: Path, tmp_path: Path, missing: int, words: str) -> None:
    quantise_checkpoint(folder, tmp_path / "less", "int8")
    path = tmp_path / "less" / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.0.mlp.up_proj.weight"
    found = tensors[name]
    tensors[name] = np.ascontiguousarray(np.pad(found, ((0, 0), (0, 1)))[:, : found.shape[1] - missing])
    save_file(
        tensors, path, metadata={FORMATS: json.dumps({name: "Q8_0" for name in tensors if tensors[name].ndim == 2})}
    )
    with pytest.raises(ModelLoadError, match=words):
        load_model(tmp_path / "less")
