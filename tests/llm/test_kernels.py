"""Every native kernel gives what the reference gives, with each instruction set that this machine has."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.llm import tiny
from trackbed.llm.batch import BLOCK
from trackbed.llm.kernels import cpu, kernels_for, plain_pass, reference
from trackbed.llm.kernels.cpu import _cpu
from trackbed.llm.kernels.layer import Places
from trackbed.llm.stored import Coded, Stored

Floats = npt.NDArray[np.float32]

ODD = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 576, 577]
# Where in a block of GGUF's the float16 factors stand, so that random bytes around them are a valid block.
FACTORS = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "IQ4_NL": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}
NUMBERS = ["F32", "F16", "BF16"]
# Scales of the K formats are products, and rounded to float16; those of the others are kept as they are.
K_ROUNDING = 2.0**-11
SUMS = 2e-6  # float32 sums of some hundred products, as a share of the sum of what they are made of


@pytest.fixture(params=_cpu.available())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of this machine in turn."""
    before = _cpu.isa()
    _cpu.use(request.param)
    yield request.param
    _cpu.use(before)


def in_bytes(rows: torch.Tensor) -> torch.Tensor:
    """Each head's numbers as codes from -127 to 127 times a scale."""
    largest = rows.abs().amax(-1, keepdim=True)
    return (rows * (torch.tensor(127.0) / largest)).round() * (largest / 127)


# What keys and values become where they are kept.
KEPT = {"float32": torch.Tensor.float, "bfloat16": lambda rows: rows.bfloat16().float(), "int8": in_bytes}


def random(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def within_nan(x: Floats) -> Floats:
    """The same rows, aligned to nothing, with NaN right before and after them."""
    around = np.full(x.size + 11, math.nan, np.float32)
    rows = around[3 : 3 + x.size].reshape(x.shape)
    rows[...] = x
    return rows


def stored_at_random(kind: str, rows: int, columns: int, seed: int) -> Stored:
    """Weights of any format: random numbers, or random blocks whose factors are of a likely size."""
    rng = np.random.default_rng([seed, rows, columns])
    quantised = gguf.GGMLQuantizationType[kind]
    if kind in NUMBERS:
        packed = gguf.quants.quantize(rng.standard_normal((rows, columns)).astype(np.float32), quantised)
        return Stored(kind, np.ascontiguousarray(packed).view(np.uint8).reshape(-1), (rows, columns))
    weights, size = gguf.GGML_QUANT_SIZES[quantised]
    blocks = rng.integers(0, 256, (rows, columns // weights, size), dtype=np.uint8)
    for place in FACTORS[kind]:
        factors = rng.uniform(0.001, 0.02, blocks.shape[:2]).astype(np.float16)
        blocks[..., place : place + 2] = factors.view(np.uint8).reshape(*blocks.shape[:2], 2)
    return Stored(kind, blocks.reshape(-1), (rows, columns))


def dense(stored: Stored) -> torch.Tensor:
    """The weights as the gguf package unpacks them."""
    kind = gguf.GGMLQuantizationType[stored.kind]
    return torch.from_numpy(gguf.quants.dequantize(stored.data.reshape(stored.shape[0], -1), kind)).float()


@st.composite
def products(draw: st.DrawFn) -> tuple[Stored, Floats]:
    """A weight of any format, of sizes that fit no panel, and 1 to 67 rows to multiply with it."""
    kind = draw(st.sampled_from([*NUMBERS, *FACTORS]))
    block = 1 if kind in NUMBERS else gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0]
    columns = block * draw(st.integers(1, max(600 // block, 1)))
    rows, seed = draw(st.integers(1, 67)), draw(st.integers(0, 1000))
    stored = stored_at_random(kind, draw(st.integers(1, 100)), columns, seed)
    return stored, random(rows, columns, seed=seed)


@pytest.mark.parametrize("isa", _cpu.available())
@given(product=products(), threads=st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_a_product_is_that_of_the_reference(isa: str, product: tuple[Stored, Floats], threads: int) -> None:
    stored, x = product
    weights = dense(stored)
    multiply = reference.linear if stored.kind in NUMBERS else reference.quantised_linear
    expected = multiply(torch.from_numpy(x).double(), weights.double())
    before = _cpu.isa()
    _cpu.use(isa)
    try:
        found = cpu.linear(within_nan(x), cpu.pack(stored, threads=threads), threads)
    finally:
        _cpu.use(before)
    # What is added up, were it all of one sign.
    made_of = torch.from_numpy(np.abs(x)).double() @ magnitudes(stored, weights).double().T
    bound = made_of * (SUMS + (K_ROUNDING if stored.kind.endswith("_K") else 0)) + 1e-30
    assert found.shape == expected.shape
    assert (torch.from_numpy(found).double() - expected).abs().le(bound).all()


def magnitudes(stored: Stored, weights: torch.Tensor) -> torch.Tensor:
    """How large what a weight is made of can be: its code and its minimum cancel each other out."""
    return weights.abs() + weights.abs().amax() * (0 if stored.kind in NUMBERS else 2)


@pytest.mark.parametrize("kind", [*NUMBERS, *FACTORS])
def test_rows_are_unpacked_as_the_gguf_package_does(kind: str) -> None:
    stored = stored_at_random(kind, 5, 512, 3)
    np.testing.assert_allclose(cpu.unpack(stored), dense(stored).numpy(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(plain_pass.unpack(stored).float(), dense(stored), rtol=1e-6, atol=1e-9)
    in_float32 = cpu.linear(np.eye(512, dtype=np.float32), cpu.pack(stored, "float32"))
    np.testing.assert_array_equal(in_float32.T, cpu.unpack(stored))


def test_interleaved_heads_are_put_in_order() -> None:
    rows = np.arange(12, dtype=np.float32)[:, None]
    packed = cpu.pack(Stored("F32", np.ascontiguousarray(rows).view(np.uint8).reshape(-1), (12, 1), interleaved=6))
    assert cpu.linear(np.ones((1, 1), np.float32), packed)[0].tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0", "Q2_K", "Q6_K", "BF16"])
def test_an_output_does_not_depend_on_the_rows_beside_it(isa: str, kind: str) -> None:
    packed, x = cpu.pack(stored_at_random(kind, 70, 512, 5)), random(31, 512)
    together = cpu.linear(x, packed)
    for row in range(31):
        np.testing.assert_array_equal(cpu.linear(x[row : row + 1], packed)[0], together[row])


def test_activations_are_quantised_as_the_reference_does(isa: str) -> None:
    for n in ODD:
        x = random(3, n) * np.float32([[1e-20], [1], [1e20]])
        x[1, : n // 2] = 0
        codes, scales = cpu.quantise(within_nan(x))
        expected = reference.quantise(torch.from_numpy(x))
        np.testing.assert_array_equal(codes, expected[0].numpy())
        np.testing.assert_array_equal(scales, expected[1].numpy())


def test_activations_that_are_no_numbers_give_codes_all_the_same(isa: str) -> None:
    x = random(1, 64)
    x[0, 3], x[0, 40] = math.nan, math.inf
    codes, _ = cpu.quantise(x)
    assert codes.shape == (1, 64)


def test_rms_norm_is_that_of_the_reference_and_writes_nothing_else(isa: str) -> None:
    for n in ODD:
        x, weight = random(3, n), random(n)
        around = np.full(3 * n + 40, -1.0, np.float32)
        _cpu.rms_norm(within_nan(x), weight, 1e-5, around[20:-20].reshape(3, n))
        expected = reference.rms_norm(torch.from_numpy(x), torch.from_numpy(weight), 1e-5)
        np.testing.assert_allclose(around[20:-20].reshape(3, n), expected.numpy(), rtol=1e-5, atol=1e-6)
        assert (around[:20] == -1).all()
        assert (around[-20:] == -1).all()


def test_swiglu_is_that_of_the_reference(isa: str) -> None:
    gate, up = random(5, 96) * 8, random(5, 96, seed=1)
    gate[0, :6] = [0, -0.0, 100, -100, 88, -88]
    expected = reference.swiglu(torch.from_numpy(np.concatenate([gate, up], axis=1)))
    np.testing.assert_allclose(cpu.swiglu(gate, up), expected.numpy(), rtol=1e-6, atol=1e-30)


def test_gelu_is_that_of_the_reference(isa: str) -> None:
    x = np.concatenate([random(3, 96), random(3, 96, seed=1) * 8])
    x[0, :6] = [0, -0.0, 100, -100, 5.5, -5.5]
    # In 64 bits: with AVX-512, PyTorch's own values in 32 are off by up to 8e-7, and by half of one near 0. Where
    # 1 + erf is small it has lost digits, half a unit of 1 at most, and x, up to 6 where that counts, carries it on.
    expected = reference.gelu(torch.from_numpy(x).double())
    np.testing.assert_allclose(cpu.gelu(x), expected.numpy(), rtol=1e-6, atol=6 * 2**-24)


@pytest.mark.parametrize("head_dim", [2, 6, 10, 64, 128])
def test_rope_is_that_of_the_reference(isa: str, head_dim: int) -> None:
    heads, angles = random(3, head_dim), random(head_dim // 2)
    cosines, sines = np.cos(angles), np.sin(angles)
    expected = reference.rope(*(torch.from_numpy(a[None]) for a in (heads, cosines, sines)))[0]
    np.testing.assert_allclose(cpu.rope(heads, cosines, sines), expected.numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(cpu.rope(heads, cosines, sines, 0.5), expected.numpy() / 2, rtol=1e-6, atol=1e-6)


@st.composite
def sequences(draw: st.DrawFn) -> tuple[int, int, int, int, int, str]:
    """New tokens, context, key-value heads, heads for each of them, their size, and the dtype of the cache."""
    context = draw(st.one_of(st.integers(1, 70), st.integers(120, 140), st.integers(500, 1100)))
    new = draw(st.integers(1, min(context, 40)))
    head_dim = 2 * draw(st.integers(1, 40))
    return new, context, draw(st.integers(1, 3)), draw(st.integers(1, 9)), head_dim, draw(st.sampled_from(sorted(KEPT)))


@pytest.mark.parametrize("isa", _cpu.available())
@given(case=sequences())
@settings(max_examples=80, deadline=None)
def test_attention_is_that_of_the_reference(isa: str, case: tuple[int, int, int, int, int, str]) -> None:
    new, context, kv_heads, group, head_dim, dtype = case
    blocks = -(-context // BLOCK)
    table = list(range(blocks, 0, -1))
    cache = _cpu.Cache(1, blocks + 2, kv_heads, head_dim, dtype)
    cache.fill(math.nan)  # which shows wherever something is read that was not written
    keys, values = random(context, kv_heads, head_dim, seed=1), random(context, kv_heads, head_dim, seed=2)
    query = random(new, kv_heads * group, head_dim, seed=3)
    slots = [table[place // BLOCK] * BLOCK + place % BLOCK for place in range(context)]
    before = _cpu.isa()
    _cpu.use(isa)
    try:
        _cpu.write_cache(cache, 0, slots, keys, values)
        scale = np.float32(1 / math.sqrt(head_dim))
        found = cpu.attention(within_nan(query * scale), cache, 0, table, context)
        alone = cpu.attention(np.ascontiguousarray(query[-1:] * scale), cache, 0, table, context)
    finally:
        _cpu.use(before)
    np.testing.assert_array_equal(alone[0], found[-1])
    expected = reference_attention(query, keys, values, table, context, dtype)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * float(np.abs(values).max()))


def reference_attention(
    query: Floats, keys: Floats, values: Floats, table: list[int], context: int, dtype: str
) -> Floats:
    new, (_, kv_heads, head_dim) = len(query), keys.shape
    places = Places.of(tiny.batch(([0] * new, context - new, table)))
    every = Places.of(tiny.batch(([0] * context, 0, table)))
    kept = []
    for rows in (keys, values):
        cache = torch.zeros(len(table) + 2, BLOCK, kv_heads, head_dim)
        reference.write_cache(cache, KEPT[dtype](torch.from_numpy(rows)), every.slots)
        kept.append(cache)
    found: Floats = reference.attention(torch.from_numpy(query), *kept, places).numpy()
    return found


@pytest.mark.parametrize("isa", _cpu.available())
@given(
    size=st.integers(1, 400),
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.05, 5),
    top_p=st.floats(0.01, 1),
    drawn=st.floats(0, 1, exclude_min=True),
)
@example(size=16, seed=1, temperature=0.0625, top_p=1.0, drawn=4.3e-307)
@example(size=166, seed=364, temperature=0.0625, top_p=0.9999999999999999, drawn=5e-324)
@settings(max_examples=200, deadline=None)
def test_a_sample_is_that_of_the_reference(
    isa: str, size: int, seed: int, temperature: float, top_p: float, drawn: float
) -> None:
    logits = random(size, seed=seed) * 4
    logits[seed % size] = -math.inf if size > 1 else 0
    before = _cpu.isa()
    _cpu.use(isa)
    try:
        found = cpu.sample(within_nan(logits), temperature, top_p, drawn)
    finally:
        _cpu.use(before)
    # Where a sum of weights is as good as on the border, the last bits of float32 decide.
    near = [(1 + a) * top_p for a in (*(-(10.0**-n) for n in range(5, 17)), 0, 1e-5)]
    expected = {
        reference.sample(torch.from_numpy(logits), temperature, p, min(max(drawn + d, min(drawn, 1e-9)), 1.0))
        for p in near
        for d in (-1e-5, 0, 1e-36, 1e-5)  # weights below that, float32 does not have
    }
    assert found in expected


def test_samples_of_what_is_no_number_are_tokens_all_the_same(isa: str) -> None:
    for value in (math.nan, math.inf, -math.inf):
        assert 0 <= cpu.sample(np.full(9, value, np.float32), 1.0, 0.9, 0.5) < 9


def test_kernels_refuse_what_they_were_not_built_for() -> None:
    good, weight = np.ones((2, 8), np.float32), np.ones(8, np.float32)
    for x in (good.astype(np.float64), good[0], good[:, ::2], np.asfortranarray(good)):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            _cpu.rms_norm(x, weight, 1e-5, np.empty((2, 8), np.float32))
    for out in (np.empty((3, 8), np.float32), np.empty((2, 9), np.float32)):
        with pytest.raises(ValueError, match=r"x and out are \[rows, n\]"):
            _cpu.rms_norm(good, weight, 1e-5, out)
    packed = cpu.pack(stored_at_random("Q4_0", 3, 64, 0))
    with pytest.raises(ValueError, match=r"linear: x is \[rows, n\]"):
        cpu.linear(good, packed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "Q9_9"}, "no weight format 'Q9_9'; there are: F32, .*Q6_K"),
        ({"shape": (3, 65)}, "3 rows of 65 weights do not fit Q4_0, in blocks of 32"),
        ({"shape": (4, 64)}, "108 bytes are not 4 rows of 64 weights in Q4_0"),
        ({"shape": (0, 64)}, "0 rows of 64 weights"),
        ({"shape": (2**50, 64)}, "rows of 64 weights do not fit"),
        ({"interleaved": 2}, "3 rows are no whole number of heads of 2"),
    ],
)
def test_a_weight_whose_sizes_do_not_fit_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cpu.pack(stored_at_random("Q4_0", 3, 64, 0)._replace(**change))


def test_an_instruction_set_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"no 'mmx'; it has: .*generic"):
        _cpu.use("mmx")


def test_the_best_instruction_set_is_the_first_choice_and_another_can_be_forced() -> None:
    ask = [sys.executable, "-c", "from trackbed.llm.kernels.cpu import _cpu; print(_cpu.isa())"]

    def run(**forced: str) -> subprocess.CompletedProcess[str]:
        plain = {key: value for key, value in os.environ.items() if key != "TRACKBED_ISA"}
        return subprocess.run(ask, capture_output=True, text=True, env={**plain, **forced})

    assert run().stdout.strip() == _cpu.available()[0]
    assert run(TRACKBED_ISA="generic").stdout.strip() == "generic"
    assert "TRACKBED_ISA: this processor has no 'mmx'" in run(TRACKBED_ISA="mmx").stderr


def test_a_device_without_kernels_is_refused() -> None:
    assert kernels_for("cpu") is cpu
    assert kernels_for("cuda:0") is plain_pass
    with pytest.raises(ValueError, match="no kernels for device 'tpu'"):
        kernels_for("tpu")


@pytest.mark.parametrize("isa", _cpu.available())
@pytest.mark.parametrize("dtype", ["int8", "int4", "int8_rows", "int4_rows"])
@given(rows=st.integers(1, 70), columns=st.integers(1, 300), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_numbers_become_codes_that_are_off_by_half_a_step(
    isa: str, dtype: Coded, rows: int, columns: int, seed: int
) -> None:
    numbers = stored_at_random("F32", rows, columns, seed)
    exact, found = dense(numbers), dense(cpu.encode(numbers, dtype))[:, :columns]
    padded = torch.nn.functional.pad(exact, (0, -columns % 32), value=math.nan).view(rows, -1, 32)
    groups = exact[:, None] if dtype.endswith("rows") else padded
    most, least = groups.nan_to_num(-math.inf).amax(-1), groups.nan_to_num(math.inf).amin(-1)
    step = torch.maximum(most, -least) / 127 if dtype.startswith("int8") else (most - least) / 15
    # A scale of float16 is off by a 2048th, or by 2^-25 where it is tiny; and so are up to 127 or 15 steps of it, and
    # the minimum.
    bound = step * (0.5 + 127 / 2048) + (least.abs() / 2048 if dtype.startswith("int4") else 0) + 128 * 2.0**-25
    each = bound.expand(rows, padded.shape[1])[..., None].expand(padded.shape).flatten(1)[:, :columns]
    assert ((found - exact).abs() <= each).all()
    before = _cpu.isa()
    _cpu.use(isa)
    try:
        x = random(3, columns, seed=seed)
        as_codes = cpu.linear(np.pad(x, ((0, 0), (0, -columns % 32))), cpu.pack(cpu.encode(numbers, dtype)))
        np.testing.assert_array_equal(cpu.linear(x, cpu.pack(numbers, dtype)), as_codes)
    finally:
        _cpu.use(before)
