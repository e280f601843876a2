"""A whole pass in plain PyTorch: what every other pass is compared with, and what runs where there is no other.

All weights become tensors of one dtype.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from trackbed.llm.batch import BLOCK, Batch
from trackbed.llm.config import ModelConfig
from trackbed.llm.errors import ModelLoadError
from trackbed.llm.kernels import cpu, reference
from trackbed.llm.kernels.layer import KVCache, Layer, Places
from trackbed.llm.quant import PLAIN, QUANTS, quant
from trackbed.llm.stored import CacheDType, DType, Stored, Take


class Pass:
    """A model's weights, ready to run."""

    def __init__(
        self,
        config: ModelConfig,
        take: Take,
        frequencies: npt.NDArray[np.float32],
        *,
        device: str = "cpu",
        dtype: DType = "auto",
        cache_dtype: CacheDType = "auto",
        threads: int | None = None,
    ) -> None:
        """`take` gives the weights, one by one; `frequencies` are RoPE's [head_dim / 2].

        Raises UnknownQuant, and ModelLoadError for a dtype that only other kernels have.
        """
        if cache_dtype != "auto":
            raise ModelLoadError(
                f"cache_dtype is {cache_dtype!r}; on {device} the cache is of the dtype of the weights"
            )
        if dtype not in ("auto", "float32", "bfloat16"):
            raise ModelLoadError(f"dtype is {dtype!r}; on {device} it is one of: auto, float32, bfloat16")
        self.config = config
        self.device = device
        self.dtype = torch.float32 if dtype == "auto" else getattr(torch, dtype)
        self.threads = threads

        def dense(name: str, layer: int, *shape: int) -> torch.Tensor:
            return unpack(take(name, layer, shape)).to(device, self.dtype)

        self.embedding = dense("embedding", 0, config.vocab_size, config.hidden_size)
        self.layers = [gather_layer(config, dense, i) for i in range(config.layers)]
        self.norm = dense("norm", 0, config.hidden_size)
        self.head = self.embedding if config.tied else dense("head", 0, config.outputs, config.hidden_size)
        self.frequencies = torch.from_numpy(frequencies).to(device)

    @property
    def weight_bytes(self) -> int:
        """The memory that the weights take."""
        products = [tensor for layer in self.layers for tensor in layer if isinstance(tensor, torch.Tensor)]
        return sum(tensor.nbytes for tensor in (*products, self.norm, self.head))

    @property
    def block_bytes(self) -> int:
        """The memory that a block of the cache takes, in bytes."""
        c = self.config
        return 2 * c.layers * BLOCK * c.kv_heads * c.head_dim * int(self.dtype.itemsize)

    def empty_cache(self, blocks: int) -> KVCache:
        """A cache of so many blocks."""
        return KVCache.empty(self.config, blocks, self.dtype, self.device)

    @torch.inference_mode()
    def forward(self, batch: Batch, cache: KVCache) -> npt.NDArray[np.float32]:
        """The logits of the wanted tokens, float32 [wanted, outputs]; the cache takes the new keys and values."""
        if self.threads:
            torch.set_num_threads(self.threads)
        k, places = reference, Places.of(batch, self.device)
        angles = places.positions[:, None] * self.frequencies  # [tokens, head_dim / 2]
        x = self.embedding[torch.tensor(batch.tokens, device=self.device)]  # [tokens, hidden]
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            x = k.decoder_layer(x, layer, keys, values, places, cos, sin)
        wanted = torch.tensor(batch.wanted, dtype=torch.int64, device=self.device)
        logits = k.linear(k.rms_norm(x[wanted], self.norm, self.config.norm_eps), self.head)
        found: npt.NDArray[np.float32] = logits.float().cpu().numpy()
        return found


def unpack(stored: Stored) -> torch.Tensor:
    """The weights as a tensor: float32, or the dtype that they are stored in. Raises ValueError for another format."""
    # A copy, since a tensor can be written to, and the map of a file cannot.
    raw = torch.from_numpy(stored.data.copy())
    if stored.kind in PLAIN:
        weights = raw.view(PLAIN[stored.kind]).view(stored.shape)
    elif stored.kind in QUANTS:
        weights = quant(stored.kind).unpack(raw.view(stored.shape[0], -1)).view(stored.shape)
    else:
        weights = torch.from_numpy(cpu.unpack(stored)).view(stored.shape)
    if stored.interleaved:
        pairs = weights.view(-1, stored.interleaved // 2, 2, stored.shape[1])
        weights = pairs.transpose(1, 2).reshape(stored.shape)
    return weights


def gather_layer(config: ModelConfig, dense: Callable[..., torch.Tensor], i: int) -> Layer:
    """The weights of layer `i`; `dense` gives them by name, layer and shape."""
    hidden, wide = config.hidden_size, config.intermediate_size
    heads, kv_heads = config.heads * config.head_dim, config.kv_heads * config.head_dim
    qkv = [dense("query", i, heads, hidden), dense("key", i, kv_heads, hidden), dense("value", i, kv_heads, hidden)]
    return Layer(
        attention_norm=dense("attention_norm", i, hidden),
        qkv=torch.cat(qkv),
        output=dense("output", i, hidden, heads),
        mlp_norm=dense("mlp_norm", i, hidden),
        gate_up=torch.cat([dense("gate", i, wide, hidden), dense("up", i, wide, hidden)]),
        down=dense("down", i, hidden, wide),
        eps=config.norm_eps,
    )
