"""Weight formats pack and unpack as the gguf package does, bit for bit."""

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trackbed.llm.errors import UnknownQuant
from trackbed.llm.kernels import reference
from trackbed.llm.quant import QUANTS, quant

# Halves of a step among them, where rounding has to be the same; float16 holds scales up to 65,504.
values = st.floats(-1000, 1000, width=32) | st.integers(-254, 254).map(lambda n: n / 2)
weights = arrays.arrays(np.float32, st.tuples(st.integers(1, 3), st.sampled_from([32, 64, 96])), elements=values)


@pytest.mark.parametrize("name", QUANTS)
@given(weight=weights)
def test_packing_gives_the_bytes_of_the_gguf_package(name: str, weight: np.ndarray) -> None:
    kind = gguf.GGMLQuantizationType[name]
    packed = quant(name).pack(torch.tensor(weight))
    expected = gguf.quants.quantize(weight, kind)
    np.testing.assert_array_equal(packed.numpy(), expected)
    np.testing.assert_array_equal(quant(name).unpack(packed).numpy(), gguf.quants.dequantize(expected, kind))


@pytest.mark.parametrize(("name", "steps"), [("Q8_0", 254), ("Q4_0", 14), ("Q4_1", 15)])
def test_a_round_trip_is_off_by_half_a_step_at_most(name: str, steps: int) -> None:
    weight = torch.randn(50, 256, generator=torch.Generator().manual_seed(0))
    found = quant(name).unpack(quant(name).pack(weight))
    blocks = weight.view(50, -1, 32)
    width = blocks.amax(-1) - blocks.amin(-1) if name == "Q4_1" else 2 * blocks.abs().amax(-1)
    # Q4_0's farthest weight is exact, and its other side ends a step earlier.
    bound = width / steps * (1 if name == "Q4_0" else 0.5)
    assert ((found - weight).view(50, -1, 32).abs().amax(-1) <= 1.01 * bound + 1e-3 * width).all()


@pytest.mark.parametrize("name", QUANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_multiplies_by_the_unpacked_weights(name: str, dtype: torch.dtype) -> None:
    packed, x = quant(name).pack(torch.randn(7, 64)), torch.randn(3, 64, dtype=dtype)
    found = quant(name).linear(x, packed, reference)
    torch.testing.assert_close(found, x @ quant(name).unpack(packed).to(dtype).T)


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownQuant, match=r"stored as Q6_K; .* F32, F16, BF16, Q4_0, Q4_1, Q8_0"):
        quant("Q6_K")
