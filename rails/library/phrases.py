"""Listed words and phrases in a text: whole, and however they are written.

Upper and lower case, full-width letters, accents of either form and characters that cannot be seen make no difference;
a phrase is found over line ends and hyphens too. A list of thousands costs what a short one costs.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Annotated

import re2
from pydantic import AfterValidator, Field

from trackbed.rails.library.spans import Folded, fold
from trackbed.rails.library.tokens import TOKEN, Token, tokens

ONLY_WORDS = re2.compile(r"[\pL\pM\pN_ '’.-]+")
APART = 3  # characters between two words of a phrase, at most
MOST = 50_000  # words in a list


def _of_letters(phrase: str) -> str:
    if not TOKEN.search(phrase) or not ONLY_WORDS.fullmatch(phrase):
        raise ValueError(f"{phrase!r} is no word or phrase; for signs and patterns there is the rail 'regex'")
    return phrase


Phrase = Annotated[str, Field(max_length=200), AfterValidator(_of_letters)]


class Phrases:
    """A list of them, ready to be looked for."""

    def __init__(self, listed: Iterable[str]) -> None:
        # By their first word, the longest first, so that what is found is as long as it can be.
        phrases: dict[str, set[tuple[str, ...]]] = {}
        for written in listed:
            phrase = tuple(token.text for token in tokens(fold(written)))
            phrases.setdefault(phrase[0], set()).add(phrase)
        self.phrases = {first: sorted(found, key=len, reverse=True) for first, found in phrases.items()}
        self.longest = max(len(phrase) for found in self.phrases.values() for phrase in found)

    def found(self, folded: Folded) -> Iterator[tuple[int, int]]:
        """Where listed phrases stand in a folded text, from left to right and apart."""
        said, at = list(tokens(folded)), 0
        while at < len(said):
            count = self._begins(said, at)
            if count:
                yield said[at].start, said[at + count - 1].end
            at += max(count, 1)

    def held(self, folded: Folded) -> int:
        """Where in the text as written the last words begin that may yet be a phrase, or another word."""
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
