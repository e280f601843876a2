"""Hazards: ask a guard model, as it is asked of a conversation, whether the last message is unsafe, and in which way.

The model is one that answers `safe` or `unsafe` without a prompt of ours: the embedded `minilm-guard` above all. Llama
Guard, which wants its own prompt, has its own rail. Unsafe is what the model finds more probable than the
threshold; hazards are those of MLCommons, as far as the model knows them: what a judge was taught, its card says.
"""

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from trackbed.llm.types import Message, SamplingParams
from trackbed.rails.config import ModelName, RailConfig
from trackbed.rails.library.english import is_foreign
from trackbed.rails.library.llama_guard import UNLISTED, read_answer
from trackbed.rails.library.opinion import unsafe
from trackbed.rails.library.taxonomy import read_taxonomy
from trackbed.rails.template import nearest
from trackbed.rails.types import Models, Stage, Streams, Then, Turn, Verdict

TAXONOMY = "llama-guard-3"
ANSWER = SamplingParams(temperature=0.0, max_tokens=32)
WEAK = "unsafe content"
FOREIGN = "the guard was made for English, which this does not look like"


class Hazards:
    """Blocks what a guard model calls unsafe."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval", "tools", "output"})
    streams: ClassVar[Streams] = "prefix"
    calls: ClassVar[int] = 2  # about one text: its score, and which hazards it has
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "drop", "regenerate"})

    class Config(RailConfig):
        """Which model is asked, and what of its answer counts."""

        model: ModelName = Field("guard", description="The policy's name of a guard model, such as minilm-guard.")
        threshold: float = Field(
            0.5, gt=0, le=1, description="The probability of `unsafe` from which a text is; lower blocks more."
        )
        allow: tuple[str, ...] = Field(
            (), description="Codes of hazards that pass: a text passes where the model names these alone."
        )

        language: Literal["en", "any"] = Field(
            "en",
            description="What the model was made for. With en, a verdict that lets a text pass which does not look "
            "English says that the model is a weak judge of it; any is for a model that reads other languages too.",
        )

        @field_validator("allow")
        @classmethod
        def _known(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
            hazards = read_taxonomy(TAXONOMY).hazards
            if unknown := [code for code in allow if code not in hazards]:
                raise ValueError(f"{unknown[0]!r} is not a hazard{nearest(unknown[0], hazards)}")
            return allow

    def __init__(self, config: Config, models: Models) -> None:
        self.config = config
        self.guard = models.generators[config.model]
        self.taxonomy = read_taxonomy(TAXONOMY)

    async def check(self, turn: Turn) -> Verdict:
        """Judge the text: an answer beside the question before it. Raises RailFailed, and what the model raises."""
        if not turn.text.strip():
            return Verdict.allow()
        prompt = _prompt(turn)
        score = await unsafe(self.guard, prompt)
        if score < self.config.threshold:
            weak = self.config.language == "en" and is_foreign(turn.text)
            return Verdict.allow(score=score, detail=FOREIGN if weak else "")
        answer = await self.guard.generate(prompt, ANSWER)
        codes = read_answer(answer.text, self.taxonomy) or (UNLISTED,)
        hazards = self.taxonomy.hazards
        broken = [code for code in codes if code not in self.config.allow]
        if not broken:
            return Verdict.allow(categories=codes, score=score)
        detail = ", ".join(hazards[code].name if code in hazards else WEAK for code in broken)
        return Verdict.block(categories=codes, score=score, detail=detail)


def _prompt(turn: Turn) -> tuple[Message, ...]:
    """What is judged, as the last message; a draft after the question that it answers."""
    if turn.stage == "output":
        return (Message("user", turn.question), Message("assistant", turn.text))
    return (Message("user", turn.text),)
