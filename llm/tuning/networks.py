"""What is trained: an encoder or the beginning of a decoder, frozen, with low-rank changes and a linear head.

LoRA is Hu et al. 2021 (arXiv:2106.09685), with peft. Everything that is drawn comes from one seed.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import LoraConfig, get_peft_model
from transformers import BertModel, LlamaForCausalLM

from trackbed.llm.asker import ANSWERS, Asker
from trackbed.llm.windows import Reader, Window

ENCODER_TARGETS = ["query", "key", "value", "dense"]
DECODER_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that a training is made of, beside its rows."""

    labels: tuple[str, ...]  # the first is the one that decides; others are categories of it
    base: str = "all-minilm-l6-v2"  # in the catalogue
    layers: int | None = None  # of a decoder, as many as are read; None: an encoder, all of it
    rank: int = 16
    alpha: int = 32
    rate: float = 1e-3
    epochs: int = 2
    batch: int = 32
    tokens: int = 96  # of a text; in training a window is drawn from longer ones
    most: int = 1000  # rows of a source and label in one epoch
    dropout: float = 0.1
    smoothing: float = 0.02
    seed: int = 0

    def lora(self, targets: list[str]) -> LoraConfig:
        """What peft adds to these weights."""
        return LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=targets, bias="none"
        )


class Network(torch.nn.Module, ABC):
    """What gives a logit for each label of a whole text."""

    changed: Any  # the peft model
    head: torch.nn.Linear

    @abstractmethod
    def forward(self, ids: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        """Logits [texts, labels]; all inputs are [texts, tokens]."""


class Tuned(Network):
    """The encoder with low-rank changes that are learned, and a linear head for whatever its labels are of."""

    def __init__(self, base: Path, recipe: Recipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        encoder = BertModel.from_pretrained(base, add_pooling_layer=False)
        self.changed = get_peft_model(encoder, recipe.lora(ENCODER_TARGETS))
        self.head = torch.nn.Linear(encoder.config.hidden_size, len(recipe.labels))
        self.dropout = torch.nn.Dropout(recipe.dropout)

    def states(self, ids: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        """What the encoder makes of tokens: [texts, tokens, hidden]; all inputs are [texts, tokens]."""
        found: torch.Tensor = self.changed(input_ids=ids, attention_mask=mask, token_type_ids=kinds).last_hidden_state
        return found

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> [..., labels]."""
        found: torch.Tensor = self.head(self.dropout(states))
        return found


class Encoder(Tuned):
    """One that judges whole texts: the head reads the mean of a text's tokens."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        """Logits [texts, labels]; all inputs are [texts, tokens]."""
        states = self.states(ids, mask, kinds)
        weights = mask[..., None].to(states.dtype)
        return self.logits((states * weights).sum(1) / weights.sum(1))


class Decoder(Network):
    """The first layers of a small Llama, and a head that reads what they make of the last token of a question.

    At first the head tells the answer `unsafe` from `safe` as the model's own does; of categories it knows nothing.
    """

    def __init__(self, base: Path, recipe: Recipe) -> None:
        """`base` is a GGUF file or a folder. Raises ValueError where both answers begin with the same token."""
        super().__init__()
        torch.manual_seed(recipe.seed)
        safe, unsafe = (Asker(base, recipe.tokens).tokenizer.encode(word)[0] for word in ANSWERS)
        if safe == unsafe:
            raise ValueError(f"{base}: {' and '.join(ANSWERS)} begin with the same token; another model is needed")
        if base.is_dir():
            model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
        else:
            model = LlamaForCausalLM.from_pretrained(base.parent, gguf_file=base.name, dtype=torch.float32)
        model.model.layers = model.model.layers[: recipe.layers]
        model.config.num_hidden_layers = len(model.model.layers)
        self.changed = get_peft_model(model.model, recipe.lora(DECODER_TARGETS))
        self.head = torch.nn.Linear(model.config.hidden_size, len(recipe.labels))
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.zero_()
            self.head.weight[0] = model.lm_head.weight[unsafe] - model.lm_head.weight[safe]

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        """Logits [texts, labels]; all inputs are [texts, tokens].

        What pads a row stands behind its last token, where attention to what came before never looks.
        """
        states = self.changed(input_ids=ids, use_cache=False).last_hidden_state
        found: torch.Tensor = self.head(states[torch.arange(len(ids)), mask.sum(1) - 1])
        return found


class Reads(Protocol):
    """Cuts a text, and what it answers, into windows of tokens."""

    def windows(self, text: str, before: str = "") -> list[Window]:
        """At least one."""


def reader(base: Path, recipe: Recipe) -> Reads:
    """What cuts texts for a network of this recipe."""
    return Asker(base, recipe.tokens) if recipe.layers else Reader(base, recipe.tokens)


def network(base: Path, recipe: Recipe) -> Network:
    """One that has learned nothing yet."""
    return Decoder(base, recipe) if recipe.layers else Encoder(base, recipe)
