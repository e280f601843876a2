"""Words: object to words and phrases that a policy lists, whole and however they are written.

Upper and lower case, full-width letters, accents of either form and characters that cannot be seen make no difference;
a phrase is found over line ends and hyphens too. A list of thousands costs what a short one costs.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar

import re2
from pydantic import BeforeValidator, Field, field_validator

from trackbed.rails.config import RailConfig
from trackbed.rails.library.spans import fold
from trackbed.rails.library.tokens import TOKEN, Token, tokens
from trackbed.rails.types import Finding, Models, Stage, Streams, Then, Turn, Verdict

ONLY_WORDS = re2.compile(r"[\pL\pM\pN_ '’.-]+")
APART = 3  # characters between two words of a phrase, at most
MOST = 50_000  # words in a list


def _lines(value: object) -> object:
    return [line for line in value.splitlines() if line.strip()] if isinstance(value, str) else value


class Words:
    """Finds listed words and phrases."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval", "tools", "output"})
    streams: ClassVar[Streams] = "spans"
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask", "drop"})

    class Config(RailConfig):
        """The list, and what to call what is on it."""

        words: Annotated[
            list[Annotated[str, Field(max_length=200)]],
            BeforeValidator(_lines, json_schema_input_type=list[str] | str),
            Field(min_length=1, max_length=MOST),
        ] = Field(description="Words and phrases: a list, or !include of a text file with one on each line.")
        label: str = Field("WORD", min_length=1, description="What they are called when they are masked.")

        @field_validator("words")
        @classmethod
        def _of_letters(cls, words: list[str]) -> list[str]:
            for word in words:
                if not TOKEN.search(word) or not ONLY_WORDS.fullmatch(word):
                    raise ValueError(f"{word!r} is no word or phrase; for signs and patterns there is the rail 'regex'")
            return words

    def __init__(self, config: Config, models: Models) -> None:
        self.label = config.label
        # By their first word, the longest first, so that what is found is as long as it can be.
        phrases: dict[str, set[tuple[str, ...]]] = {}
        for written in config.words:
            phrase = tuple(token.text for token in tokens(fold(written)))
            phrases.setdefault(phrase[0], set()).add(phrase)
        self.phrases = {first: sorted(found, key=len, reverse=True) for first, found in phrases.items()}
        self.longest = max(len(phrase) for found in self.phrases.values() for phrase in found)

    async def check(self, turn: Turn) -> Verdict:
        """Block on any listed word, and say where each is."""
        folded = fold(turn.text)
        said, at = list(tokens(folded)), 0
        findings: list[Finding] = []
        while at < len(said):
            count = self._begins(said, at)
            if count:
                findings.append(folded.finding(self.label, said[at].start, said[at + count - 1].end))
            at += max(count, 1)
        if not findings:
            return Verdict.allow()
        return Verdict.block(detail=self.label, categories=(self.label,), findings=tuple(findings))

    def held(self, turn: Turn) -> int:
        """Where the last words begin that may yet be a phrase, or another word."""
        folded = fold(turn.text)
        said = list(tokens(folded))
        return folded.origin(said[-self.longest].start) if len(said) > self.longest else 0

    def _begins(self, words: Sequence[Token], at: int) -> int:
        """How many words the longest listed phrase has that begins there; 0 where none does."""
        for phrase in self.phrases.get(words[at].text, ()):
            said = words[at : at + len(phrase)]
            near = all(after.start - before.end <= APART for before, after in pairwise(said))
            if near and tuple(token.text for token in said) == phrase:
                return len(phrase)
        return 0
