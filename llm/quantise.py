"""A checkpoint in fewer bits, on disk: what loading with such a dtype makes of it, kept for the next time.

Matrices become blocks of GGUF's Q8_0 or Q4_1 in a safetensors file, as bytes, whose metadata names their formats; all
else is as it was. This file knows files. What codes are, the kernels know.
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trackbed.llm.checkpoint import FORMATS, Safetensors
from trackbed.llm.errors import ModelLoadError
from trackbed.llm.stored import Coded

BLOCK = 32  # weights


def quantise_checkpoint(source: Path, target: Path, dtype: Coded) -> None:
    """Write the checkpoint of a folder once more, its matrices in 8 or 4 bits; the head and the embedding in 8.

    `target` is a folder that is not there yet, and is there only once it is whole. Raises ModelLoadError.
    """
    from safetensors.numpy import save_file

    from trackbed.llm.kernels import cpu

    if not source.is_dir():
        raise ModelLoadError(f"{source}: is no folder with config.json and safetensors files; only these are quantised")
    if target.exists():
        raise ModelLoadError(f"{target}: is there already; name a folder that is not")
    weights = Safetensors(source)
    tensors: dict[str, npt.NDArray[np.generic]] = {}
    formats: dict[str, str] = {}
    for name in weights.tensors:
        stored = weights.read(name)
        if len(stored.shape) != 2:
            tensors[name] = cpu.unpack(stored).reshape(stored.shape)
            continue
        rows, columns = stored.shape
        if columns % BLOCK:
            raise ModelLoadError(
                f"{source}: tensor {name} has {columns} columns, no multiple of {BLOCK}; set dtype instead, which "
                "quantises while loading"
            )
        looked_up = name in ("model.embed_tokens.weight", "lm_head.weight")
        coded = cpu.encode(stored, "int8" if looked_up else dtype)
        tensors[name] = coded.data.reshape(rows, -1)
        formats[name] = coded.kind
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as unfinished:
        folder = Path(unfinished) / "checkpoint"
        folder.mkdir()
        for file in source.iterdir():
            if file.is_file() and file.suffix in (".json", ".jinja", ".txt", ".md") and "safetensors" not in file.name:
                shutil.copy(file, folder)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", FORMATS: json.dumps(formats)})
        folder.rename(target)
