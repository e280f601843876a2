"""Teach a decoder whether a text supports a claim: low-rank changes of its first layers, and a head.

LoRA is Hu et al. 2021 (arXiv:2106.09685), with peft. Claims about one text are read at once, behind it: each sees the
text and itself, and stands where it would stand alone, so a text is computed once for all of them. Weights are
bfloat16 while they are taught; what is added to them is float32. Everything that is drawn comes from one seed.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from trackbed.llm.claims import MOST_CLAIMED, Claims
from trackbed.llm.tuning.claimed import Pack
from trackbed.llm.tuning.facts import Claim
from trackbed.llm.tuning.networks import DECODER_TARGETS
from trackbed.llm.tuning.questions import sentences_of, words
from trackbed.llm.tuning.train import Report, in_batches

YES, NO = " Yes", " No"
BEFORE = 0.3  # how much of what tells the model's own yes from its no the head begins with
SMOOTHING = 0.02
ROWS = 16  # texts that are tried at once


@dataclass(frozen=True, slots=True)
class Lesson:
    """All that a training is made of, beside its claims."""

    base: str = "smollm2-135m-instruct"
    layers: int = 24
    first: int = 4  # the first layer that is changed; those below it read as before
    rank: int = 16
    alpha: int = 32
    rate: float = 5e-4
    batch: int = 6  # texts
    tokens: int = 200  # of a text that trains; of longer ones the sentences that have most of the claims' words
    seed: int = 0


class Line(NamedTuple):
    """A text and claims about it, as tokens."""

    ids: list[int]
    places: list[int]  # where each token stands for the model
    parts: list[int]  # 0 for the text, then the number of the claim
    ends: list[int]  # the last token of each claim


class Supporting(torch.nn.Module):
    """The first layers of a small Llama, and a head that reads what they make of the last token of a claim."""

    changed: Any  # the peft model
    head: torch.nn.Linear

    def __init__(self, base: Path, claims: Claims, lesson: Lesson) -> None:
        """`base` is a GGUF file or a folder."""
        super().__init__()
        torch.manual_seed(lesson.seed)
        folder, file = (base, None) if base.is_dir() else (base.parent, base.name)
        model = LlamaForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
        yes, no = (model.lm_head.weight[claims.tokenizer.encode(word)[0]].detach() for word in (YES, NO))
        self.head = torch.nn.Linear(len(yes), 1)
        with torch.no_grad():
            self.head.bias.zero_()
            self.head.weight[0] = BEFORE * (yes - no)
        body = model.model.to(torch.bfloat16)
        body.layers = body.layers[: lesson.layers]
        body.config.num_hidden_layers = len(body.layers)
        changing = tuple(f"layers.{layer}." for layer in range(lesson.first, lesson.layers))
        names = [name for name, _ in body.named_modules() if name.startswith(changing)]
        targets = [name for name in names if name.endswith(tuple(DECODER_TARGETS))]
        config = LoraConfig(r=lesson.rank, lora_alpha=lesson.alpha, target_modules=targets, bias="none")
        self.changed = get_peft_model(body, config)

    def forward(self, lines: Sequence[Line]) -> torch.Tensor:
        """Logits of all claims, in order: [claims]."""
        longest = max(len(line.ids) for line in lines)
        ids, places = (torch.zeros(len(lines), longest, dtype=torch.int64) for _ in range(2))
        parts = torch.full((len(lines), longest), -1)
        for i, line in enumerate(lines):
            count = len(line.ids)
            ids[i, :count], places[i, :count] = torch.tensor(line.ids), torch.tensor(line.places)
            parts[i, :count] = torch.tensor(line.parts)
        same = (parts[:, :, None] == parts[:, None, :]) | (parts[:, None, :] == 0)
        unseen = ~(same & torch.ones(longest, longest, dtype=torch.bool).tril())
        mask = torch.zeros(len(lines), 1, longest, longest, dtype=torch.bfloat16)
        mask.masked_fill_(unseen[:, None], torch.finfo(torch.bfloat16).min)
        told = self.changed(input_ids=ids, position_ids=places, attention_mask=mask, use_cache=False)
        rows = [i for i, line in enumerate(lines) for _ in line.ends]
        ends = [end for line in lines for end in line.ends]
        found: torch.Tensor = self.head(told.last_hidden_state[rows, ends].float())[:, 0]
        return found


def line_of(claims: Claims, context: str, said: Sequence[Claim], tokens: int) -> Line:
    """As tokens; of a text of more than so many those of its sentences that have most of the claims' words."""
    text = claims.line(_nearest(claims, context, said, tokens))[: 2 * tokens]
    ids = claims.document(text)
    begin, parts, ends = len(ids), [0] * len(ids), list[int]()
    places = list(range(begin))
    for number, claim in enumerate(said, 1):
        part = claims.asked(claims.line(claim.text)[:MOST_CLAIMED], claims.line(claim.question))
        ids, parts = [*ids, *part], [*parts, *[number] * len(part)]
        places += range(begin, begin + len(part))
        ends.append(len(ids) - 1)
    return Line(ids, places, parts, ends)


def teach(packs: Sequence[Pack], base: Path, lesson: Lesson, report: Report) -> Supporting:
    """One that was taught each text once."""
    chance, claims = random.Random(lesson.seed), Claims(base, lesson.tokens)  # noqa: S311  draws, no secrets
    network = Supporting(base, claims, lesson).train()
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=lesson.rate, weight_decay=0.01)
    lines = [(line_of(claims, pack.context, pack.claims, lesson.tokens), pack.claims) for pack in packs]
    steps, mean = math.ceil(len(lines) / lesson.batch), 0.0
    report(f"{len(lines)} texts, {sum(len(line.ids) for line, _ in lines)} tokens, {steps} steps")
    for step, batch in enumerate(in_batches(lines, lambda item: len(item[0].ids), lesson.batch, chance), 1):
        for group in optimiser.param_groups:
            group["lr"] = lesson.rate * min(1.0, step / steps / 0.06) * (1 - (step - 1) / steps)
        said = [claim for _, each in batch for claim in each]
        weights = torch.tensor([claim.weight for claim in said])
        wanted = torch.tensor([float(claim.supported) for claim in said]) * (1 - 2 * SMOOTHING) + SMOOTHING
        logits = network([line for line, _ in batch])
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        loss = (losses * weights).sum() / weights.sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        mean = 0.97 * mean + 0.03 * loss.item() if step > 1 else loss.item()
        if step % 20 == 0:
            report(f"step {step} of {steps}, loss {mean:.3f}")
    return network.eval()


@torch.inference_mode()
def logits_of(
    network: Supporting, rows: Sequence[Sequence[Claim]], base: Path, tokens: int
) -> list[npt.NDArray[np.float32]]:
    """Of rows of claims, each about one text, beside at most so many tokens of it: [claims] for each row."""
    claims, flat = Claims(base, tokens), list[tuple[int, int, Line]]()
    for i, row in enumerate(rows):
        flat += [(i, at, line_of(claims, claim.context, [claim], tokens)) for at, claim in enumerate(row)]
    flat.sort(key=lambda item: len(item[2].ids))
    found = [np.zeros(len(row), np.float32) for row in rows]
    for begin in range(0, len(flat), ROWS):
        part = flat[begin : begin + ROWS]
        for (i, at, _), logit in zip(part, network([line for _, _, line in part]).tolist(), strict=True):
            found[i][at] = logit
    return found


def _nearest(claims: Claims, context: str, said: Sequence[Claim], tokens: int) -> str:
    if len(context) < 3 * tokens or len(claims.line(context)) <= tokens:
        return context
    wanted = frozenset[str]().union(*(words(f"{claim.question} {claim.text}") for claim in said))
    sentences = sentences_of(context)
    order = sorted(
        range(len(sentences)),
        key=lambda i: (-len(wanted & words(sentences[i])) / (1 + math.sqrt(len(sentences[i].split()))), i),
    )
    kept, room = list[int](), tokens
    for i in order:
        length = len(claims.line(sentences[i]))
        if length <= room or not kept:
            kept.append(i)
            room -= length
    return " ".join(sentences[i] for i in sorted(kept))
