"""Every kernel module has the functions of the reference, and gives what it gives."""

import inspect
import math
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType

import pytest
import torch

from tests.llm import tiny
from trackbed.llm.batch import BLOCK
from trackbed.llm.kernels import cpu, kernels_for, reference
from trackbed.llm.kernels.cpu import _cpu
from trackbed.llm.kernels.layer import Layer

MODULES = [cpu]
# Sums of a few hundred products in other orders, in units of the dtype's rounding.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
ODD = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 576, 577]
HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE = 6, 2, 10, 37

Case = Callable[[ModuleType, torch.dtype], torch.Tensor]


def functions(module: ModuleType) -> dict[str, inspect.Signature]:
    """The kernels of a module: what is public and no name of another's."""
    names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    found = {name: getattr(module, name) for name in names}
    return {name: inspect.signature(value) for name, value in found.items() if isinstance(value, FunctionType)}


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def within_nan(rows: int, n: int, dtype: torch.dtype) -> torch.Tensor:
    """Random rows with NaN before, between and after them."""
    around = torch.full((rows + 2, n + 5), math.nan, dtype=dtype)
    around[1:-1, 2 : n + 2] = random(rows, n, dtype=dtype)
    return around[1:-1, 2 : n + 2]


def caches(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values with NaN wherever no token of `ragged` has its own."""
    keys, values = (torch.full((12, BLOCK, KV_HEADS, HEAD_DIM), math.nan, dtype=dtype) for _ in range(2))
    for context, table in zip(RAGGED.contexts, RAGGED.tables, strict=True):
        for place in range(context):
            for cache in (keys, values):
                cache[table[place // BLOCK], place % BLOCK] = random(KV_HEADS, HEAD_DIM + place, dtype=dtype)[:, place:]
    return keys, values


RAGGED = tiny.batch(([1] * 20, 0, [3, 1]), ([1], 36, [7, 2, 5]), ([1] * 5, 13, [9, 8]), ([1], 0, [0]))
TOKENS = len(RAGGED.tokens)


def turns(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    angles = random(TOKENS, HEAD_DIM // 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def layer(hidden: int, dtype: torch.dtype) -> Layer:
    return Layer(
        attention_norm=random(hidden, dtype=dtype),
        qkv=random((HEADS + 2 * KV_HEADS) * HEAD_DIM, hidden, dtype=dtype) / hidden**0.5,
        output=random(hidden, HEADS * HEAD_DIM, dtype=dtype) / (HEADS * HEAD_DIM) ** 0.5,
        mlp_norm=random(hidden, dtype=dtype),
        gate_up=random(2 * INTERMEDIATE, hidden, dtype=dtype) / hidden**0.5,
        down=random(hidden, INTERMEDIATE, dtype=dtype) / INTERMEDIATE**0.5,
        eps=1e-5,
    )


def run_write_cache(k: ModuleType, dtype: torch.dtype) -> torch.Tensor:
    cache = torch.zeros(12, BLOCK, KV_HEADS, HEAD_DIM, dtype=dtype)
    k.write_cache(cache, within_nan(TOKENS, KV_HEADS * HEAD_DIM, dtype).view(-1, KV_HEADS, HEAD_DIM), RAGGED.slots)
    return cache


def run_decoder_layer(k: ModuleType, dtype: torch.dtype) -> torch.Tensor:
    keys, values = caches(dtype)
    out = k.decoder_layer(within_nan(TOKENS, 33, dtype), layer(33, dtype), keys, values, RAGGED, *turns(dtype))
    written = [cache.flatten(0, 1)[RAGGED.slots].flatten(1) for cache in (keys, values)]
    return torch.cat([out, *written], dim=1)


CASES: dict[str, list[Case]] = {
    "rms_norm": [
        lambda k, dtype, n=n: k.rms_norm(within_nan(3, n, dtype), random(n, dtype=dtype), 1e-5)  # type: ignore[misc]
        for n in ODD
    ],
    "linear": [
        lambda k, dtype, m=m, rows=rows: k.linear(within_nan(rows, 65, dtype), random(m, 65, dtype=dtype))  # type: ignore[misc]
        for m in (1, 2, 66, 97)
        for rows in (0, 1, 2, 8, 9, 33)
    ],
    "swiglu": [lambda k, dtype, n=n: k.swiglu(within_nan(3, 2 * n, dtype)) for n in ODD],  # type: ignore[misc]
    "rope": [lambda k, dtype: k.rope(random(TOKENS, HEADS, HEAD_DIM, dtype=dtype), *turns(dtype))],
    "write_cache": [run_write_cache],
    "read_cache": [
        lambda k, dtype, i=i: k.read_cache(caches(dtype)[0], RAGGED.tables[i], RAGGED.contexts[i])  # type: ignore[misc]
        for i in range(4)
    ],
    "attention": [lambda k, dtype: k.attention(random(TOKENS, HEADS, HEAD_DIM, dtype=dtype), *caches(dtype), RAGGED)],
    "decoder_layer": [run_decoder_layer],
}


@pytest.fixture(params=_cpu.available())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of this machine in turn."""
    before = _cpu.isa()
    _cpu.use(request.param)
    yield request.param
    _cpu.use(before)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_the_names_and_signatures_of_the_reference(module: ModuleType) -> None:
    assert functions(module) == functions(reference)


def test_every_kernel_has_a_case() -> None:
    assert CASES.keys() == functions(reference).keys()


@pytest.mark.usefixtures("isa", "threads")
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("name", CASES)
def test_a_kernel_gives_what_the_reference_gives(name: str, module: ModuleType, dtype: torch.dtype) -> None:
    for case in CASES[name]:
        found, expected = case(module, dtype), case(reference, dtype)
        bound = BOUNDS[dtype] * float(expected.abs().max()) if expected.numel() else 0.0
        torch.testing.assert_close(found, expected, rtol=0, atol=bound)


def test_rms_norm_writes_its_rows_and_nothing_else(isa: str) -> None:
    for n in ODD:
        x = random(3 * n)
        around = torch.full((3 * n + 40,), -1.0)
        _cpu.rms_norm(x.view(3, n), random(n), 1e-5, around[20:-20].view(3, n))
        torch.testing.assert_close(
            around[20:-20].view(3, n), reference.rms_norm(x.view(3, n), random(n), 1e-5), rtol=1e-5, atol=1e-6
        )
        assert (around[:20] == -1).all()
        assert (around[-20:] == -1).all()


def test_rms_norm_refuses_what_it_was_not_built_for() -> None:
    good, weight = torch.ones(2, 8), torch.ones(8)
    for x in (good.double(), good[0], good[:, ::2], good.T, good.to("meta")):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            _cpu.rms_norm(x, weight, 1e-5, torch.empty(2, 8))
    for out in (torch.empty(3, 8), torch.empty(2, 9)):
        with pytest.raises(ValueError, match=r"x and out are \[rows, n\]"):
            _cpu.rms_norm(good, weight, 1e-5, out)


def test_an_instruction_set_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"no 'mmx'; it has: .*generic"):
        _cpu.use("mmx")


def test_the_best_instruction_set_is_the_first_choice() -> None:
    assert _cpu.isa() == _cpu.available()[0]


def test_a_device_without_kernels_is_refused() -> None:
    assert kernels_for("cpu") is cpu
    with pytest.raises(ValueError, match="no kernels for device 'tpu'"):
        kernels_for("tpu")
