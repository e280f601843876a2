"""Which stretches of which passages stand behind a sentence, where one does, or where its claims rest on several.

It decides how far a passage must support a sentence to be cited. How far one does is `support.py`'s business; this file
knows nothing of marks as they are written, of numbers or of replies.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from trackbed.rails.sentences import content
from trackbed.rails.support import Support, support
from trackbed.retrieval.types import Passage

NAMED, UNNAMED = 0.5, 0.75  # how far a passage must support a sentence whose mark names it, and any other
WORTH = 0.4  # the share of a sentence's content words that a passage must have at all to be looked into
MOST_CLAIMS = 4  # of a sentence
CLAIM_WORDS = 2  # content words that a claim has at least
# Between claims. Behind a bare "and" the subject can be left out, so that only the same passage can speak of it, or
# one that a mark names.
BETWEEN = re.compile(
    r";\s|,\s(?:and|but|while|whereas|although|though|so|yet|or)\s|\s(?:but|while|whereas|although|though)\s"
    r"|\s[–—]\s|(?P<bare>\sand\s)",
    re.IGNORECASE,
)


def evidence(said: str, named: Sequence[int], passages: Sequence[Passage]) -> tuple[Support, ...]:
    """What supports a sentence: each of the passages that its marks name and that does, else the best one.

    Where no passage supports all of it, each of its claims must be supported by one. Where that fails too, marks
    are believed as far as half of the sentence goes. Empty where nothing supports it.
    """
    worth = _worth(said, passages)
    marked = [n - 1 for n in dict.fromkeys(named) if 1 <= n <= len(passages)]
    by_mark = [found for n in marked if n in worth and (found := _best(said, [n], passages)).score >= NAMED]
    if sure := [found for found in by_mark if found.score >= UNNAMED]:
        return tuple(sure)
    best = _best(said, worth, passages)
    if best.score >= UNNAMED:
        return (best,)
    if several := _claim_by_claim(said, marked, passages):
        return several
    return tuple(by_mark) or ((best,) if named and best.score >= NAMED else ())


def claims(said: str) -> list[tuple[str, bool]]:
    """What a sentence claims, one thing after the other, and whether each can stand without the one before it.

    >>> [words for words, _ in claims("The library opens at nine, and members may borrow five books.")]
    ['The library opens at nine', 'members may borrow five books.']
    """
    found, begins, alone = list[tuple[str, bool]](), 0, True
    for match in BETWEEN.finditer(said):
        words = said[begins : match.start()]
        rest = said[match.end() :]
        if min(len(content(words).stems), len(content(rest).stems)) >= CLAIM_WORDS:
            found.append((words, alone))
            begins, alone = match.end(), not match["bare"]
    return [*found, (said[begins:], alone)]


def _claim_by_claim(said: str, marked: Sequence[int], passages: Sequence[Passage]) -> tuple[Support, ...]:
    """The support of each claim of a sentence that makes several; empty where one of them has none."""
    made, found = claims(said), list[Support]()
    if not 1 < len(made) <= MOST_CLAIMS:
        return ()
    names = content(said).names
    for words, alone in made:
        worth = _worth(words, passages)
        where = [n for n in worth if alone or n in marked or n == found[-1].passage]
        best = _best(words, where, passages)
        if best.score < UNNAMED:
            best = _best(words, [n for n in where if n in marked], passages)
        if best.score < NAMED:
            return ()
        # The first word of a claim is no name to `content`, but it is one in the sentence.
        spoken = content(_stretch(best, passages)).words | content(passages[best.passage].heading).words
        if not names & frozenset(content(words).stems) <= spoken:
            return ()
        found.append(best)
    return tuple(dict.fromkeys(found))


def _stretch(found: Support, passages: Sequence[Passage]) -> str:
    return passages[found.passage].text[found.start : found.end]


def _worth(said: str, passages: Sequence[Passage]) -> list[int]:
    """The passages that have enough of the sentence's words to be looked into, which takes longer."""
    needed = frozenset(content(said).stems)
    enough = max(1.0, WORTH * len(needed))
    return [n for n, p in enumerate(passages) if len(needed & spoken(p.text, p.heading)) >= enough]


@lru_cache(maxsize=64)
def spoken(text: str, heading: str) -> frozenset[str]:
    """The stems of all words and numbers of a passage."""
    return frozenset(content(text).stems) | frozenset(content(heading).stems)


def _best(said: str, where: Sequence[int], passages: Sequence[Passage]) -> Support:
    """The best support in some of the passages, under its number among all of them."""
    found = support(said, [passages[n] for n in where])
    return found._replace(passage=where[found.passage]) if found.passage >= 0 else found
