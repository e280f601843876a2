"""How far passages support a sentence: word by word, with numbers, names and negation held to more.

It compares words; it does not reason. On sentences that were written about a passage this is a strong
signal, and a fluent contradiction in the passage's own words can pass.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from trackbed.rails.sentences import Sentence, content, sentences
from trackbed.retrieval.types import Passage

MISSING_NUMBER = 0.2  # the most that a sentence is supported whose number no passage has
MISSING_NAME = 0.4
FLIPPED = 0.5  # one of the two says no, and the other does not


class Support(NamedTuple):
    """The stretch of a passage that supports a sentence best: `passages[passage].text[start:end]`."""

    score: float  # 0 to 1
    passage: int = -1  # -1: there is none
    start: int = 0
    end: int = 0


def support(claim: str, passages: Sequence[Passage]) -> Support:
    """The best support for one sentence: one or two neighbouring sentences of a passage, or its heading with them."""
    claimed = content(claim)
    if not claimed.words and not claimed.numbers:
        return Support(0.0)
    best = Support(0.0)
    for number, passage in enumerate(passages):
        heading = content(passage.heading).words
        for stretch in stretches(passage.text):
            said = content(stretch.text)
            needed = claimed.words | claimed.numbers
            score = len(needed & (said.words | said.numbers | heading)) / len(needed)
            if not claimed.numbers <= said.numbers:
                score = min(score, MISSING_NUMBER)
            if not claimed.names <= said.words | heading:
                score = min(score, MISSING_NAME)
            if claimed.negated != said.negated:
                score = min(score, FLIPPED)
            if score > best.score:
                best = Support(score, number, stretch.start, stretch.end)
    return best


def stretches(text: str) -> list[Sentence]:
    """Each sentence, and after it each sentence with the next: shorter ones first, so that they win ties."""
    single = sentences(text)
    pairs = pairwise(single)
    return single + [Sentence(text[a.start : b.end], a.start, b.end) for a, b in pairs]
