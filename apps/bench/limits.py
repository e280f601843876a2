"""What this machine and a model's weights allow at most, in tokens a second.

Reading a prompt is bound by multiplications of bytes, writing by the bytes of the weights, which each pass reads
once. This file knows tensors' names and sizes. It knows nothing of how fast anybody is.
"""

from dataclasses import dataclass
from pathlib import Path

from trackbed.apps.bench.case import Case
from trackbed.llm.config import ModelConfig, read_gguf_config
from trackbed.llm.gguf import read_gguf

CACHED = 2  # bytes of a value in the cache: 16 bits


@dataclass(frozen=True, slots=True)
class Limits:
    """Rates that loops reach which do nothing else: each in units of one a second."""

    read: float  # bytes
    int8: float  # multiplications and additions of bytes
    float32: float  # the same of floats
    instructions: str  # that the bytes are multiplied by

    def or_more(self, other: "Limits") -> "Limits":
        """The larger of each rate: what else a machine does lowers what is seen, and never raises it."""
        return Limits(
            max(self.read, other.read),
            max(self.int8, other.int8),
            max(self.float32, other.float32),
            self.instructions,
        )

    def as_told(self) -> dict[str, float]:
        """The rates by their names with units."""
        return {
            "read GB/s": self.read / 1e9,
            f"int8 GOPS ({self.instructions})": self.int8 / 1e9,
            "float32 GFLOPS": self.float32 / 1e9,
        }


def measure_limits(threads: int) -> Limits:
    """The limits of so many threads, in about a second."""
    from trackbed.llm.kernels.cpu import _cpu

    return Limits(_cpu.read_rate(threads), _cpu.int8_rate(threads), _cpu.float_rate(threads), _cpu.int8_instructions())


@dataclass(frozen=True, slots=True)
class Weights:
    """What a pass has to read and to multiply."""

    config: ModelConfig
    multiplied: int  # weights by which each token of a prompt is multiplied; the head only takes the last
    size: int  # bytes of all that a token is multiplied by, the head too
    values: int  # of all tensors

    @classmethod
    def read(cls, path: Path) -> "Weights | None":
        """Those of a GGUF file; None for a folder, which no row has a limit for. Raises ModelLoadError."""
        if path.is_dir():
            return None
        file = read_gguf(path)
        config = read_gguf_config(file)
        head = "token_embd.weight" if config.tied else "output.weight"
        within = [tensor for name, tensor in file.tensors.items() if name.startswith("blk.") and len(tensor.shape) > 1]
        read = [*within, file.tensors[head]]
        counts = {tensor.name: tensor.shape[0] * tensor.shape[-1] for tensor in file.tensors.values()}
        multiplied = sum(counts[tensor.name] for tensor in within)
        return cls(config, multiplied, sum(tensor.size for tensor in read), sum(counts.values()))

    def limit(self, case: Case, limits: Limits) -> float | None:
        """The tokens a second of a case that nobody can beat; None where that is not only products of weights."""
        c = self.config
        if case.work == "prefill":
            return limits.int8 / (2 * self.multiplied)
        if case.work in ("decode", "decode at"):
            cache = 2 * c.layers * c.kv_heads * c.head_dim * CACHED * case.depth
            return limits.read / (self.size + cache)
        if case.work == "batch":
            return min(case.tokens * limits.read / self.size, limits.int8 / (2 * self.multiplied))
        return None
