"""From a trained network to the folder of a judge: an adapter for each role, and what its figures mean.

Probabilities are calibrated by a scale and a shift of the logit (Platt 1999), fitted on logits of rows that trained
nothing. Sources differ in size by chance, so each counts alike.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from trackbed.llm.tuning.networks import Network, Recipe
from trackbed.llm.tuning.rows import Row

Floats = npt.NDArray[np.float32]
PREFIX, A, B = "base_model.model.", ".lora_A.default.weight", ".lora_B.default.weight"


def write_adapter(
    folder: Path,
    role: str,
    network: Network,
    recipe: Recipe,
    calibration: tuple[float, float],
    otherwise: str | None = None,
) -> None:
    """A role's adapter, in the folder of a judge; others stay. `otherwise` judges roles that have none."""
    folder.mkdir(parents=True, exist_ok=True)
    scale, shift = calibration
    save_file(lora_tensors(network.head, network.changed), folder / f"{role}.safetensors")
    described = folder / "judge.json"
    found = json.loads(described.read_bytes()) if described.exists() else {}
    roles = found.get("roles", {})
    roles[role] = {
        "file": f"{role}.safetensors",
        "labels": recipe.labels,
        **({"layers": recipe.layers} if recipe.layers else {}),
        "rank": recipe.rank,
        "alpha": recipe.alpha,
        "tokens": recipe.tokens,
        "scale": round(scale, 4),
        "shift": round(shift, 4),
    }
    whole = {"format": 1, "base": recipe.base, **({"otherwise": otherwise} if otherwise else {}), "roles": roles}
    described.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


def lora_tensors(head: torch.nn.Module, changed: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A head and what low-rank changes a PEFT model has, in float16, by the names that an adapter's file has."""
    tensors = {f"head.{name}": value for name, value in head.state_dict().items()}
    for name, value in changed.state_dict().items():
        for ending, short in ((A, ".A"), (B, ".B")):
            if name.endswith(ending):
                tensors[name.removeprefix(PREFIX).removesuffix(ending) + short] = value
    return {name: value.half().contiguous() for name, value in tensors.items()}


def calibrate(logits: Floats, rows: Sequence[Row]) -> tuple[float, float]:
    """The scale and the shift under which these rows are likeliest, half of them positive and each source as heavy."""
    x = torch.tensor(logits, dtype=torch.float64)
    y = torch.tensor([float(row.positive) for row in rows], dtype=torch.float64)
    weights = torch.tensor(balance(rows), dtype=torch.float64)
    found = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([found], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        losses = torch.nn.functional.binary_cross_entropy_with_logits(found[0] * x + found[1], y, reduction="none")
        total = (losses * weights).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    scale, shift = found.tolist()
    return scale, shift


def balance(rows: Sequence[Row]) -> npt.NDArray[np.float64]:
    """Weights that sum to 1: a half for each label, and of it an equal share for each source."""
    sizes = Counter((row.source, row.positive) for row in rows)
    sources = Counter(positive for _, positive in sizes)
    return np.array([0.5 / sources[row.positive] / sizes[row.source, row.positive] for row in rows])
