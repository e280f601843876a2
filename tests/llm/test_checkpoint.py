"""Checkpoints of every storage become the same model; a wrong one is one clear sentence."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.llm import tiny
from trackbed.llm.batch import BLOCK
from trackbed.llm.checkpoint import load_model
from trackbed.llm.errors import ModelLoadError, UnknownModel, UnknownQuant
from trackbed.llm.kernels import cpu, plain_pass

IDS = list(range(3, 60))
TABLE = [4, 0, 2, 9]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
# Widths that Q4 and Q8 fit: their blocks hold 32 weights.
IN_BLOCKS = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "head_dim": 16}


def logits(path: Path) -> torch.Tensor:
    return tiny.forward(load_model(path, dtype="float32"), tiny.batch((IDS, 0, TABLE)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.make().save_pretrained(tmp_path)
    return tmp_path


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **changes}))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rope", [{"rope_type": "default", "rope_theta": 1e4}, LLAMA3], ids=["plain", "llama3"])
def test_gguf_gives_the_logits_of_transformers(tmp_path: Path, *, tied: bool, rope: dict[str, Any]) -> None:
    model = tiny.make(tie_word_embeddings=tied, rope_parameters=rope, head_dim=12)
    tiny.write_gguf(tmp_path / "model.gguf", model)
    with torch.inference_mode():
        expected = model(torch.tensor([IDS])).logits[0]
    assert tiny.distance(logits(tmp_path / "model.gguf"), expected) < 1e-4


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_1", "Q4_0"])
def test_stored_in_fewer_bits_the_logits_are_those_of_the_stored_weights(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.gguf"
    tiny.write_gguf(path, tiny.make(**IN_BLOCKS, tie_word_embeddings=True), kind)
    with torch.inference_mode():
        expected = tiny.read_gguf(path)(torch.tensor([IDS])).logits[0]
    assert tiny.distance(logits(path), expected) < 1e-4


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    tiny.write_gguf(tmp_path / "model.gguf", tiny.make(), shard=9)
    return sorted(tmp_path.glob("model-*.gguf"))


def test_the_first_shard_opens_the_whole_model(shards: list[Path], tmp_path: Path) -> None:
    assert len(shards) == 3
    tiny.write_gguf(tmp_path / "whole.gguf", tiny.make())
    assert torch.equal(logits(shards[0]), logits(tmp_path / "whole.gguf"))


def test_shards_that_do_not_fit_are_named(shards: list[Path], tmp_path: Path) -> None:
    first, second, third = shards
    with pytest.raises(ModelLoadError, match=r"00002-of-00003\.gguf: split\.no: it is 1 of 3; open the first shard"):
        load_model(second)
    content = third.read_bytes()
    third.unlink()
    with pytest.raises(ModelLoadError, match=r"model-00003-of-00003\.gguf: cannot be read"):
        load_model(first)
    third.write_bytes(second.read_bytes())
    with pytest.raises(ModelLoadError, match=r"model-00003-of-00003\.gguf: split\.no: it is 1; expected is 2"):
        load_model(first)
    third.write_bytes(content)
    renamed = first.rename(tmp_path / "other.gguf")
    with pytest.raises(ModelLoadError, match=r"other\.gguf: split\.no: .* named \.\.\.-00001-of-00003\.gguf"):
        load_model(renamed)


def test_a_config_of_transformers_4_says_the_same(tmp_path: Path) -> None:
    tiny.make(rope_parameters=LLAMA3).save_pretrained(tmp_path)
    expected = load_model(tmp_path).config
    scaling = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    edit_config(tmp_path, rope_parameters=None, rope_theta=500000.0, rope_scaling=scaling, head_dim=None)
    assert load_model(tmp_path).config == expected


def test_bfloat16_runs_close_to_float32(folder: Path) -> None:
    for kernels in (cpu, plain_pass):
        model = load_model(folder, dtype="bfloat16", kernels=kernels)
        assert tiny.distance(tiny.forward(model, tiny.batch((IDS, 0, TABLE))), logits(folder)) < 0.1


def test_a_block_takes_the_memory_that_it_is_said_to_take(folder: Path) -> None:
    plain = load_model(folder, dtype="bfloat16", kernels=plain_pass)
    cache = plain.empty_cache(7)
    assert cache.keys.shape[2] == BLOCK
    assert cache.keys.nbytes + cache.values.nbytes == 7 * plain.block_bytes
    exact, usual, small = (
        load_model(folder, dtype="float32"),
        load_model(folder),
        load_model(folder, cache_dtype="int8"),
    )
    for model in (exact, usual, small):
        assert model.empty_cache(7).bytes == 7 * model.block_bytes
    assert exact.block_bytes == 2 * usual.block_bytes == 2 * plain.block_bytes
    assert usual.block_bytes * 0.5 < small.block_bytes < usual.block_bytes  # with scales: heads are small here


def test_tensors_that_say_nothing_new_are_passed_over(folder: Path) -> None:
    edit_config(folder, tie_word_embeddings=True)  # and lm_head.weight is there all the same
    edit_tensors(folder, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    assert logits(folder).shape == (len(IDS), 131)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("model.norm.weight"), "tensor model.norm.weight is missing"),
        (lambda t: t.update(extra=torch.ones(1)), "1 tensors that a LlamaForCausalLM does not have: extra"),
        (
            lambda t: t.update({"model.layers.1.mlp.up_proj.weight": torch.ones(44, 33)}),
            r"tensor model.layers.1.mlp.up_proj.weight is \[44, 33\]; its config expects \[44, 32\]",
        ),
    ],
)
def test_a_missing_extra_or_misshapen_tensor_is_named(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], object], words: str
) -> None:
    edit_tensors(folder, change)
    with pytest.raises(ModelLoadError, match=f"{folder}: {words}"):
        load_model(folder)


def test_a_tensor_of_a_storage_that_is_not_read_is_named(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.update({"lm_head.weight": t["lm_head.weight"].to(torch.float8_e4m3fn)}))
    with pytest.raises(UnknownQuant, match=r"tensor lm_head\.weight: stored as F8_E4M3; .* F32, F16, BF16"):
        load_model(folder)


def test_a_gguf_storage_that_is_not_run_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    wide = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4, "head_dim": 64}
    tiny.write_gguf(path, tiny.make(**wide), "TQ1_0")
    with pytest.raises(UnknownQuant, match=r"model\.gguf: .*: stored as type 34, which is not known"):
        load_model(path)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"architectures": ["MistralForCausalLM"]}, UnknownModel, "'MistralForCausalLM'; .* LlamaForCausalLM"),
        ({"architectures": None}, ModelLoadError, "architectures is None"),
        ({"hidden_act": "gelu"}, ModelLoadError, "hidden_act is 'gelu'; only 'silu' is supported"),
        ({"attention_bias": True}, ModelLoadError, "attention_bias is True"),
        ({"mlp_bias": True}, ModelLoadError, "mlp_bias is True"),
        ({"rope_parameters": {"rope_type": "yarn"}}, ModelLoadError, "RoPE scaling of type 'yarn'; 'llama3' and"),
        ({"rope_parameters": {**LLAMA3, "factor": "8"}}, ModelLoadError, "factor is '8'; a number above zero"),
        ({"rope_parameters": {**LLAMA3, "high_freq_factor": 1.0}}, ModelLoadError, "high_freq_factor is 1.0; it must"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, ModelLoadError, "partial_rotary_factor is 0.5"),
        ({"rope_parameters": [1]}, ModelLoadError, r"the parameters of RoPE are \[1\]"),
        ({"vocab_size": None}, ModelLoadError, "vocab_size is None; a whole number was expected"),
        ({"num_hidden_layers": 0}, ModelLoadError, "layers is 0; it must be at least 1"),
        ({"num_key_value_heads": 3}, ModelLoadError, "4 heads cannot share 3 key-value heads evenly"),
        ({"head_dim": 7}, ModelLoadError, "the size of a head is 7; RoPE needs an even one"),
        ({"head_dim": 2**40}, ModelLoadError, "the size of a head is 1099511627776; it can be 65536 at most"),
        ({"rms_norm_eps": float("nan")}, ModelLoadError, "rms_norm_eps is nan"),
        ({"rms_norm_eps": 10**400}, ModelLoadError, "rms_norm_eps is 1000"),
    ],
)
def test_a_config_that_is_not_supported_says_why(
    folder: Path, changes: dict[str, Any], kind: type[ModelLoadError], words: str
) -> None:
    edit_config(folder, **changes)
    with pytest.raises(kind, match=words) as caught:
        load_model(folder)
    assert str(caught.value).startswith(f"{folder / 'config.json'}: ")


@pytest.mark.parametrize(
    ("metadata", "kind", "words"),
    [
        ({"general__architecture": "qwen2"}, UnknownModel, "its architecture is 'qwen2'; the runtime runs: llama"),
        ({"llama__expert_count": 8}, ModelLoadError, "llama.expert_count is 8; mixtures of experts"),
        ({"llama__rope__scaling__type": "yarn"}, ModelLoadError, "llama.rope.scaling.type is 'yarn'"),
        ({"llama__rope__dimension_count": 4}, ModelLoadError, "RoPE turns 4 of a head's 8 values"),
        ({"llama__block_count": 3}, ModelLoadError, "tensor blk.2.attn_q.weight is missing"),
        ({"llama__block_count": 1}, ModelLoadError, "9 tensors that a LlamaForCausalLM does not have: blk.1.attn_k"),
    ],
)
def test_a_gguf_file_that_is_not_supported_says_why(
    tmp_path: Path, metadata: dict[str, str | int], kind: type[ModelLoadError], words: str
) -> None:
    path = tmp_path / "model.gguf"
    tiny.write_gguf(path, tiny.make(), **metadata)
    with pytest.raises(kind, match=words) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_config_that_cannot_be_read_is_named(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"config\.json: "):
        load_model(folder)


@pytest.mark.parametrize(
    "content", ["", "{}", '{"weight_map": 1}', '{"weight_map": {"a": "../b"}}', '{"weight_map": {"a": ["b"]}}']
)
def test_an_index_that_cannot_be_read_is_named(folder: Path, content: str) -> None:
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ModelLoadError, match=r"model\.safetensors\.index\.json: "):
        load_model(folder)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_weights_cut_short_are_named(folder: Path, share: float) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ModelLoadError, match=r"model\.safetensors: (cannot be read|.*it is truncated or damaged)"):
        load_model(folder)


def test_a_checkpoint_in_shards_is_the_same_model(folder: Path) -> None:
    expected = logits(folder)
    (folder / "model.safetensors").unlink()
    tiny.make().save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    assert torch.equal(logits(folder), expected)


@pytest.mark.parametrize(
    ("formats", "words"),
    [
        ("[", "it does not name formats of: Q8_0, Q4_1"),
        ("[1]", "it does not name formats of"),
        ('{"a": "Q9_9"}', "it does not name formats of"),
        ('{"absent": "Q8_0"}', "'absent' is no tensor of bytes"),
        ('{"floats": "Q8_0"}', "'floats' is no tensor of bytes"),
        ('{"vector": "Q8_0"}', "'vector' is no tensor of bytes"),
        ('{"odd": "Q8_0"}', r"'odd' is no tensor of bytes \(U8\) in rows of whole Q8_0 blocks"),
    ],
)
def test_formats_that_do_not_fit_the_tensors_are_named(folder: Path, formats: str, words: str) -> None:
    odd = {"floats": torch.ones(2, 34), "vector": torch.ones(34).byte(), "odd": torch.ones(2, 35).byte()}
    save_file(odd, folder / "model.safetensors", metadata={"trackbed.formats": formats})
    with pytest.raises(ModelLoadError, match=rf"model\.safetensors: trackbed\.formats: {words}"):
        load_model(folder)


@given(flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 255)), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_a_safetensors_file_with_flipped_bits_is_run_or_refused(unchanged: Path, flips: list[tuple[int, int]]) -> None:
    path = unchanged / "model.safetensors"
    whole = path.read_bytes()
    content = bytearray(whole)
    size = 8 + int.from_bytes(whole[:8], "little")
    for place, bits in flips:
        content[place % size] ^= bits
    # Another file: the old one may be mapped still.
    path.unlink()
    path.write_bytes(content)
    try:
        with contextlib.suppress(ModelLoadError):
            load_model(unchanged)
    finally:
        path.unlink()
        path.write_bytes(whole)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(LLAMA3)), inner),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unchanged")
    model = tiny.make(**IN_BLOCKS, num_hidden_layers=1)
    model.save_pretrained(folder)
    tiny.write_gguf(folder / "model.gguf", model, "Q8_0")
    return folder


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_config_is_run_or_refused(unchanged: Path, data: st.DataObject) -> None:
    path = unchanged / "config.json"
    whole = path.read_text()
    key = data.draw(st.sampled_from(sorted(json.loads(whole))))
    edit_config(unchanged, **{key: data.draw(json_values)})
    with contextlib.suppress(ModelLoadError):
        load_model(unchanged)
    path.write_text(whole)


@given(flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 255)), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_a_gguf_file_with_flipped_bits_is_run_or_refused(unchanged: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray((unchanged / "model.gguf").read_bytes())
    for place, bits in flips:
        content[place] ^= bits
    path = unchanged / "flipped.gguf"
    path.write_bytes(content)
    with contextlib.suppress(ModelLoadError):
        load_model(path)


def test_a_quantised_norm_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    tiny.write_gguf(path, tiny.make(**IN_BLOCKS, tie_word_embeddings=True), "Q8_0", norms="Q8_0")
    with torch.inference_mode():
        expected = tiny.read_gguf(path)(torch.tensor([IDS])).logits[0]
    assert tiny.distance(logits(path), expected) < 1e-4


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ModelLoadError, match=missing):
        load_model(folder)


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="absent: there is no such file or folder"):
        load_model(tmp_path / "absent")


def test_reading_a_config_needs_no_torch() -> None:
    code = "import sys, trackbed.llm, trackbed.llm.config, trackbed.llm.gguf; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
