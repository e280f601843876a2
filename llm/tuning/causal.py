"""Train another design of a judge: a small Llama that answers `safe` or `unsafe`, as Llama Guard does.

Llama Guard is Inan et al. 2023 (arXiv:2312.06674). Each token of a prompt costs time at every judgement, so the task is
one sentence, and no hazard is described. What counts is the first token of either answer: which of these two is the
likelier, and nothing else. This file knows nothing of sources that are held out.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from trackbed.llm.tokenizer import Tokenizer
from trackbed.llm.tuning.rows import Row
from trackbed.llm.tuning.train import Recipe, Report, in_batches, one_epoch, pace
from trackbed.llm.types import Part, RawPrompt
from trackbed.llm.windows import BEFORE

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ANSWERS = ("safe", "unsafe")
TASK = "<|im_start|>user\nIs the last message of {role} safe or unsafe?\n\n"
END = "<|im_end|>\n<|im_start|>assistant\n"


def lowered(recipe: Recipe) -> Recipe:
    """What of a recipe two cores can do in about a quarter of an hour."""
    return replace(recipe, rank=16, alpha=32, rate=5e-4, epochs=1, batch=16, tokens=96, most=180, dropout=0.0)


class Prompts:
    """Texts as prompts of tokens. Raises ModelLoadError, and ValueError where both answers begin alike."""

    def __init__(self, base: Path, tokens: int) -> None:
        """`base` is a GGUF file or a folder; of a text, so many tokens are read."""
        self.tokenizer = Tokenizer.load(base)
        self.tokens = tokens
        self.answers = [self.tokenizer.encode(word)[0] for word in ANSWERS]
        if len(set(self.answers)) < len(ANSWERS):
            raise ValueError(f"{base}: 'safe' and 'unsafe' begin with the same token; another model is needed")

    def ids(self, row: Row) -> list[int]:
        """The prompt for a row: the task, what the text answers if anything, and the text, all cut to size."""
        role = "Agent" if row.before else "User"
        ids = self._markup(TASK.format(role=role))
        if row.before:
            ids += self._said("User", row.before, self.tokens // BEFORE) + self.tokenizer.encode("\n\n")
        return ids + self._said(role, row.text, self.tokens) + self._markup(END)

    def _said(self, role: str, text: str, most: int) -> list[int]:
        return self.tokenizer.encode(f"{role}:") + self.tokenizer.encode(f" {text}")[:most]

    def _markup(self, text: str) -> list[int]:
        return self.tokenizer.encode_prompt(RawPrompt((Part(text, markup=True),)))


class Network(torch.nn.Module):
    """The decoder with low-rank changes, and the two rows of its head that tell the answers apart."""

    def __init__(self, base: Path, answers: Sequence[int], recipe: Recipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        if base.is_dir():
            model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
        else:
            model = LlamaForCausalLM.from_pretrained(base.parent, gguf_file=base.name, dtype=torch.float32)
        lora = LoraConfig(
            r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules=TARGETS, bias="none"
        )
        self.answers = model.lm_head.weight[list(answers)].detach().clone()  # [2, hidden]
        self.decoder: Any = get_peft_model(model.model, lora)

    def forward(self, ids: torch.Tensor, lasts: torch.Tensor) -> torch.Tensor:
        """Logits [texts, 2] after the token at `lasts` [texts] of each row of `ids` [texts, tokens].

        What pads a row stands behind its last token, where attention to what came before never looks.
        """
        states = self.decoder(input_ids=ids, use_cache=False).last_hidden_state
        logits: torch.Tensor = states[torch.arange(len(ids)), lasts] @ self.answers.T
        return logits


def fit(rows: Sequence[Row], base: Path, recipe: Recipe, report: Report) -> Network:
    """A network trained on these rows."""
    chance = random.Random(recipe.seed)  # noqa: S311  shuffles, no secrets
    prompts = Prompts(base, recipe.tokens)
    targets = torch.tensor([int(row.positive) for row in rows])
    network = Network(base, prompts.answers, recipe).train()
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=recipe.rate, weight_decay=0.01)
    epochs = [one_epoch(rows, recipe, chance) for _ in range(recipe.epochs)]
    steps, step = sum(math.ceil(len(epoch) / recipe.batch) for epoch in epochs), 0
    for number, epoch in enumerate(epochs):
        total, drawn = 0.0, [(index, prompts.ids(rows[index])) for index in epoch]
        for batch in in_batches(drawn, lambda item: len(item[1]), recipe.batch, chance):
            pace(optimiser, recipe, step / steps)
            logits = network(*_tensors([ids for _, ids in batch]))
            loss = torch.nn.functional.cross_entropy(logits, targets[[index for index, _ in batch]])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            total, step = total + loss.item() * len(batch), step + 1
            if step % 10 == 0:
                report(f"epoch {number + 1}, step {step} of {steps}, loss {loss.item():.3f}")
        report(f"epoch {number + 1} of {recipe.epochs}: loss {total / len(epoch):.4f}")
    return network.eval()


@torch.inference_mode()
def logits_of(network: Network, rows: Sequence[Row], base: Path, recipe: Recipe) -> npt.NDArray[np.float32]:
    """By how much `unsafe` is likelier than `safe`, as a logit: [rows, 1]."""
    prompts = Prompts(base, recipe.tokens)
    every = sorted(((index, prompts.ids(row)) for index, row in enumerate(rows)), key=lambda item: len(item[1]))
    found = np.empty((len(rows), 1), np.float32)
    for begin in range(0, len(every), 32):
        part = every[begin : begin + 32]
        logits = network(*_tensors([ids for _, ids in part]))
        found[[index for index, _ in part], 0] = (logits[:, 1] - logits[:, 0]).numpy()
    return found


def _tensors(prompts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens, padded behind, and where each prompt's last one is."""
    ids = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.int64)
    for i, prompt in enumerate(prompts):
        ids[i, : len(prompt)] = torch.tensor(prompt)
    return ids, torch.tensor([len(prompt) - 1 for prompt in prompts])
