"""Teach a chat model to answer from numbered passages: low-rank changes, learned from the tokens of answers alone.

LoRA is Hu et al. 2021 (arXiv:2106.09685), with peft. What a model learns first is whether to answer at all and from
which passage, so the first tokens of an answer weigh more. Logits are computed where an answer stands, since a
vocabulary is large. Everything that is drawn comes from one seed.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from trackbed.llm.template import ENVIRONMENT
from trackbed.llm.tokenizer import Tokenizer
from trackbed.llm.tuning.invented import Case
from trackbed.llm.tuning.networks import DECODER_TARGETS
from trackbed.llm.tuning.ship import PREFIX, A, B
from trackbed.llm.tuning.train import Report, in_batches
from trackbed.llm.types import Message

UNKNOWN = "I don't know."
# Of the tokens of an answer, from the first: whether there is one, in which passage, and which sentence it is.
WEIGHTS, OTHERS = (4.0, 2.0, 0.5, 6.0, 3.0, 1.5), 0.5
KEPT_EVERY = 25  # steps


@dataclass(frozen=True, slots=True)
class Lesson:
    """All that a training is made of, beside its questions."""

    base: str = "smollm2-135m-instruct"
    rank: int = 8
    alpha: int = 16
    rate: float = 8e-4
    batch: int = 8
    first: int = 8  # the first layer that is changed; those below it read as before
    tokens: int = 340  # of a prompt and its answer, at most; what is longer is left out
    seed: int = 0


class Line(NamedTuple):
    """A prompt with its answer, as tokens."""

    ids: list[int]
    begin: int  # where the answer begins


class Share(NamedTuple):
    """Which part of each batch a process computes; they are joined by torch.distributed where there are several."""

    number: int = 0
    among: int = 1

    def summed(self, weights: Sequence[torch.Tensor], loss: torch.Tensor) -> torch.Tensor:
        """The loss of the whole batch; the weights have its gradients afterwards."""
        if self.among > 1:
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            flat = torch.cat([loss.reshape(1), *(gradient.flatten() for gradient in gradients)])
            torch.distributed.all_reduce(flat)
            loss, rest = flat[0], flat[1:]
            for gradient, part in zip(gradients, torch.split(rest, [g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))
        return loss


ALONE = Share()


class Prompter:
    """Writes a question as a policy's prompt does, and the answer that is wanted."""

    def __init__(self, tokenizer: Tokenizer, system: str, template: str) -> None:
        self.tokenizer = tokenizer
        self.system = system
        self.template: jinja2.Template = ENVIRONMENT.from_string(template)
        self.end = tokenizer.specials["<|im_end|>"]

    def messages(self, case: Case) -> tuple[Message, ...]:
        """What the model is asked."""
        passages = [{"n": n, "text": p.text, "heading": p.heading} for n, p in enumerate(case.pieces, 1)]
        asked = self.template.render(question=case.question, passages=passages, history=[], vars={}).strip()
        before = (Message("user", case.before[0]), Message("assistant", case.before[1])) if case.before else ()
        system = (Message("system", self.system),) if self.system else ()
        return (*system, *before, Message("user", asked))

    def line(self, case: Case, most: int | None = None) -> Line:
        """With the answer and the end of the turn, or only so many tokens of them."""
        ids = self.tokenizer.encode_prompt(self.messages(case))
        return Line([*ids, *[*self.tokenizer.encode(wanted(case)), self.end][:most]], len(ids))


def wanted(case: Case) -> str:
    """The answer: the number of a passage and a sentence of it, or that it is not known.

    The number stands first, so that the first token says whether there is an answer at all, and the next one where.
    """
    return f"[{case.place + 1}] {case.answer}" if case.answer else UNKNOWN


def teach(
    lines: Sequence[Line],
    base: Path,
    lesson: Lesson,
    kept: Path,
    report: Report,
    share: Share = ALONE,
    start: Path | None = None,
) -> Any:
    """A peft model trained on these, in one pass, from the adapter `start` on if there is one.

    The adapter stands in `kept` now and then, as far as it is. Of several processes, each computes its share of every
    batch. What is learned is the same.
    """
    torch.manual_seed(lesson.seed)
    chance = random.Random(lesson.seed)  # noqa: S311
    # On a processor plain attention is the faster one to learn through.
    folder, file = (base, None) if base.is_dir() else (base.parent, base.name)
    model = LlamaForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32, attn_implementation="eager")
    # Layers before the first have nothing to learn, and no gradient goes through them.
    layers = tuple(f"layers.{layer}." for layer in range(lesson.first, model.config.num_hidden_layers))
    names = [name for name, _ in model.model.named_modules() if name.startswith(layers)]
    targets = [name for name in names if name.endswith(tuple(DECODER_TARGETS))]
    config = LoraConfig(r=lesson.rank, lora_alpha=lesson.alpha, target_modules=targets, bias="none")
    changed, head = get_peft_model(model.model, config).train(), model.lm_head
    if start:
        load_adapter(changed, start)
    trained = [weight for weight in changed.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=lesson.rate, weight_decay=0.0)
    order = [line for line in lines if len(line.ids) <= lesson.tokens]
    chance.shuffle(order)
    steps, total = math.ceil(len(order) / lesson.batch), 0.0
    report(f"{len(order)} questions, {sum(len(line.ids) for line in order)} tokens, {steps} steps")
    for step, batch in enumerate(in_batches(order, lambda line: len(line.ids), lesson.batch, chance), 1):
        done = (step - 1) / steps
        for group in optimiser.param_groups:
            group["lr"] = lesson.rate * min(1.0, (done + 1 / steps) / 0.06) * (1 - done)
        loss = _loss(changed, head, batch[share.number :: share.among], sum(sum(_weights(line)) for line in batch))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        loss = share.summed(trained, loss.detach())
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        total = 0.95 * total + 0.05 * loss.item() if step > 1 else loss.item()
        if step % 5 == 0:
            report(f"step {step} of {steps}, loss {total:.3f}")
        if share.number == 0 and (step % KEPT_EVERY == 0 or step == steps):
            save_adapter(changed, kept)
    return changed


def load_adapter(changed: torch.nn.Module, path: Path) -> None:
    """Go on from what was saved; layers that learn only now begin without a change."""
    tensors = load_file(path)
    with torch.no_grad():
        for name, value in changed.named_parameters():
            for ending, short in ((A, ".A"), (B, ".B")):
                saved = name.removeprefix(PREFIX).removesuffix(ending) + short
                if name.endswith(ending) and saved in tensors:
                    value.copy_(tensors[saved].float())


def save_adapter(changed: torch.nn.Module, path: Path) -> None:
    """The low-rank changes in float16, by the names that an adapter's file has."""
    tensors = {}
    for name, value in changed.state_dict().items():
        for ending, short in ((A, ".A"), (B, ".B")):
            if name.endswith(ending):
                tensors[name.removeprefix(PREFIX).removesuffix(ending) + short] = value.half().contiguous()
    part = path.with_suffix(".part")
    save_file(tensors, part)
    part.replace(path)


def _weights(line: Line) -> list[float]:
    """Of the tokens of an answer."""
    count = len(line.ids) - line.begin
    return [*WEIGHTS[:count], *[OTHERS] * (count - len(WEIGHTS))]


def _loss(changed: Any, head: torch.nn.Module, batch: Sequence[Line], whole: float) -> torch.Tensor:
    """The sum over the tokens of the answers, as a share of what the whole batch weighs."""
    longest = max((len(line.ids) for line in batch), default=1)
    ids = torch.zeros(len(batch), longest, dtype=torch.int64)
    rows, places, targets, weights = list[int](), list[int](), list[int](), list[float]()
    for i, line in enumerate(batch):
        ids[i, : len(line.ids)] = torch.tensor(line.ids)
        for at in range(line.begin, len(line.ids)):
            rows.append(i)
            places.append(at - 1)  # what is read there says what comes next
            targets.append(line.ids[at])
        weights += _weights(line)
    # What pads a row stands behind its last token, where attention never looks.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = changed(input_ids=ids, use_cache=False).last_hidden_state
        logits = head(states[rows, places])
    losses = torch.nn.functional.cross_entropy(logits.float(), torch.tensor(targets), reduction="none")
    return (losses * torch.tensor(weights)).sum() / whole
