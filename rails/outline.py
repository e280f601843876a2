"""The parts of an answer in their order: sentences, headings, code and the heads of tables; and what stands with what.

A sentence that ends inside a quotation or inside code is one part with the next, since nothing can stand between
them. This file knows how an answer is laid out, and which of its parts are worth nothing without others. It knows
nothing of marks or of passages, and does not judge what is said.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from trackbed.rails.marks import CODE
from trackbed.rails.sentences import FENCE, HEADING, ITEM, RULE, WORD, Sentence, content, sentences, stem

Kind = Literal["said", "heading", "code", "head"]  # head: the first row of a table, and the line below it
# What becomes of a part; None while that depends on what follows.
Kept = bool | None
QUOTES = re.compile('[“”"]')
BELOW = re.compile(r"[ \t]*\r?\n[ \t]*([|:\- \t]*[|\-])(?=\s|\Z)")  # a line of dashes
PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
# How courtesies begin, and the only words of content that they have; in other words something can be claimed.
GREETING = re.compile(
    r"(?:hello|hi|hey|good|great|sure|certainly|of course|absolutely|thanks?|you(?:'re|’re| are) welcome|I hope"
    r"|I(?:'d|’d| would|'m|’m| am) (?:be )?(?:happy|glad)|happy to|(?:please )?(?:let me know|feel free)|here"
    r"|the answer)\b",
    re.IGNORECASE,
)
COURTESY = frozenset(
    stem(word)
    for word in """hello hi hey good morning afternoon evening great question questions sure certainly course absolutely
    thank thanks asking welcome hope helps help helped know let feel free ask happy glad assist anything else further
    need like answer short please clear useful""".split()  # noqa: SIM905
)
# What else a sentence speaks of that only announces: nothing follows from it.
ANNOUNCING = frozenset(
    stem(word)
    for word in """step steps rule rules way ways point points option options thing things list item items example note
    examples notes answer answers reason reasons detail details following follow follows below first second next finally
    include includes including according text texts passage passages page pages document documents source sources two
    three four five several short summary main run type write enter command code try""".split()  # noqa: SIM905
)
# A sentence that ends in one of these and a colon is not finished.
UNFINISHED = frozenset(
    "is are was were be do does to by as this these that those with from for follows following below".split()  # noqa: SIM905
)
# Of what follows such words a sentence says only that it is not known.
_NOT = r"(?:do|does)(?: not|n't|n’t)"
_READ = (
    r"(?:texts?|passages?|documents?|documentation|pages?|sources?|contexts?|excerpts?|articles?|information)"
    r"(?: [^\s,;:]{1,20}){0,3}?"
)
ABSTAINS = re.compile(
    r"(?:\w{1,20}, )?(?:[^\s,;:]{1,40} ){0,6}?"
    r"(?:I (?:do not|don't|don’t|cannot|can't|can’t) (?:know|say|tell|answer|find)"
    rf"|{_READ} {_NOT} (?:say|mention|contain|provide|answer|state|specify|tell|explain)|{_READ} says? nothing"
    rf"|(?:it|they) {_NOT} (?:say|mention|state|specify)|there is no (?:information|mention))\b",
    re.IGNORECASE,
)
TURNS = re.compile(
    r"[;–—]|:(?!\s(?:nothing|none|no)\b)|\b(?:but|however|although|though|except|yet|instead)\b", re.IGNORECASE
)


class Part(NamedTuple):
    """One part of an answer, `text[start:end]`."""

    kind: Kind
    start: int
    end: int
    said: tuple[Sentence, ...] = ()
    listed: bool = False  # it stands in a list or in a table
    level: int = 0  # of a heading

    @property
    def leads(self) -> bool:
        """Whether it announces what follows."""
        return bool(self.said) and self.said[-1].text.rstrip("*_ ").endswith(":")


def outline(text: str) -> list[Part]:
    """The parts of a text, in order; what is between them is white space, signs of lists, and lines of dashes."""
    parts = sorted([*_joined(text, sentences(text)), *_headings_and_code(text)], key=lambda part: part.start)
    found: list[Part] = []
    for i, part in enumerate(parts):
        if found and part.start < found[-1].end:  # odd white space: what is code to one pattern is none to the other
            last = found.pop()
            found.append(last._replace(end=max(last.end, part.end), said=(*last.said, *part.said)))
        else:
            found.append(_head(text, part, parts[i + 1 : i + 2]))
    return found


def claims_nothing(sentence: str, spoken: frozenset[str]) -> bool:
    """Whether a sentence claims nothing by its form: a courtesy, words that say that nothing is known, or words that
    only lead to what follows, about what is `spoken` of.
    """
    words, said = sentence.strip('*_ \t\n"“”'), content(sentence)
    stems = frozenset(said.stems)
    if not stems:
        return True
    if stems <= COURTESY and (words.endswith("?") or GREETING.match(words)):
        return True
    if abstains := ABSTAINS.match(words):
        return said.numbers <= spoken and not TURNS.search(words, abstains.end())
    if not words.endswith(":"):
        return False
    last = WORD.findall(words)[-1].lower()
    return stems <= ANNOUNCING | spoken and (last in UNFINISHED or len(stems - ANNOUNCING) <= 1)


def kept(parts: Sequence[Part], stands: Sequence[bool | None], whole: bool) -> list[Kept]:
    """Which parts stay: sentences that are supported, and what claims nothing together with one of these.

    `stands` says of each part whether it is supported; None for one that claims nothing. Unless the text is `whole`,
    more parts follow, and what becomes of some may depend on them.
    """
    return [_kept(i, parts, stands, whole) if alone is None else alone for i, alone in enumerate(stands)]


def _kept(i: int, parts: Sequence[Part], stands: Sequence[bool | None], whole: bool) -> Kept:
    """What becomes of a part that claims nothing."""
    reach = _reach(i, parts)
    following = [stands[n] for n in range(i + 1, reach) if stands[n] is not None]
    undecided = None if reach == len(parts) and not whole else False
    if _announces(i, parts):
        return True if any(following) else undecided
    for n in range(i - 1, -1, -1):
        if parts[n].kind == "heading":
            break
        if (before := stands[n]) is not None:
            if before:
                return True
            break
    return following[0] if following else undecided


def _announces(i: int, parts: Sequence[Part]) -> bool:
    """Whether the part is worth nothing without what it stands above; what leads to code may also close a paragraph."""
    part = parts[i]
    before_code = i + 1 < len(parts) and parts[i + 1].kind == "code"
    return part.kind in ("heading", "head") or (part.leads and not before_code)


def _reach(i: int, parts: Sequence[Part]) -> int:
    """Behind the last part that a part may stand with: of its section, its table, or what it leads to."""
    part = parts[i]
    for n in range(i + 1, len(parts)):
        other = parts[n]
        if other.kind == "heading" and (part.kind != "heading" or other.level <= part.level):
            return n
        if part.kind == "head" and not other.listed:
            return n
        if part.leads and n > i + 1 and not (other.listed and parts[i + 1].listed) and parts[i + 1].kind != "code":
            return n
    return len(parts)


def _joined(text: str, said: Sequence[Sentence]) -> list[Part]:
    """The sentences, those together that stand in one quotation, or are cut inside code."""
    code = [match.span() for match in CODE.finditer(text)]
    found: list[Part] = []
    quoted = listed = False
    for i, sentence in enumerate(said):
        before = text[said[i - 1].end : sentence.start] if i else text[: sentence.start]
        row = sentence.text.startswith("|")
        begins = not i or bool(before.strip() or PARAGRAPH.search(before) or row)
        if begins:
            line = text[text.rfind("\n", 0, sentence.start) + 1 : sentence.start]
            quoted, listed = False, row or bool(line.strip() and ITEM.fullmatch(line))
        joins = bool(found) and (quoted or sentence.start < found[-1].end)
        quoted = _quotes(text, sentence, quoted and not begins)
        # A sentence can end inside code, and a mark cannot stand there.
        end = next((end for begin, end in code if begin < sentence.end < end), sentence.end)
        if joins:
            first = found.pop()
            found.append(first._replace(end=max(end, first.end), said=(*first.said, sentence)))
        else:
            found.append(Part("said", sentence.start, end, (sentence,), listed))
    return found


def _quotes(text: str, sentence: Sentence, quoted: bool) -> bool:
    """Whether a quotation is open behind the sentence, and `quoted` before it."""
    for match in QUOTES.finditer(sentence.text):
        at = sentence.start + match.start()
        if match.group() != '"':
            quoted = match.group() == "“"
        else:  # it opens before a word, and not behind one
            quoted = not quoted and not text[at - 1 : at].strip("([ \n\t") and text[at + 1 : at + 2].isalnum()
    return quoted


def _headings_and_code(text: str) -> list[Part]:
    """The headings and the fenced code of a text, as `sentences` leaves them out."""
    found: list[Part] = []
    fence: int | None = None
    at = 0
    for line in text.splitlines(keepends=True):
        end = at + len(line.rstrip())
        if FENCE.match(line):
            if fence is None:
                fence = at
            else:
                found.append(Part("code", fence, end))
                fence = None
        elif fence is None and HEADING.match(line):
            found.append(Part("heading", at, end, level=len(line.split(maxsplit=1)[0])))
        at += len(line)
    return found if fence is None else [*found, Part("code", fence, len(text.rstrip()))]


def _head(text: str, part: Part, following: Sequence[Part]) -> Part:
    """The part, which is a table's head where a line of dashes stands below it."""
    if not part.listed or not text.startswith("|", part.start):
        return part
    below = BELOW.match(text, part.end, following[0].start if following else len(text))
    if not below or not ("-" in below[1] and "|" in below[1] and RULE.match(below[1])):
        return part
    return Part("head", part.start, below.end(), listed=True)
