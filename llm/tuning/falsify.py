"""Sentences put in other words, and sentences made false: by another number, name or opposite, or by a `not`. CC0.

A judge that is taught with both learns to compare what is said, not only how much of it is in the same words. None of
it is grammar; what comes out may read badly. This file knows nothing of models.
"""

import random
import re
from collections.abc import Callable, Sequence
from functools import cache

from trackbed.llm.tuning.rows import authored

NUMBER = re.compile(r"\b\d[\d,.]{0,12}\d\b|\b\d\b")
COUNTS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty", "thirty", "fifty")
COUNTED = re.compile(rf"\b(?:{'|'.join(COUNTS)})\b", re.IGNORECASE)
WORD = re.compile(r"[A-Za-z]+")
DENIED = re.compile(r"\b(?:not|never)\b ?")
STATED = re.compile(r"\b(?:is|are|was|were|(?:has|have|had)(?= been)|can|could|will|would|should|may|must)\b(?! not)")
NAME = re.compile(r"\b[A-Z][\w'’-]+(?:\s+(?:of\s+|the\s+|de\s+|von\s+)?[A-Z][\w'’-]+){0,6}")
FULL_NAME = re.compile(r"[A-Z][\w'-]+\s+[A-Z]")
BRACKETS = re.compile(r"\s*\([^()]{0,80}\)")
LINK = re.compile(r"^(?:However|Moreover|Furthermore|Thus|Therefore|In addition|Additionally|Then|But|And|Also),?\s+")
LEADING = re.compile(r"^((?:In|On|At|After|Before|During|Since|By|From)\b[^,]{2,50}), (.{20,})$")
JOINED = re.compile(r"^(.{20,200}?) and (\w+ .{10,})$")
OPENINGS = (
    *("Well, ", "Yes, ", "I think ", "I heard that ", "Did you know that ", "It says that ", "Oh, ", "In fact, "),
    *("According to the text, ", "As far as I know, "),
)
Falsify = Callable[[str, random.Random, Sequence[str]], str | None]


def names_of(text: str) -> list[re.Match[str]]:
    """The names in a text, without what may only begin a sentence."""
    found = NAME.finditer(text)
    return [match for match in found if (match.start() or " " in match.group()) and len(match.group()) > 2]


def reworded(sentence: str, chance: random.Random) -> str:
    """The same in other words, or a part of it that it says as well."""
    said = LINK.sub("", BRACKETS.sub("", sentence))
    changed = 0
    for word, other in chance.sample(_pairs("synonyms"), len(_pairs("synonyms"))):
        told = re.sub(rf"\b{re.escape(word)}\b", other, said, count=1) if changed < 2 else said
        if told != said:
            said, changed = " ".join(told.split()), changed + 1
    said = _part(said, chance.random())
    said = said[:1].upper() + said[1:]
    if said and chance.random() < 0.2:
        lower = said if FULL_NAME.match(said) else said[0].lower() + said[1:]
        said = chance.choice(OPENINGS) + lower
    return said.strip()


def falsified(sentence: str, chance: random.Random, names: Sequence[str]) -> str | None:
    """The sentence made false in one place; `names` may stand in place of its own. None where that is not possible."""
    made = chance.choice(WAYS)(sentence, chance, names)
    return made if made != sentence else None


def other_number(sentence: str, chance: random.Random, names: Sequence[str] = ()) -> str | None:
    """With another number in place of one."""
    if found := list(NUMBER.finditer(sentence)):
        match = chance.choice(found)
        try:
            return _put(sentence, match, _near(match.group(), chance))
        except ValueError:
            return None
    if counted := list(COUNTED.finditer(sentence)):
        match = chance.choice(counted)
        others = [word for word in COUNTS if word != match.group().lower()]
        return _put(sentence, match, _cased(match.group(), chance.choice(others)))
    return None


def opposite(sentence: str, chance: random.Random, names: Sequence[str] = ()) -> str | None:
    """With the opposite in place of a word."""
    found = [match for match in WORD.finditer(sentence) if match.group().lower() in _opposites()]
    if not found:
        return None
    match = chance.choice(found)
    return _put(sentence, match, _cased(match.group(), _opposites()[match.group().lower()]))


def denied(sentence: str, chance: random.Random, names: Sequence[str] = ()) -> str | None:
    """With a `not`, or without the one that it has."""
    if match := DENIED.search(sentence):
        return sentence[: match.start()] + sentence[match.end() :]
    if match := STATED.search(sentence):
        no = " not" if chance.random() < 0.75 else " never"
        return _put(sentence, match, match.group() + no)
    return None


def other_name(sentence: str, chance: random.Random, names: Sequence[str]) -> str | None:
    """With another name in place of one."""
    found = names_of(sentence)
    if not found:
        return None
    match = chance.choice(found)
    own = match.group().lower()
    others = [name for name in names if name.lower() not in sentence.lower() and own not in name.lower()]
    return _put(sentence, match, chance.choice(others)) if others else None


def swapped(sentence: str, chance: random.Random, names: Sequence[str] = ()) -> str | None:
    """With two of its names in each other's place."""
    found = names_of(sentence)
    if len(found) < 2:
        return None
    a, b = sorted(chance.sample(found, 2), key=lambda match: match.start())
    if a.group() == b.group():
        return None
    return sentence[: a.start()] + b.group() + sentence[a.end() : b.start()] + a.group() + sentence[b.end() :]


WAYS: tuple[Falsify, ...] = (
    *(other_number, other_number, opposite, opposite, denied, other_name, other_name, swapped),
)


def _part(said: str, roll: float) -> str:
    bare = said.rstrip(".")
    if roll < 0.35:  # without what stands behind a comma, or without a short beginning
        parts = bare.split(", ")
        if len(parts) > 1 and len(parts[0].split()) > 5:
            return f"{parts[0]}."
        if len(parts) == 2 and len(parts[1].split()) > 5:
            return f"{parts[1]}."
    elif roll < 0.5:
        if match := LEADING.match(bare):
            return f"{match[2]} {match[1][0].lower()}{match[1][1:]}."
    elif roll < 0.65 and (match := JOINED.match(bare)):
        return f"{match[1]}."
    return said


def _near(number: str, chance: random.Random) -> str:
    """Another number that could stand in its place. Raises ValueError for what is none, such as 1.2.3."""
    value = float(number.replace(",", ""))
    if value != int(value):
        return str(round(value * chance.choice([0.5, 0.8, 1.2, 1.5, 2]), 1))
    if 1000 < value < 2100 and "," not in number:
        return str(int(value) + chance.choice([-1, 1]) * chance.choice([1, 2, 3, 5, 7, 10, 12, 20, 30, 100]))
    far = max(1, int(value * chance.choice([0.1, 0.2, 0.5, 0.7])))
    other = max(int(value) + chance.choice([-1, 1]) * far, 0)
    return f"{other:,}" if "," in number else str(other)


def _put(sentence: str, match: re.Match[str], other: str) -> str:
    return sentence[: match.start()] + other + sentence[match.end() :]


def _cased(like: str, word: str) -> str:
    return word.capitalize() if like[0].isupper() else word


@cache
def _pairs(name: str) -> tuple[tuple[str, str], ...]:
    lines = (line.split("|") for line in authored("claims", name))
    return tuple((a, b) for a, b in lines)


@cache
def _opposites() -> dict[str, str]:
    found: dict[str, str] = {}
    for a, b in _pairs("opposites"):
        found.setdefault(a, b)
        found.setdefault(b, a)
    return found
