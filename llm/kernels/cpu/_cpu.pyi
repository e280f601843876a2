"""Native kernels for CPUs, and the whole pass of a model."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float32]

def available() -> list[str]:
    """The instruction sets that this processor runs, best first."""

def isa() -> str:
    """The instruction set in use."""

def use(isa: str) -> None:
    """Use this instruction set from now on. Raises ValueError where there is none."""

def cores() -> int:
    """How many cores this process may use."""

class Weight:
    """A matrix in panels."""

    @property
    def bytes(self) -> int:
        """The memory that it takes."""
    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

class Cache:
    """Keys and values of all layers, in blocks of 16 tokens: float32, bfloat16 or int8."""

    def __init__(self, layers: int, blocks: int, kv_heads: int, head_dim: int, dtype: str = "bfloat16") -> None: ...
    @property
    def bytes(self) -> int:
        """The memory that it takes once all blocks are used."""
    def fill(self, value: float) -> None:
        """Put one number everywhere."""

class Model:
    """A Llama with its weights packed."""

    def __init__(
        self,
        sizes: tuple[int, int, int, int, int, int],
        eps: float,
        format: str,
        embedding: NDArray[np.uint8],
        layers: Sequence[tuple[list[float], list[float], list[Weight]]],
        norm: list[float],
        head: Weight,
        frequencies: list[float],
    ) -> None:
        """`sizes` are vocab, hidden, intermediate, heads, kv_heads and head_dim; a layer is its two norms, and query,
        key, value, output, gate, up and down. Raises ValueError where shapes do not fit one another."""
    @property
    def bytes(self) -> int:
        """The memory that the packed weights take."""
    def forward(
        self,
        ids: Sequence[int],
        lengths: Sequence[int],
        contexts: Sequence[int],
        tables: Sequence[Sequence[int]],
        wanted: Sequence[int],
        cache: Cache,
        threads: int,
        logits: _Floats,
    ) -> None:
        """Put the logits of the wanted tokens in [wanted, head's rows]; the cache takes the new keys and values."""

def pack(
    format: str,
    data: NDArray[np.uint8],
    rows: int,
    columns: int,
    target: str = "stored",
    head_dim: int = 0,
    threads: int = 1,
) -> Weight:
    """A matrix as a file stores it, in panels. Raises ValueError where format and sizes do not fit."""

def encode(
    format: str,
    data: NDArray[np.uint8],
    rows: int,
    columns: int,
    target: str,
    blocks: NDArray[np.uint8],
    threads: int = 1,
) -> None:
    """Numbers as codes, in blocks of GGUF's Q8_0 or Q4_1."""

def unpack(format: str, data: NDArray[np.uint8], out: _Floats) -> None:
    """The numbers of a matrix as a file stores it, float32 [rows, columns]."""

def rms_norm(x: _Floats, weight: _Floats, eps: float, out: _Floats) -> None:
    """out = x / sqrt(mean(x^2) + eps) * weight, for float32 [rows, n] and [n]."""

def linear(x: _Floats, weight: Weight, out: _Floats, threads: int = 1) -> None:
    """out = x W^T, for float32 [rows, n] and [rows, m]."""

def quantise(x: _Floats, codes: NDArray[np.int8], scales: _Floats) -> None:
    """Groups of 32 of float32 [rows, n] as codes from -127 to 127, and a scale each."""

def gelu(x: _Floats) -> None:
    """x Phi(x), in place."""

def swiglu(gate: _Floats, up: _Floats, out: _Floats) -> None:
    """out = silu(gate) * up."""

def rope(heads: _Floats, cosines: _Floats, sines: _Floats, scale: float) -> None:
    """Turn the pairs (i, i + head_dim / 2) of each head in place, and scale it."""

def block_bytes(layers: int, kv_heads: int, head_dim: int, dtype: str) -> int:
    """The memory of one block in all layers."""

def sample(logits: _Floats, temperature: float, top_p: float, drawn: float) -> int:
    """The token of the nucleus at which its weights, added up, reach `drawn` of their sum."""

def write_cache(cache: Cache, layer: int, slots: Sequence[int], keys: _Floats, values: _Floats) -> None:
    """Put keys and values [tokens, kv_heads, head_dim] in their slots."""

def attention(query: _Floats, cache: Cache, layer: int, table: Sequence[int], context: int, out: _Floats) -> None:
    """softmax(q k^T) v for the last tokens of one sequence; q is scaled already."""

def read_rate(threads: int) -> float:
    """The bytes that so many threads read from memory in a second."""

def int8_rate(threads: int) -> float:
    """The multiplications and additions of bytes that so many threads do in a second."""

def int8_instructions() -> str:
    """The instructions that int8_rate is of."""

def float_rate(threads: int) -> float:
    """The multiplications and additions of float32 that so many threads do in a second."""
