"""Train a judge on rows, and read what it makes of others. Everything that is drawn comes from one seed."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from trackbed.llm.tuning import networks
from trackbed.llm.tuning.networks import Network, Recipe
from trackbed.llm.tuning.rows import Row
from trackbed.llm.windows import Window

Report = Callable[[str], None]
T = TypeVar("T")
BUCKET = 16  # batches that are sorted by length together


def fit(rows: Sequence[Row], base: Path, recipe: Recipe, report: Report) -> Network:
    """A network trained on these rows."""
    chance = random.Random(recipe.seed)  # noqa: S311  shuffles, no secrets
    reader = networks.reader(base, recipe)
    windows = [_telling(reader.windows(row.text, row.before), row) for row in rows]
    targets, weights = _targets(rows, recipe)
    network = networks.network(base, recipe).train()
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=recipe.rate, weight_decay=0.01)
    epochs = [one_epoch(rows, recipe, chance) for _ in range(recipe.epochs)]
    steps, step = sum(math.ceil(len(epoch) / recipe.batch) for epoch in epochs), 0
    for number, epoch in enumerate(epochs):
        total = 0.0
        drawn = [(index, chance.choice(windows[index])) for index in epoch]
        for batch in in_batches(drawn, lambda item: len(item[1].ids), recipe.batch, chance):
            pace(optimiser, recipe, step / steps)
            places = [index for index, _ in batch]
            logits = network(*_tensors([window for _, window in batch]))
            losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets[places], reduction="none")
            loss = (losses * weights[places]).sum() / len(places)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            total, step = total + loss.item() * len(places), step + 1
            if step % 20 == 0:
                report(f"epoch {number + 1}, step {step} of {steps}, loss {loss.item():.3f}")
        report(f"epoch {number + 1} of {recipe.epochs}: loss {total / len(epoch):.4f}")
    return network.eval()


@torch.inference_mode()
def logits_of(network: Network, rows: Sequence[Row], base: Path, recipe: Recipe) -> npt.NDArray[np.float32]:
    """The highest logits among a text's windows: [rows, labels]."""
    reader = networks.reader(base, recipe)
    flat = [(index, window) for index, row in enumerate(rows) for window in reader.windows(row.text, row.before)]
    flat.sort(key=lambda item: len(item[1].ids))
    found = np.full((len(rows), len(recipe.labels)), -np.inf, np.float32)
    for begin in range(0, len(flat), 128):
        part = flat[begin : begin + 128]
        logits = network(*_tensors([window for _, window in part])).numpy()
        np.maximum.at(found, [index for index, _ in part], logits)
    return found


def _telling(windows: list[Window], row: Row) -> list[Window]:
    """The windows of a text that are what its label says, as far as it is known which."""
    if not row.positive or len(windows) == 1:
        return windows
    return {"start": windows[:1], "middle": windows[1:-1] or windows, "end": windows[-1:]}.get(row.place, windows)


def _targets(rows: Sequence[Row], recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """What each logit is to be, and how much that counts; a category counts where a row says its own."""
    names = recipe.labels[1:]
    targets = torch.zeros(len(rows), len(recipe.labels))
    weights = torch.zeros_like(targets)
    for i, row in enumerate(rows):
        targets[i, 0], weights[i, 0] = float(row.positive), 1.0
        if row.categories or not row.positive:
            weights[i, 1:] = 0.3
            for category in row.categories:
                if category in names:
                    targets[i, 1 + names.index(category)] = 1.0
    return targets * (1 - 2 * recipe.smoothing) + recipe.smoothing, weights


def one_epoch(rows: Sequence[Row], recipe: Recipe, chance: random.Random) -> list[int]:
    """Rows in any order, no more than so many of a source and label."""
    groups: dict[tuple[str, bool], list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault((row.source, row.positive), []).append(i)
    chosen = [i for group in groups.values() for i in chance.sample(group, min(len(group), recipe.most))]
    chance.shuffle(chosen)
    return chosen


def in_batches(drawn: Sequence[T], length: Callable[[T], int], size: int, chance: random.Random) -> Iterator[list[T]]:
    """Batches of texts that are about as long."""
    for begin in range(0, len(drawn), size * BUCKET):
        bucket = sorted(drawn[begin : begin + size * BUCKET], key=length)
        batches = [bucket[at : at + size] for at in range(0, len(bucket), size)]
        chance.shuffle(batches)
        yield from batches


def pace(optimiser: torch.optim.Optimizer, recipe: Recipe, share: float) -> None:
    """Set the rate of a step, of which that share came before: it rises at first, and falls to nothing."""
    for group in optimiser.param_groups:
        group["lr"] = recipe.rate * min(1.0, share / 0.06) * (1 - share)


def _tensors(windows: Sequence[Window]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    longest = max(len(window.ids) for window in windows)
    ids, mask, kinds = (torch.zeros(len(windows), longest, dtype=torch.int64) for _ in range(3))
    for i, window in enumerate(windows):
        count = len(window.ids)
        ids[i, :count] = torch.tensor(window.ids)
        kinds[i, :count] = torch.tensor(window.kinds)
        mask[i, :count] = 1
    return ids, mask, kinds
