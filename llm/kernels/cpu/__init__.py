"""The kernels for CPUs, in C++: a whole pass in one call, and each of its parts by itself.

Weights are packed once for the kernels and stay in as many bits as the file has; activations meet them as bytes,
quantised in groups of 32, and before the head as two bytes each. Arrays are NumPy's: nothing here needs PyTorch.
"""

import numpy as np
import numpy.typing as npt

from trackbed.llm.batch import Batch
from trackbed.llm.config import ModelConfig
from trackbed.llm.kernels.cpu import _cpu
from trackbed.llm.stored import CacheDType, Coded, DType, Stored, Take

Floats = npt.NDArray[np.float32]


class Pass:
    """A model's packed weights, ready to run."""

    def __init__(
        self,
        config: ModelConfig,
        take: Take,
        frequencies: Floats,
        *,
        device: str = "cpu",
        dtype: DType = "auto",
        cache_dtype: CacheDType = "auto",
        threads: int | None = None,
    ) -> None:
        """`take` gives the weights, one by one; `frequencies` are RoPE's [head_dim / 2]. Raises UnknownQuant."""
        assert device == "cpu", "these kernels run nowhere else"
        self.config = config
        self.threads = threads or _cpu.cores()
        exact = "float32" if dtype == "float32" else "bfloat16"
        self.cache_dtype = exact if cache_dtype == "auto" else cache_dtype
        hidden, wide = config.hidden_size, config.intermediate_size
        heads, kv_heads = config.heads * config.head_dim, config.kv_heads * config.head_dim

        def matrix(name: str, layer: int, rows: int, columns: int) -> _cpu.Weight:
            return pack(take(name, layer, (rows, columns)), dtype, self.threads)

        def norm(name: str, layer: int) -> list[float]:
            return [float(weight) for weight in unpack(take(name, layer, (hidden,)))[0]]

        layers = []
        for i in range(config.layers):
            products = [
                matrix("query", i, heads, hidden),
                matrix("key", i, kv_heads, hidden),
                matrix("value", i, kv_heads, hidden),
                matrix("output", i, hidden, heads),
                matrix("gate", i, wide, hidden),
                matrix("up", i, wide, hidden),
                matrix("down", i, hidden, wide),
            ]
            layers.append((norm("attention_norm", i), norm("mlp_norm", i), products))
        # A row of it is looked up as it is stored, so the file's own bytes serve.
        embedding = take("embedding", 0, (config.vocab_size, hidden))
        # Logits are told apart by less than 4 bits can say; and those of a few labels cost nothing.
        head_dtype: DType = {"int4": "int8", "int4_rows": "int8_rows"}.get(dtype, dtype)  # type: ignore[assignment]
        head_dtype = head_dtype if config.labels is None else "float32"
        stored_head = take("embedding" if config.tied else "head", 0, (config.outputs, hidden))
        head = pack(stored_head, head_dtype, self.threads)
        sizes = (config.vocab_size, hidden, wide, config.heads, config.kv_heads, config.head_dim)
        self._model = _cpu.Model(
            sizes, config.norm_eps, embedding.kind, embedding.data, layers, norm("norm", 0), head, frequencies.tolist()
        )

    @property
    def block_bytes(self) -> int:
        """The memory that a block of the cache takes, in bytes."""
        return _cpu.block_bytes(self.config.layers, self.config.kv_heads, self.config.head_dim, self.cache_dtype)

    @property
    def weight_bytes(self) -> int:
        """The memory that the packed weights take."""
        return self._model.bytes

    def empty_cache(self, blocks: int) -> _cpu.Cache:
        """A cache of so many blocks. Memory is taken as blocks are used."""
        return _cpu.Cache(self.config.layers, blocks, self.config.kv_heads, self.config.head_dim, self.cache_dtype)

    def forward(self, batch: Batch, cache: _cpu.Cache) -> Floats:
        """The logits of the wanted tokens, float32 [wanted, outputs]; the cache takes the new keys and values."""
        logits = np.empty((len(batch.wanted), self.config.outputs), np.float32)
        self._model.forward(
            batch.tokens, batch.lengths, batch.contexts, batch.tables, batch.wanted, cache, self.threads, logits
        )
        return logits


def pack(stored: Stored, dtype: DType = "auto", threads: int = 1) -> _cpu.Weight:
    """A matrix in panels, in the bits that it is stored in, or all of it in one dtype."""
    target = "stored" if dtype == "auto" else dtype
    rows, columns = stored.shape
    return _cpu.pack(stored.kind, stored.data, rows, columns, target, stored.interleaved, threads)


def encode(stored: Stored, dtype: Coded, threads: int = 1) -> Stored:
    """Numbers as codes, in the blocks of GGUF's Q8_0 or Q4_1: what `pack` makes of them with this dtype.

    [rows, columns] -> [rows, columns to the next 32]
    """
    kind, size = ("Q8_0", 34) if dtype.startswith("int8") else ("Q4_1", 20)
    rows, columns = stored.shape
    blocks = np.empty(rows * -(-columns // 32) * size, np.uint8)
    _cpu.encode(stored.kind, stored.data, rows, columns, dtype, blocks, threads)
    return Stored(kind, blocks, (rows, -(-columns // 32) * 32), stored.interleaved)


def unpack(stored: Stored) -> Floats:
    """The weights as numbers, float32 [rows, columns]; a vector is one row."""
    *rows, columns = stored.shape
    out = np.empty((rows[0] if rows else 1, columns), np.float32)
    _cpu.unpack(stored.kind, stored.data, out)
    return out


def rms_norm(x: Floats, weight: Floats, eps: float) -> Floats:
    """x / sqrt(mean(x^2) + eps) * weight: [rows, n], [n] -> [rows, n]."""
    out = np.empty_like(x)
    _cpu.rms_norm(x, weight, eps, out)
    return out


def quantise(x: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Groups of 32 as codes from -127 to 127 and a scale each: [rows, n] -> [rows, width], [rows, width / 32]."""
    width = -(-x.shape[1] // 32) * 32
    codes, scales = np.empty((len(x), width), np.int8), np.empty((len(x), width // 32), np.float32)
    _cpu.quantise(x, codes, scales)
    return codes, scales


def swiglu(gate: Floats, up: Floats) -> Floats:
    """silu(gate) * up: [rows, n], n a multiple of 32."""
    out = np.empty_like(gate)
    _cpu.swiglu(gate, up, out)
    return out


def gelu(x: Floats) -> Floats:
    """x Phi(x), Phi the normal distribution's: [rows, n], rows * n a multiple of 32."""
    out = x.copy()
    _cpu.gelu(out)
    return out


def rope(heads: Floats, cosines: Floats, sines: Floats, scale: float = 1.0) -> Floats:
    """Each head's pairs (i, i + head_dim / 2), turned and scaled: [heads, head_dim], twice [head_dim / 2]."""
    turned = heads.copy()
    _cpu.rope(turned, cosines, sines, scale)
    return turned


def sample(logits: Floats, temperature: float, top_p: float, drawn: float) -> int:
    """The token at which the nucleus's weights, added up in order, reach `drawn` (0 to 1) of their sum: [vocab]."""
    return _cpu.sample(logits, temperature, top_p, drawn)


def attention(query: Floats, cache: _cpu.Cache, layer: int, table: list[int], context: int) -> Floats:
    """softmax(q k^T) v of a sequence's last tokens, q scaled already: [tokens, heads, head_dim]."""
    out = np.empty_like(query)
    _cpu.attention(query, cache, layer, table, context, out)
    return out


def linear(x: Floats, weight: _cpu.Weight, threads: int = 1) -> Floats:
    """x W^T of a packed weight, x quantised where the weight is: [rows, n], [m, n] -> [rows, m]."""
    out = np.empty((len(x), weight.shape[0]), np.float32)
    _cpu.linear(x, weight, out, threads)
    return out
