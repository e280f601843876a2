"""A weight as its file stores it: what a checkpoint gives, and kernels take.

This file names the nouns. It knows neither files nor arithmetic.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

# As stored where the kernels can, else float32; or all in one dtype. Those of codes hold for weights that are stored as
# numbers: 8 or 4 bits, with a scale for each 32 neighbouring weights, or for each row.
Coded = Literal["int8", "int4", "int8_rows", "int4_rows"]
DType = Literal["auto", "float32", "bfloat16"] | Coded
# Keys and values in bfloat16, or float32 where all is; or in bytes, which take half of that.
CacheDType = Literal["auto", "int8"]


class Stored(NamedTuple):
    """A matrix or a vector, by rows."""

    kind: str  # F32, F16, BF16, or a name of QUANTS
    data: npt.NDArray[np.uint8]  # its bytes; they may be those of a mapped file
    shape: tuple[int, ...]
    interleaved: int = 0  # the size of heads whose two halves stand in turns, as llama.cpp's converter leaves them


Take = Callable[[str, int, tuple[int, ...]], Stored]  # our name, layer, shape -> weights
