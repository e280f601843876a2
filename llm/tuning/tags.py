"""Train and try the tagger that ships: `python -m trackbed.llm.tuning.tags --data FOLDER --models FOLDER --out FOLDER`.

Low-rank changes to the encoder (Hu et al. 2021, arXiv:2106.09685) and a linear head on each word's first token. The
trial is of sentences that nobody here wrote: it trains on our own alone, and is tried on all rows of the data. What
ships is trained on both.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from trackbed.llm.catalogue import locate
from trackbed.llm.tagger import Floats, Name, Words, decoded, readable, words_of
from trackbed.llm.tuning.named import KINDS, Named, named_rows, read_named
from trackbed.llm.tuning.networks import Recipe, Tuned
from trackbed.llm.tuning.ship import lora_tensors
from trackbed.llm.tuning.train import in_batches, pace
from trackbed.llm.windows import read_tokenizer

BASE = "all-minilm-l6-v2"
LABELS = ("", *(f"{part}-{kind}" for kind in KINDS for part in "BI"))
RECIPE = Recipe(LABELS, epochs=2, tokens=128, most=100_000, smoothing=0.05)
AUTHORED, TIMES = 4000, 2  # texts of our own; how often a row of the data is seen in an epoch
IGNORED = -100  # a token that is not asked about


class TagNetwork(Tuned):
    """One that judges each token."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        """Logits [texts, tokens, labels]; all inputs are [texts, tokens]."""
        return self.logits(self.states(ids, mask, kinds))


def fit_tags(rows: Sequence[Named], base: Path, recipe: Recipe) -> TagNetwork:
    """A network trained on these rows."""
    chance = random.Random(recipe.seed)  # noqa: S311
    tokenizer, ends = read_tokenizer(base)
    read = [_cut(*_read(tokenizer, row), recipe.tokens - 2) for row in rows]
    network = TagNetwork(base, recipe).train()
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=recipe.rate, weight_decay=0.01)
    loss_of = torch.nn.CrossEntropyLoss(ignore_index=IGNORED, label_smoothing=recipe.smoothing)
    steps, step = -(-len(rows) // recipe.batch) * recipe.epochs, 0
    for epoch in range(recipe.epochs):
        order = chance.sample(read, len(read))
        for batch in in_batches(order, lambda item: len(item[0].ids), recipe.batch, chance):
            pace(optimiser, recipe, step / steps)
            *inputs, targets = _tensors(batch, ends)
            loss = loss_of(network(*inputs).flatten(0, 1), targets.flatten())
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            step += 1
            if step % 50 == 0:
                sys.stderr.write(f"epoch {epoch + 1}, step {step} of {steps}, loss {loss.item():.3f}\n")
    return network.eval()


@torch.inference_mode()
def tagged(network: TagNetwork, rows: Sequence[Named], base: Path) -> list[list[Name]]:
    """The names that a network finds in each text, of which none is longer than the encoder reads."""
    tokenizer, ends = read_tokenizer(base)
    found: list[list[Name]] = []
    for row in rows:
        words, labels = _read(tokenizer, row)
        if not words.ids:
            found.append([])
            continue
        logits: Floats = network(*_tensors([(words, labels)], ends)[:3])[0, 1:-1].numpy()
        found.append(decoded(logits[[i for i, label in enumerate(labels) if label != IGNORED]], words.spans, KINDS))
    return found


def scores(rows: Sequence[Named], found: Sequence[Sequence[Name]]) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of each kind: a name is found where its first and last character are."""
    told = {}
    for kind in KINDS:
        marked, given, right = 0, 0, 0
        for row, names in zip(rows, found, strict=True):
            wanted = {span for span in row.spans if span[0] == kind}
            got = {tuple(name) for name in names if name.kind == kind}
            marked, given, right = marked + len(wanted), given + len(got), right + len(wanted & got)
        if marked:
            figures = (right / max(given, 1), right / marked, 2 * right / max(given + marked, 1))
            told[kind] = dict(zip(("precision", "recall", "f1"), (round(figure, 4) for figure in figures), strict=True))
    return told


def _read(tokenizer: Tokenizer, row: Named) -> tuple[Words, list[int]]:
    """A text as the encoder reads it, and the label of each token: of a word's first, that of the word."""
    words = words_of(tokenizer.encode(readable(row.text), add_special_tokens=False), row.text)
    of_word = []
    for start, end in words.spans:
        inside = next(((kind, at) for kind, at, until in row.spans if at < end and start < until), None)
        of_word.append(0 if inside is None else 1 + 2 * KINDS.index(inside[0]) + (start > inside[1]))
    labels = [of_word[word] if i == 0 or word != words.word[i - 1] else IGNORED for i, word in enumerate(words.word)]
    return words, labels


def _cut(words: Words, labels: list[int], room: int) -> tuple[Words, list[int]]:
    """The beginning of a text, as far as a window goes."""
    return words._replace(ids=words.ids[:room], capital=words.capital[:room]), labels[:room]


def _tensors(batch: Sequence[tuple[Words, list[int]]], ends: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """Tokens, which of them are some, which are of capitals, and labels: [texts, tokens]."""
    longest = max(len(words.ids) for words, _ in batch) + 2
    ids, mask, kinds = (torch.zeros(len(batch), longest, dtype=torch.int64) for _ in range(3))
    targets = torch.full((len(batch), longest), IGNORED)
    for i, (words, labels) in enumerate(batch):
        count = len(words.ids)
        ids[i, : count + 2] = torch.tensor([ends[0], *words.ids, ends[1]])
        mask[i, : count + 2] = 1
        kinds[i, 1 : count + 1] = torch.tensor(words.capital)
        targets[i, 1 : count + 1] = torch.tensor(labels)
    return ids, mask, kinds, targets


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m trackbed.llm.tuning.tags", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder with pii.jsonl")
    parser.add_argument("--models", type=Path, required=True, help="the folder of `trackbed models`")
    parser.add_argument("--out", type=Path, help="the tagger's folder; without it, a trial")
    asked = parser.parse_args()
    base, authored, rows = locate(BASE, asked.models), named_rows(AUTHORED), read_named(asked.data / "pii.jsonl")
    if asked.out is None:
        network = fit_tags(authored, base, RECIPE)
        sys.stdout.write(json.dumps(scores(rows, tagged(network, rows, base)), indent=2) + "\n")
        return
    network = fit_tags([*authored, *rows * TIMES], base, RECIPE)
    write_tagger(asked.out, network, RECIPE, BASE)


def write_tagger(folder: Path, network: TagNetwork, recipe: Recipe, base: str) -> None:
    """The folder of a tagger whose base is that entry of the catalogue."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(lora_tensors(network.head, network.changed), folder / "names.safetensors")
    described = {
        "format": 1,
        "base": base,
        "file": "names.safetensors",
        "kinds": KINDS,
        "rank": recipe.rank,
        "alpha": recipe.alpha,
        "tokens": recipe.tokens,
    }
    (folder / "tagger.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
