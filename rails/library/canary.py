"""Canary: object to a draft that gives away a text that was to stay secret, such as the system prompt.

What leaks is found as runs of its words, however they are cased, spaced or padded with what cannot be seen, and as
exact words planted for that. A rail is not given the system prompt, so the policy names the texts. A translation, a
summary or an encoding of a text shares no runs of words with it, and is not found.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Annotated, ClassVar, NamedTuple

import re2
from pydantic import Field, model_validator

from trackbed.rails.config import RailConfig
from trackbed.rails.library.plain import CONFUSABLES, INVISIBLE
from trackbed.rails.library.spans import Folded, disjoint, fold
from trackbed.rails.types import Models, Stage, Streams, Then, Turn, Verdict

WORD = re2.compile(r"[\pL\pM\pN]+")
LEAK, TOKEN = "SYSTEM_PROMPT", "CANARY"
SHORTEST = 6  # letters and digits of a canary: a shorter one stands in other words


class Canary:
    """Finds runs of the words of secret texts, and planted words."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"tools", "output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask", "regenerate"})
    # A longer draft holds all runs of a shorter one: characters are read one by one, and the last word of a run may go
    # on. So what is blocked once stays blocked.
    streams: ClassVar[Streams] = "prefix"

    class Config(RailConfig):
        """The texts that are to stay secret, and how much of one is a leak."""

        texts: list[Annotated[str, Field(max_length=200_000)]] = Field(
            default_factory=list,
            max_length=100,
            description="Texts that must not be given away, such as the system prompt; also !include of a file.",
        )
        ngram: int = Field(
            6, ge=2, le=50, description="How many words in a row are told from chance; a lower number finds more."
        )
        minimum: float = Field(
            1,
            gt=0,
            description="How much of a text is a leak: below 1 the share of its runs of words, from 1 on their number.",
        )
        tokens: list[Annotated[str, Field(max_length=200)]] = Field(
            default_factory=list,
            max_length=1000,
            description="Words planted in a secret text, of six letters and digits or more; any one of them is a leak.",
        )

        @model_validator(mode="after")
        def _finds_something(self) -> "Canary.Config":
            if not self.texts and not self.tokens:
                raise ValueError("there is nothing to find; give texts, tokens or both")
            for text in self.texts:
                if len(list(_words(_letters(text)))) < self.ngram:
                    raise ValueError(
                        f"a text of fewer than {self.ngram} words has no run of so many; list it in tokens"
                    )
            for token in self.tokens:
                if len("".join(word.text for word in _words(_letters(token)))) < SHORTEST:
                    raise ValueError(f"the token {token!r} has fewer than {SHORTEST} letters and digits")
            return self

    def __init__(self, config: Config, models: Models) -> None:
        self.ngram = config.ngram
        secret = [[word.text for word in _words(_letters(text))] for text in config.texts]
        self.texts = [_Secret.of(words, config.ngram) for words in secret]
        self.least = [config.minimum if config.minimum >= 1 else config.minimum * text.runs for text in self.texts]
        self.tokens = [_joined(list(_words(_letters(token)))) for token in config.tokens]

    async def check(self, turn: Turn) -> Verdict:
        """Block on a leak of any text or token. The score is the largest share of a text's runs that is said."""
        letters = _letters(turn.text)
        words = list(_words(letters))
        findings = [letters.finding(TOKEN, start, end) for start, end in self._planted(words)]
        kinds, score = ["token"] if findings else [], 0.0
        for text, least in zip(self.texts, self.least, strict=True):
            said, at = text.said([word.text for word in words], self.ngram)
            score = max(score, said / text.runs)
            if said and said >= least:
                kinds.append("text")
                spans = ((words[i].start, words[i + self.ngram - 1].end) for i in at)
                findings += [letters.finding(LEAK, start, end) for start, end in _merged(spans)]
        if not findings:
            return Verdict.allow(score=score) if self.texts else Verdict.allow()
        return Verdict.block(
            detail="a text that is to stay secret",
            categories=tuple(dict.fromkeys(kinds)),
            score=1.0 if "token" in kinds else score,
            findings=disjoint(findings),
        )

    def _planted(self, words: "Sequence[_Word]") -> Iterator[tuple[int, int]]:
        """Where the tokens stand, though signs and spaces stand between their letters."""
        joined = _joined(words)
        owners = [i for i, word in enumerate(words) for _ in word.text] if self.tokens else []
        for token in self.tokens:
            at = joined.find(token)
            while at >= 0:
                yield words[owners[at]].start, words[owners[at + len(token) - 1]].end
                at = joined.find(token, at + len(token))


class _Word(NamedTuple):
    """A word as it is compared, and where it stands among the letters."""

    text: str
    start: int
    end: int


class _Secret(NamedTuple):
    """The runs of words of one text."""

    lasts: dict[tuple[str, ...], frozenset[str]]  # the last words of the runs that begin so
    runs: int

    @classmethod
    def of(cls, words: Sequence[str], length: int) -> "_Secret":
        runs = set(_runs(words, length))
        lasts: dict[tuple[str, ...], set[str]] = {}
        for run in runs:
            lasts.setdefault(run[:-1], set()).add(run[-1])
        return cls({first: frozenset(last) for first, last in lasts.items()}, len(runs))

    def said(self, words: Sequence[str], length: int) -> tuple[int, list[int]]:
        """How many different runs these words hold, and where each begins."""
        found, at = set[tuple[str, ...]](), list[int]()
        for i, run in enumerate(_runs(words, length)):
            ends = [last for last in self.lasts.get(run[:-1], ()) if run[-1].startswith(last)]
            if ends:
                at.append(i)
                found.update((*run[:-1], last) for last in ends)
        return len(found), at


def _letters(text: str) -> Folded:
    """The text in small Latin letters for all that are drawn like them, without accents and what cannot be seen."""
    folded = fold(text)
    if folded.text.isascii() and not INVISIBLE.search(folded.text):
        return Folded(folded.text.lower(), folded.origins, folded.length)
    read = [_letter(c) for c in folded.text]
    origins = [origin for origin, letters in zip(folded.origins, read, strict=True) for _ in letters]
    return Folded("".join(read), origins, folded.length)


@lru_cache(maxsize=4096)
def _letter(char: str) -> str:
    """One character as it is compared: one, none or several."""
    if INVISIBLE.match(char):
        return ""
    apart = unicodedata.normalize("NFKD", char.translate(CONFUSABLES))
    return "".join(c for c in apart if not unicodedata.category(c).startswith("M")).casefold()


def _words(letters: Folded) -> Iterator[_Word]:
    for match in WORD.finditer(letters.text):
        yield _Word(match.group(), match.start(), match.end())


def _joined(words: "Sequence[_Word]") -> str:
    return "".join(word.text for word in words)


def _runs(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    """Every run of so many words."""
    return zip(*(words[i:] for i in range(length)), strict=False)


def _merged(spans: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The spans, which come from left to right, with those that touch as one."""
    reached: tuple[int, int] | None = None
    for start, end in spans:
        if reached and start <= reached[1]:
            reached = reached[0], end
        else:
            if reached:
                yield reached
            reached = start, end
    if reached:
        yield reached
