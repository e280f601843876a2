"""Llama Guard: ask a safety classifier whether the last message of a conversation is unsafe, and in which way.

The verdict is the probability of `unsafe` against `safe` as the answer's first word (Meta's model cards score alike).
Only what is unsafe is asked for its hazards, as an answer of listed codes alone where the engine can hold to that. What
is asked, and what there is to look for, stand in the taxonomy.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field, ValidationInfo, field_validator

from trackbed.llm.errors import PromptTooLong
from trackbed.llm.types import Choices, Message, Part, RawPrompt, SamplingParams
from trackbed.rails.config import ModelName, RailConfig
from trackbed.rails.errors import RailFailed
from trackbed.rails.library.taxonomy import TAXONOMIES, Hazard, Hazards, Taxonomy, guard_prompt, read_taxonomy
from trackbed.rails.template import nearest
from trackbed.rails.types import Models, Stage, Streams, Then, Turn, Verdict

SAFE, UNSAFE = "safe", "unsafe"
UNLISTED = "unlisted"  # unsafe, and the model named no hazard that there is


class LlamaGuard:
    """Blocks what a Llama Guard checkpoint calls unsafe."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "tools", "output"})
    streams: ClassVar[Streams] = "prefix"
    calls: ClassVar[int] = 2  # about one text: its score, and which hazards it has
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "regenerate"})

    class Config(RailConfig):
        """Which guard is asked, for what, and what of its answer counts."""

        model: ModelName = Field("guard", description="The policy's name of a Llama Guard checkpoint.")
        taxonomy: str = Field(
            "llama-guard-3",
            description="The checkpoint's hazards and prompt: llama-guard-1 to llama-guard-4, or llama-guard-3-1b "
            "for the 1B model.",
        )
        categories: Hazards = Field(
            {}, description="Hazards of the policy's own beside the taxonomy's, by codes that these do not have."
        )
        ask: tuple[str, ...] = Field(
            (), min_length=1, description="The codes of the hazards that the guard is asked for; all unless given."
        )
        describe: bool | None = Field(
            None,
            description="Whether the guard is told what the taxonomy's hazards cover, where that is known; as the "
            "checkpoint's own prompt does unless given.",
        )
        block: tuple[str, ...] = Field(
            (),
            min_length=1,
            description="The codes of the hazards that are refused; all that are asked for unless given.",
        )
        threshold: float = Field(
            0.5, gt=0, le=1, description="The probability of `unsafe` from which a text is; lower blocks more."
        )
        thresholds: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
            {}, description="The same for single hazards, by their codes, in place of `threshold`."
        )
        turns: int = Field(
            4, ge=1, description="How many turns the guard sees at most: questions, each with what was answered."
        )

        @field_validator("taxonomy")
        @classmethod
        def _shipped(cls, name: str) -> str:
            known = sorted(path.stem for path in TAXONOMIES.glob("*.yaml"))
            if name not in known:
                raise ValueError(f"{name!r} is not a taxonomy{nearest(name, known)}")
            return name

        @field_validator("categories")
        @classmethod
        def _new(cls, categories: Hazards, info: ValidationInfo) -> Hazards:
            name = info.data.get("taxonomy")  # absent when it is wrong itself
            known = read_taxonomy(name).hazards if name else {}
            if taken := [code for code in categories if code in known]:
                raise ValueError(f"{taken[0]!r} is a hazard of {name} already; give the category another code")
            return categories

        @field_validator("ask")
        @classmethod
        def _there(cls, codes: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
            return _check(codes, _hazards(info.data), f"not a hazard of {info.data.get('taxonomy')}")

        @field_validator("block")
        @classmethod
        def _asked(cls, codes: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
            _check(codes, _hazards(info.data), f"not a hazard of {info.data.get('taxonomy')}")
            return _check(codes, info.data.get("ask"), "not among the hazards of 'ask'")

        @field_validator("thresholds")
        @classmethod
        def _refused(cls, thresholds: dict[str, float], info: ValidationInfo) -> dict[str, float]:
            _check(thresholds, _hazards(info.data), f"not a hazard of {info.data.get('taxonomy')}")
            _check(thresholds, info.data.get("ask"), "not among the hazards of 'ask'")
            _check(thresholds, info.data.get("block"), "not among the hazards of 'block'")
            return thresholds

        @property
        def asked(self) -> Taxonomy:
            """The taxonomy as this guard is asked: with the policy's own hazards, and without those left out."""
            hazards = _hazards({"taxonomy": self.taxonomy, "categories": self.categories})
            taxonomy = read_taxonomy(self.taxonomy)
            return replace(
                taxonomy,
                hazards={code: hazard for code, hazard in hazards.items() if not self.ask or code in self.ask},
                describes=taxonomy.describes if self.describe is None else self.describe,
            )

        @property
        def refused(self) -> tuple[str, ...]:
            """The codes of the hazards that are refused."""
            return self.block or tuple(self.asked.hazards)

    def __init__(self, config: Config, models: Models) -> None:
        self.config = config
        self.guard = models.generators[config.model]
        self.taxonomy = config.asked
        # From which probability each hazard counts. One that no list has counts as any does.
        thresholds = {code: config.thresholds.get(code, config.threshold) for code in config.refused}
        self.thresholds = thresholds | {UNLISTED: config.threshold}
        self.lowest = min(self.thresholds.values())

    async def check(self, turn: Turn) -> Verdict:
        """Judge the last message: the user's on input, the model's on output.

        A call is judged as the model's, and what a tool returns as a user's.

        Raises RailFailed where the answer cannot be read, and PromptTooLong where the last turn alone is too long.
        """
        prompt, score, lead = await self._judge(turn.dialogue)
        if score < self.lowest:
            return Verdict.allow(score=score)
        answer = await self.guard.generate(prompt, self._wanted(lead))
        # A guard that is sure enough of `unsafe` and then writes `safe` has named no hazard: doubt blocks.
        codes = read_answer(answer.text, self.taxonomy) or (UNLISTED,)
        if answer.finish_reason == "length":  # S1 may be what is left of S10
            codes = tuple(dict.fromkeys((*codes[:-1], UNLISTED)))
        broken = [code for code in codes if code in self.thresholds and score >= self.thresholds[code]]
        if not broken:
            return Verdict.allow(categories=codes, score=score)
        hazards = self.taxonomy.hazards
        detail = ", ".join(hazards[code].name if code in hazards else "unsafe content" for code in broken)
        return Verdict.block(categories=codes, score=score, detail=detail)

    async def _judge(self, dialogue: Sequence[Message]) -> tuple[RawPrompt, float, str]:
        """The last turns as a prompt, the oldest left out until it fits; the probability of `unsafe`; and its lead."""
        *earlier, last = [i for i, message in enumerate(dialogue) if message.role == "user"][-self.config.turns :]
        for begin in earlier:
            with suppress(PromptTooLong):
                return await self._score(guard_prompt(dialogue[begin:], self.taxonomy))
        return await self._score(guard_prompt(dialogue[last:], self.taxonomy))

    async def _score(self, prompt: RawPrompt) -> tuple[RawPrompt, float, str]:
        """Where an answer begins in one way alone, that is written for it, and the first word is its first token."""
        leads = self.taxonomy.leads
        if len(leads) == 1:
            prompt, leads = RawPrompt(tuple(part for part in (*prompt.parts, Part(leads[0])) if part.text)), ("",)
        scores = await self.guard.score(prompt, [lead + word for word in (UNSAFE, SAFE) for lead in leads])
        unsafe, safe = scores[: len(leads)], scores[len(leads) :]
        return prompt, _share(unsafe, safe), leads[unsafe.index(max(unsafe))]

    def _wanted(self, lead: str) -> SamplingParams:
        """An answer that is unsafe and names listed hazards, in as many tokens as these may take."""
        hazards = tuple(self.taxonomy.hazards)
        listed = Choices(hazards, opening=f"{lead}{UNSAFE}\n", separator=",")
        return SamplingParams(max_tokens=16 + sum(len(code) + 1 for code in hazards), choices=listed)


def read_answer(text: str, taxonomy: Taxonomy) -> tuple[str, ...]:
    """The hazards that an answer names; none when it is safe. Raises RailFailed when it is neither.

    >>> guard = read_taxonomy("llama-guard-3")
    >>> read_answer("safe", guard), read_answer("unsafe\\nS1, S10", guard), read_answer("unsafe", guard)
    ((), ('S1', 'S10'), ('unlisted',))
    """
    match text.replace(",", " ").split():
        case ["safe"]:
            return ()
        case ["unsafe", *codes]:
            known = (code if code in taxonomy.hazards else UNLISTED for code in codes)
            return tuple(dict.fromkeys(known)) or (UNLISTED,)
    raise RailFailed("Llama Guard answered neither 'safe' nor 'unsafe'")


def _hazards(said: Mapping[str, Any]) -> dict[str, Hazard]:  # Any: the keys of a config that are read so far
    """All hazards that a guard can be asked for: the taxonomy's, then the policy's own. None where these are wrong."""
    if "taxonomy" not in said or "categories" not in said:
        return {}
    taxonomy = read_taxonomy(said["taxonomy"])
    own = {code: taxonomy.hazard(keys.name, keys.description) for code, keys in said["categories"].items()}
    return {**taxonomy.hazards, **own}


Codes = TypeVar("Codes", tuple[str, ...], dict[str, float])


def _check(codes: Codes, known: Collection[str] | None, otherwise: str) -> Codes:
    """The codes, all of which are known; nothing is checked against what is not there. Raises ValueError."""
    if known and (unknown := [code for code in codes if code not in known]):
        raise ValueError(f"{unknown[0]!r} is {otherwise}{nearest(unknown[0], known)}")
    return codes


def _share(unsafe: Sequence[float], safe: Sequence[float]) -> float:
    """The probability of `unsafe`, of the log-probabilities of each way to write it. Raises RailFailed for none."""
    highest = max(*unsafe, *safe)
    if any(map(math.isnan, (*unsafe, *safe))) or not math.isfinite(highest):
        raise RailFailed("the guard's scores are no log-probabilities")
    weights = [[math.exp(score - highest) for score in scores] for scores in (unsafe, safe)]
    return math.fsum(weights[0]) / math.fsum((*weights[0], *weights[1]))
