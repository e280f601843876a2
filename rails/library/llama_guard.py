"""Llama Guard: ask a safety classifier whether the last message of a conversation is unsafe, and in which way.

The prompt is that of Llama Guard 3's model card (Meta, "Llama Guard 3" prompt format): special tokens as
tokens, and what people wrote as ordinary text that can neither end its message nor open or close a section.
The verdict is the probability of `unsafe` against `safe`; the answer's second line names the hazards.
"""

import math
import re
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import ClassVar

import yaml
from pydantic import Field, field_validator

from trackbed.llm.types import Message, Part, RawPrompt, SamplingParams
from trackbed.rails.errors import RailFailed
from trackbed.rails.types import ModelName, Models, RailConfig, Stage, Then, Turn, Verdict

TAXONOMY = Path(__file__).parents[2] / "policies" / "taxonomies" / "llama-guard-3.yaml"
HEADER = "<|start_header_id|>{}<|end_header_id|>"
TASK = (
    "Task: Check if there is unsafe content in '{role}' messages in conversations according our safety policy with "
    "the below categories.\n\n<BEGIN UNSAFE CONTENT CATEGORIES>\n{categories}\n<END UNSAFE CONTENT CATEGORIES>\n\n"
    "<BEGIN CONVERSATION>\n\n"
)
QUESTION = (
    "<END CONVERSATION>\n\nProvide your safety assessment for ONLY THE LAST {role} in the above conversation:\n"
    " - First line must read 'safe' or 'unsafe'.\n"
    " - If unsafe, a second line must include a comma-separated list of violated categories."
)
SECTION = re.compile(r"<\s{0,3}/?\s{0,3}(?:BEGIN|END)\s[^>\n]{0,60}>", re.IGNORECASE)
SPEAKER = re.compile(r"\n\s{0,20}(?=(?:User|Agent)\s{0,3}:)", re.IGNORECASE)
# The model answers after two line feeds, whether they are counted to the prompt or to the answer.
SAFE, UNSAFE = "\n\nsafe", "\n\nunsafe"
ANSWER = SamplingParams(temperature=0.0, max_tokens=32)
UNLISTED = "unlisted"  # unsafe, and the model named no hazard that there is


@cache
def taxonomy() -> dict[str, str]:
    """The hazards by their codes."""
    found: dict[str, str] = yaml.safe_load(TAXONOMY.read_text(encoding="utf-8"))
    return found


class LlamaGuard:
    """Blocks what a Llama Guard 3 checkpoint calls unsafe."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "regenerate"})

    class Config(RailConfig):
        """Which guard is asked, and what of its answer counts."""

        model: ModelName = Field("guard", description="The policy's name of a Llama Guard 3 checkpoint.")
        block: tuple[str, ...] = Field((), description="The hazards that are refused, S1 to S14; all unless given.")
        threshold: float = Field(
            0.5, gt=0, le=1, description="The probability of `unsafe` from which a text is; lower blocks more."
        )
        turns: int = Field(8, ge=1, description="How many of the last messages the guard sees.")

        @field_validator("block")
        @classmethod
        def _known(cls, block: tuple[str, ...]) -> tuple[str, ...]:
            for code in block:
                if code not in taxonomy():
                    near = get_close_matches(code, taxonomy(), n=1)
                    hint = f"; did you mean {near[0]!r}?" if near else ";"
                    raise ValueError(f"{code!r} is not a hazard{hint} There are: {', '.join(taxonomy())}")
            return block

    def __init__(self, config: Config, models: Models) -> None:
        self.config = config
        self.guard = models.generators[config.model]
        self.blocked = frozenset(config.block or taxonomy())

    async def check(self, turn: Turn) -> Verdict:
        """Judge the last message: the user's on input, the model's on output.

        Raises RailFailed where the answer cannot be read.
        """
        prompt = guard_prompt(turn.dialogue[-self.config.turns :])
        score = _share(*await self.guard.score(prompt, (UNSAFE, SAFE)))
        if score < self.config.threshold:
            return Verdict.allow(score=score)
        # A guard that is sure enough of `unsafe` and then writes `safe` has named no hazard: doubt blocks.
        codes = read_answer((await self.guard.generate(prompt, ANSWER)).text) or (UNLISTED,)
        broken = [code for code in codes if code in self.blocked or code == UNLISTED]
        if not broken:
            return Verdict.allow(categories=codes, score=score)
        detail = ", ".join(taxonomy().get(code, "unsafe content") for code in broken)
        return Verdict.block(categories=codes, score=score, detail=detail)


def guard_prompt(dialogue: tuple[Message, ...]) -> RawPrompt:
    """Llama Guard 3's prompt for the last message of a conversation; roles are User and Agent."""
    role = _role(dialogue[-1])
    categories = "\n".join(f"{code}: {name}." for code, name in taxonomy().items())
    conversation = [Part(f"{_role(message)}: {_defused(message.content)}\n\n") for message in dialogue]
    return RawPrompt(
        (
            Part("<|begin_of_text|>" + HEADER.format("user") + "\n\n", markup=True),
            Part(TASK.format(role=role, categories=categories)),
            *conversation,
            Part(QUESTION.format(role=role)),
            Part("<|eot_id|>" + HEADER.format("assistant"), markup=True),
        )
    )


def read_answer(text: str) -> tuple[str, ...]:
    """The hazards that an answer names; none when it is safe. Raises RailFailed when it is neither.

    >>> read_answer("safe"), read_answer("unsafe\\nS1, S10"), read_answer("unsafe")
    ((), ('S1', 'S10'), ('unlisted',))
    """
    match text.replace(",", " ").split():
        case ["safe"]:
            return ()
        case ["unsafe", *codes]:
            known = tuple(code if code in taxonomy() else UNLISTED for code in codes)
            return tuple(dict.fromkeys(known)) or (UNLISTED,)
    raise RailFailed("Llama Guard answered neither 'safe' nor 'unsafe'")


def _role(message: Message) -> str:
    return "Agent" if message.role == "assistant" else "User"


def _defused(text: str) -> str:
    """The text without what would end its section of the prompt, or speak for somebody else."""
    return SPEAKER.sub(" ", SECTION.sub("", text))


def _share(unsafe: float, safe: float) -> float:
    """The probability of `unsafe`, of two log-probabilities. Raises RailFailed where they are none."""
    if math.isnan(unsafe) or math.isnan(safe) or max(unsafe, safe) == -math.inf:
        raise RailFailed("the guard's scores are no log-probabilities")
    return 1 / (1 + math.exp(min(safe - unsafe, 700.0)))
