"""Length: refuse a text that is too long, or too short, to be judged or answered."""

from typing import ClassVar

from pydantic import ConfigDict, Field, model_validator

from trackbed.rails.config import RailConfig
from trackbed.rails.types import Models, Stage, Streams, Then, Turn, Verdict


class Length:
    """Blocks a text of too many characters or words, or of too few characters."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval", "tools", "output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block"})

    class Config(RailConfig):
        """The limits; a text exactly at one of them passes."""

        model_config = ConfigDict(
            json_schema_extra={"anyOf": [{"required": [key]} for key in ("max_chars", "max_words", "min_chars")]}
        )
        max_chars: int | None = Field(None, ge=1, description="The most characters (Unicode code points) of a text.")
        max_words: int | None = Field(None, ge=1, description="The most words of a text, as white space parts them.")
        min_chars: int | None = Field(
            None, ge=1, description="The fewest characters of a text, not counting white space around it."
        )

        @model_validator(mode="after")
        def _limits_something(self) -> "Length.Config":
            if self.max_chars is None and self.max_words is None and self.min_chars is None:
                raise ValueError("sets no limit; give at least one of: max_chars, max_words, min_chars")
            if self.min_chars and self.max_chars and self.min_chars > self.max_chars:
                raise ValueError(f"min_chars ({self.min_chars}) is above max_chars ({self.max_chars}): nothing passes")
            return self

        @property
        def streams(self) -> Streams:
            """What is too long stays so; what is too short may grow."""
            return "whole" if self.min_chars else "prefix"

    def __init__(self, config: Config, models: Models) -> None:
        self.config = config

    async def check(self, turn: Turn) -> Verdict:
        """Block a text outside the limits; the categories say on which side."""
        most, words, least = self.config.max_chars, self.config.max_words, self.config.min_chars
        if most is not None and len(turn.text) > most:
            return Verdict.block(detail=f"longer than {most} characters", categories=("too_long",))
        # Splitting no more often than it takes to know keeps a long text cheap.
        if words is not None and len(turn.text.split(None, words)) > words:
            return Verdict.block(detail=f"longer than {words} words", categories=("too_long",))
        if least is not None and len(turn.text.strip()) < least:
            return Verdict.block(detail=f"shorter than {least} characters", categories=("too_short",))
        return Verdict.allow()
