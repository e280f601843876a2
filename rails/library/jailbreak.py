"""Jailbreak: a user who tries to talk the model out of its rules.

Heuristics over `attacks.py`; English, and no match for an attacker who takes care. Text that only speaks of
such attacks should pass. With a `model`, a judge that was trained for this is asked too; the surer one decides.
"""

from typing import ClassVar

from pydantic import Field

from trackbed.rails.config import ModelName, RailConfig
from trackbed.rails.library.attacks import USER, attacks, probability
from trackbed.rails.library.opinion import unsafe_reading
from trackbed.rails.library.views import readings
from trackbed.rails.types import Finding, Models, Stage, Then, Turn, Verdict


class Jailbreak:
    """Blocks attempts to override instructions, reveal the prompt, or become something without rules."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "tools"})
    asks: ClassVar[str] = "model"  # it waits for nothing where this names none
    actions: ClassVar[frozenset[Then]] = frozenset({"block"})

    class Config(RailConfig):
        """When to be sure."""

        threshold: float = Field(
            0.5, gt=0, le=1, description="The probability from which a text is blocked; lower blocks more."
        )
        model: ModelName | None = Field(
            None, description="The policy's name of a guard model that is asked too, such as minilm-injection."
        )
        model_threshold: float | None = Field(
            None, gt=0, le=1, description="The probability from which the model is believed; `threshold`, if unset."
        )

    def __init__(self, config: Config, models: Models) -> None:
        self.threshold, self.surely = config.threshold, config.model_threshold or config.threshold
        self.model = models.generators[config.model] if config.model else None

    async def check(self, turn: Turn) -> Verdict:
        """Judge the text by the families of attack that are found in it, each counted once; then ask the model.

        Raises RailFailed where its answer cannot be read, and what it raises.
        """
        read = readings(turn.text)
        found = attacks(read, USER)
        families, score = tuple(dict.fromkeys(match.family for match in found)), probability(found)
        if score < self.threshold:
            told = await unsafe_reading(self.model, read) if self.model and turn.text.strip() else 0.0
            score = max(score, told)
            if told < self.surely:
                return Verdict.allow(score=score)
        return Verdict.block(
            detail="an attempt to set the rules aside",
            categories=families,
            score=score,
            findings=tuple(Finding("JAILBREAK", match.start, match.end) for match in found),
        )
