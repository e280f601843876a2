"""The GGUF files that the runtime is measured on: the shipped one, others derived from it, and random ones.

A random one has the shapes and the layout of a published Llama and weights that mean nothing, which is all that
speed depends on. Files are written once, whole or not at all, into a folder that may be deleted. This file knows
formats and shapes. It knows nothing of who reads them.
"""

import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SPREAD = 0.02  # of random weights, as models are initialised
SPARE = 1 << 30  # bytes that are left free on the disk
ORIGINAL_CONTEXT, LOW, HIGH = 8192, 1, 4  # of Llama 3.1's RoPE scaling (meta-llama/llama-models)
FILE_TYPES = {
    "Q4_0": 2,
    "Q4_1": 3,
    "Q8_0": 7,
    "Q5_0": 8,
    "Q5_1": 9,
    "Q4_K": 15,
}  # llama.cpp's llama_ftype; Q4_K is its Q4_K_M
SPECIALS = 256  # of the random vocabulary, after the tokens that are text

Written = Callable[[str, int, int], None]  # what is being written, how much is done, of how much
Tell = Callable[[str], None]


class NoRoom(Exception):
    """A file does not fit on the disk; the message says what it needs and where."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a published Llama."""

    layers: int
    hidden: int
    wide: int  # of the feed-forward part
    heads: int
    kv_heads: int
    head_dim: int
    rope_factor: float
    tied: bool
    vocabulary: int = 128_256
    rope_base: float = 500_000.0


# Of the models' config.json files.
SHAPES = {
    "llama-3.2-1b": Shape(16, 2048, 8192, 32, 8, 64, 32.0, tied=True),
    "llama-3.1-8b": Shape(32, 4096, 14336, 32, 8, 128, 8.0, tied=False),
}
# Values and bytes of a block, where its 16-bit scales are, and how large its codes times their scales are on average:
# the standard deviation of what the format unpacks, where codes are uniform and each 16-bit scale is 1.
BLOCKS = {"Q4_0": (32, 18, (0,), 4.61), "Q8_0": (32, 34, (0,), 73.9), "Q4_K": (256, 144, (0, 2), 257.0)}
OFFSET = 7.5  # of Q4_K: its minimum's scale beside that of the codes, which centres them


def make_random(
    folder: Path, shape: str, quant: str, report: Written, tell: Tell, shapes: Mapping[str, Shape] = SHAPES
) -> Path:
    """The file of a random model of that shape and format, written where it is not there yet. Raises NoRoom."""
    path = folder / f"{shape}-random.{quant}.gguf"
    if path.exists():
        return path
    sizes = shapes[shape]
    tensors = list(_tensors(sizes, quant))
    total = sum(_size(kind, rows * columns) for _, kind, rows, columns in tensors)
    with making(path, total, tell) as part:
        _write_random(part, shape, sizes, quant, tensors, lambda done: report(f"writing {path.name}", done, total))
    return path


def derive(folder: Path, source: Path, quant: str, report: Written, tell: Tell) -> Path:
    """The source with its products' weights in another format, written where it is not there yet. Raises NoRoom.

    The embedding stays as it is, and so does all that is said of the model and its tokens.
    """
    path = folder / f"{source.name.removesuffix('.gguf').rpartition('.')[0] or source.stem}.{quant}.gguf"
    if path.exists():
        return path
    with making(path, 2 * source.stat().st_size, tell) as part:
        _write_derived(part, source, quant, lambda done, total: report(f"writing {path.name}", done, total))
    return path


def _tensors(shape: Shape, quant: str) -> Iterator[tuple[str, str, int, int]]:
    """Name, format, rows and columns, in the file's order; a vector has no rows."""
    heads, kv_heads = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield "rope_freqs.weight", "F32", 1, shape.head_dim // 2
    # A tied embedding is the head too, which llama.cpp keeps finer.
    yield "token_embd.weight", "Q8_0" if shape.tied else quant, shape.vocabulary, shape.hidden
    for i in range(shape.layers):
        above = f"blk.{i}."
        yield f"{above}attn_norm.weight", "F32", 1, shape.hidden
        yield f"{above}attn_q.weight", quant, heads, shape.hidden
        yield f"{above}attn_k.weight", quant, kv_heads, shape.hidden
        yield f"{above}attn_v.weight", quant, kv_heads, shape.hidden
        yield f"{above}attn_output.weight", quant, shape.hidden, heads
        yield f"{above}ffn_norm.weight", "F32", 1, shape.hidden
        yield f"{above}ffn_gate.weight", quant, shape.wide, shape.hidden
        yield f"{above}ffn_up.weight", quant, shape.wide, shape.hidden
        yield f"{above}ffn_down.weight", quant, shape.hidden, shape.wide
    yield "output_norm.weight", "F32", 1, shape.hidden
    if not shape.tied:
        yield "output.weight", quant, shape.vocabulary, shape.hidden


def _size(kind: str, values: int) -> int:
    if kind == "F32":
        return 4 * values
    block, size, _, _ = BLOCKS[kind]
    return values // block * size


def _write_random(
    part: Path,
    name: str,
    shape: Shape,
    quant: str,
    tensors: list[tuple[str, str, int, int]],
    done: Callable[[int], None],
) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter

    random, written = np.random.default_rng(0), 0
    writer = GGUFWriter(part, "llama")
    _describe(writer, name, shape, quant)
    for title, kind, rows, columns in tensors:
        if kind == "F32":
            writer.add_tensor_info(title, [columns], np.dtype(np.float32), 4 * columns)
        else:
            sizes = [rows, _size(kind, columns)]
            packed = GGMLQuantizationType[kind]
            writer.add_tensor_info(title, sizes, np.dtype(np.uint8), math.prod(sizes), raw_dtype=packed)
    writer.write_header_to_file(part)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for title, kind, rows, columns in tensors:
        if title.startswith("rope_freqs"):
            weights: np.ndarray[Any, Any] = _rope_factors(shape)
        elif kind == "F32":
            weights = np.ones(columns, np.float32)
        else:
            weights = _blocks(random, kind, rows * columns)
        writer.write_tensor_data(weights)
        written += weights.nbytes
        done(written)
    writer.close()


def _describe(writer: Any, name: str, shape: Shape, quant: str) -> None:  # Any: the gguf package has no types here
    from gguf import TokenType

    writer.add_name(f"{name}, random weights")
    writer.add_file_type(FILE_TYPES[quant])
    writer.add_block_count(shape.layers)
    writer.add_context_length(131_072)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.wide)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocabulary)
    # Each byte, then words that are a token each, since this pre-tokenizer takes whole words first.
    words = shape.vocabulary - SPECIALS
    texts = [*_alphabet(), "ab", *(f"Ġ{_letters(n)}" for n in range(words - 257))]
    texts += [f"<|reserved_{n}|>" for n in range(SPECIALS)]
    texts[words], texts[words + 1], texts[words + 9] = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(texts)
    writer.add_token_types([TokenType.NORMAL] * words + [TokenType.CONTROL] * SPECIALS)
    writer.add_token_merges(["a b"])  # there must be one, which makes a token
    writer.add_bos_token_id(words)
    writer.add_eos_token_id(words + 9)


def _alphabet() -> list[str]:
    """The characters that a byte-level vocabulary writes the 256 bytes as (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [*map(chr, printable), *(chr(0x100 + n) for n in range(256 - len(printable)))]


def _letters(n: int) -> str:
    """The number in four letters."""
    return "".join(chr(ord("a") + n // 26**place % 26) for place in (3, 2, 1, 0))


def _rope_factors(shape: Shape) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """What divides each of RoPE's frequencies: long waves are stretched, short ones kept, those between blended."""
    waves = 2 * math.pi * shape.rope_base ** (np.arange(0, shape.head_dim, 2) / shape.head_dim)
    kept = np.clip((ORIGINAL_CONTEXT / waves - LOW) / (HIGH - LOW), 0, 1)
    return (1 / ((1 - kept) / shape.rope_factor + kept)).astype(np.float32)


def _blocks(random: np.random.Generator, kind: str, values: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Blocks of uniform codes, with 16-bit scales that give the weights their spread."""
    block, size, scales, deviation = BLOCKS[kind]
    count = values // block
    raw = np.frombuffer(bytearray(random.bytes(count * size)), np.uint8).reshape(count, size)
    scale = (SPREAD / deviation * random.uniform(0.8, 1.2, count)).astype(np.float16)
    for at, factor in zip(scales, (1, OFFSET), strict=False):
        raw[:, at : at + 2] = (scale * np.float16(factor)).view(np.uint8).reshape(count, 2)
    return raw


def _write_derived(part: Path, source: Path, quant: str, report: Callable[[int, int], None]) -> None:
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, dequantize, quantize

    reader = GGUFReader(source)
    writer = GGUFWriter(part, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = FILE_TYPES[quant] if name == "general.file_type" else field.contents()
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, field.types[0], sub_type=inner)
    for n, tensor in enumerate(reader.tensors):
        weights, packed = tensor.data, tensor.tensor_type
        if tensor.name.startswith("blk.") and len(tensor.shape) > 1 and min(tensor.shape) > 1:
            packed = GGMLQuantizationType[quant]
            weights = quantize(dequantize(tensor.data, tensor.tensor_type), packed)
        writer.add_tensor(tensor.name, weights, raw_dtype=packed)
        report(n, len(reader.tensors))
    writer.write_header_to_file(part)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@contextmanager
def making(path: Path, size: int, tell: Tell) -> Iterator[Path]:
    """A file beside it, of at most that size, that takes its place once it is complete. Raises NoRoom."""
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if size + SPARE > free:
        raise NoRoom(
            f"{path} needs {size / 1e9:.1f} GB, and of the {free / 1e9:.1f} GB that are free there one stays so: make "
            "room, set TRACKBED_CACHE to another disk, or leave its rows out with --rows"
        )
    tell(f"writing {path}, once: at most {size / 1e9:.1f} GB of the {free / 1e9:.1f} GB that are free")
    part = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
