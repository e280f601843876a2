"""Regex: object to what matches one of the policy's patterns.

Patterns are RE2's, so that no text and no pattern can make a match take more than linear time; look-around and
back-references are the price.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, ClassVar

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from trackbed.rails.config import RailConfig
from trackbed.rails.errors import RailFailed
from trackbed.rails.library.partial import Beginnings
from trackbed.rails.library.spans import disjoint
from trackbed.rails.pattern import PatternBudget, compile_pattern
from trackbed.rails.types import Finding, Models, Stage, Streams, Then, Turn, Verdict

# Told apart before they are read, so that a mistake in a mapping is not reported as a list's.
Patterns = Annotated[
    Annotated[list[str], Field(min_length=1), Tag("list")]
    | Annotated[dict[str, str], Field(min_length=1), Tag("mapping")],
    Discriminator(lambda value: "mapping" if isinstance(value, dict) else "list"),
]
MOST_MATCHES = 10_000  # of all patterns together: each match costs at most one pass over the text


class Regex:
    """Finds every match of the patterns; a match of the empty string is none."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval", "tools", "output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask", "drop"})

    class Config(RailConfig):
        """The patterns, and what to call what they match."""

        ignore_case: bool = Field(False, description="Whether upper and lower case match each other.")
        label: str = Field("MATCH", min_length=1, description="What matches are called where patterns have no names.")
        patterns: Patterns = Field(
            description="RE2 patterns: a list, or a mapping from the name to report (and to mask with) to the pattern. "
            r"\w, \d, \s and \b know ASCII alone; \pL and \pN are the letters and numbers of every script.",
        )

        @field_validator("patterns")
        @classmethod
        def _known_to_re2(cls, patterns: Patterns, info: ValidationInfo) -> Patterns:
            for pattern in patterns.values() if isinstance(patterns, dict) else patterns:
                (info.context or PatternBudget()).compile(pattern, info.data.get("ignore_case", False))
            return patterns

        @cached_property
        def beginnings(self) -> Beginnings | None:
            """Of what the patterns match; None where they cannot be told."""
            patterns = self.patterns.values() if isinstance(self.patterns, dict) else self.patterns
            try:
                return Beginnings(list(patterns), ignore_case=self.ignore_case)
            except ValueError:
                return None

        @property
        def streams(self) -> Streams:
            """A match that may still grow can be told from one that is complete."""
            return "spans" if self.beginnings else "whole"

    def __init__(self, config: Config, models: Models) -> None:
        named = (
            config.patterns.items()
            if isinstance(config.patterns, dict)
            else [(config.label, pattern) for pattern in config.patterns]
        )
        self.config = config
        self.patterns = [(name, compile_pattern(pattern, config.ignore_case)) for name, pattern in named]

    async def check(self, turn: Turn) -> Verdict:
        """Block on any match, and say where each is. Raises RailFailed on more matches than anyone wants masked."""
        text = _readable(turn.text)
        if not any(pattern.search(text) for _, pattern in self.patterns):  # as of most texts: nothing to gather
            return Verdict.allow()
        findings = disjoint(self._matches(text))
        if not findings:
            return Verdict.allow()
        names = tuple(dict.fromkeys(finding.label for finding in findings))
        return Verdict.block(detail=", ".join(names), categories=names, findings=findings)

    def held(self, turn: Turn) -> int:
        """From where on a match may have begun that is not complete."""
        assert self.config.beginnings
        return self.config.beginnings.start(_readable(turn.text))

    def _matches(self, text: str) -> Iterator[Finding]:
        matches = ((name, match) for name, pattern in self.patterns for match in pattern.finditer(text))
        for count, (name, match) in enumerate(matches):
            if count == MOST_MATCHES:
                raise RailFailed(f"more than {MOST_MATCHES} matches; a pattern that matches longer pieces finds fewer")
            if match.end() > match.start():
                yield Finding(name, match.start(), match.end())


def _readable(text: str) -> str:
    """The text as RE2 can read it: half of a surrogate pair has no UTF-8 and is judged as "?", so that offsets stay."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
