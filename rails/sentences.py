"""Find the sentences of a text, and what they speak of: content words, numbers and names.

It reads prose and Markdown: headings and code are no sentences, list items and table rows are. It knows
English; it knows nothing of passages, drafts or verdicts.
"""

import re
from functools import lru_cache
from typing import NamedTuple

FENCE = re.compile(r"\s{0,3}(```|~~~)")
HEADING = re.compile(r"\s{0,3}#{1,6}\s")
ITEM = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)])\s+")
RULE = re.compile(r"[\s|:=\-]+$")  # a table's or a heading's line of dashes
END = re.compile(r"[.!?][\"'”’)\]*`]{0,3}(?=\s)")
ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|Dr|Mr|Mrs|Ms|Prof|St|No|Fig|approx)|\b[A-Z])\.$")
WORD = re.compile(r"[^\W_]+(?:['’.\-][^\W_]+)*")
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
BEGINS = ("", ".", "!", "?", ":", '"', "“", "*")  # what stands before the first word of a sentence, or of a quotation
SUFFIXES = ("ings", "ing", "edly", "ied", "ies", "ed", "es", "ly", "s", "e", "y")
NEGATIONS = frozenset({"no", "not", "never", "none", "neither", "nor", "cannot", "without"})
STOP_WORDS = NEGATIONS | frozenset(
    """a about above after again all also am an and any are as at be because been before being below between both but
    by can could did do does doing down during each else few for from further get had has have having he her here hers
    him his how i if in into is it its itself just let like many may me might more most much must my of off on once
    only or other our out over own please same shall she should so some such than that the their them then there these
    they this those through to too under until up upon us use used uses using very was we were what when where which
    while who whom whose why will with would you your yes""".split()  # noqa: SIM905
)


class Sentence(NamedTuple):
    """`text[start:end]` of the text it was found in."""

    text: str
    start: int
    end: int


def sentences(text: str) -> list[Sentence]:
    """The sentences of a text, in order; none is blank, a heading, or code in fences.

    >>> [s.text for s in sentences("# Rails\\n- One check, e.g. a regex. It judges.\\n```\\nx.y\\n```\\n")]
    ['One check, e.g. a regex.', 'It judges.']
    """
    found: list[Sentence] = []
    for start, end in _paragraphs(text):
        at = start
        for match in END.finditer(text, start, end):
            if not ABBREVIATION.search(text, max(at, match.start() - 8), match.start() + 1):
                found.append(_trimmed(text, at, match.end()))
                at = match.end()
        found.append(_trimmed(text, at, end))
    return [s for s in found if WORD.search(s.text)]


class Content(NamedTuple):
    """What a sentence speaks of."""

    stems: tuple[str, ...]  # of its content words and numbers, in order
    words: frozenset[str]  # the stems of words alone
    numbers: frozenset[str]
    names: frozenset[str]  # stems of words that begin with a capital inside a sentence
    negated: bool


@lru_cache(maxsize=512)  # while a draft is written, its first sentences are looked at again and again
def content(text: str) -> Content:
    """What a sentence, or a longer text, speaks of."""
    stems, names, negated = list[str](), set[str](), False
    for match in WORD.finditer(text):
        word = match.group()
        low = word.lower().replace("’", "'")
        negated = negated or low in NEGATIONS or low.endswith("n't")
        if low in STOP_WORDS or low.endswith("n't"):
            continue
        stems.append(word if NUMBER.fullmatch(word) else stem(low))
        if word[0].isupper() and _before(text, match.start()) not in BEGINS:
            names.add(stem(low))
    numbers = frozenset(NUMBER.findall(text))
    return Content(tuple(stems), frozenset(stems) - numbers, numbers, frozenset(names), negated)


def _before(text: str, at: int) -> str:
    """The last character before a place that is no white space; empty where there is none."""
    while at and text[at - 1].isspace():
        at -= 1
    return text[at - 1 : at] if at else ""


@lru_cache(maxsize=8192)  # texts are many, words are few
def stem(word: str) -> str:
    """A lower-case English word without its ending, roughly: 'policies' and 'policy' meet.

    >>> stem("policies") == stem("policy"), stem("ingested") == stem("ingest")
    (True, True)
    """
    word = word.removesuffix("'s")
    for suffix in SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word


def _paragraphs(text: str) -> list[tuple[int, int]]:
    """Stretches that hold whole sentences: paragraphs, list items, table rows."""
    found: list[tuple[int, int]] = []
    open_at: int | None = None
    fenced, at = False, 0
    for line in text.splitlines(keepends=True):
        item = ITEM.match(line)
        alone = fenced or not line.strip() or FENCE.match(line) or HEADING.match(line) or RULE.match(line)
        row = line.lstrip().startswith("|")
        if open_at is not None and (alone or item or row):
            found.append((open_at, at))
            open_at = None
        if FENCE.match(line):
            fenced = not fenced
        elif row and not alone:
            found.append((at, at + len(line)))
        elif not alone and open_at is None:
            open_at = at + (item.end() if item else 0)
        at += len(line)
    if open_at is not None:
        found.append((open_at, len(text)))
    return found


def _trimmed(text: str, start: int, end: int) -> Sentence:
    """The stretch without white space around it."""
    start += len(text[start:end]) - len(text[start:end].lstrip())
    return Sentence(text[start:end].rstrip(), start, start + len(text[start:end].rstrip()))
