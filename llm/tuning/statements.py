"""Questions and their answers as statements: "When did it open?" and "1923" make "It opened in 1923.". CC0.

People ask in other words than a text has, so such a statement is in other words too. The idea is that of Demszky et al.
2018 (arXiv:1809.02922); a handful of forms is known here, and others are left. This file knows nothing of models.
"""

import re
from functools import cache

from trackbed.llm.tuning.rows import authored

MOST = 9  # words of an answer
BE = r"(is|are|was|were)"
DO = r"(did|does|do)"
WHEN = re.compile(
    rf"^(?:(?:in|on|at) )?(?:when|what year|which year|what month|what century|what decade) {BE} (.+)$", re.IGNORECASE
)
WHEN_DO = re.compile(rf"^(?:when|in what year|in which year|what year|in what century) {DO} (.+)$", re.IGNORECASE)
WHERE_DO = re.compile(rf"^where {DO} (.+)$", re.IGNORECASE)
MANY = re.compile(
    r"^how many ([\w\s-]{1,60}?) (are|were|have|had|is|was|has|can|make|made|live|lived) (?!there\b)(.+)$",
    re.IGNORECASE,
)
THERE = re.compile(rf"^how many ([\w\s-]{{1,60}}?) {BE} there(.*)$", re.IGNORECASE)
WHAT_DO = re.compile(rf"^(?:what|how many [\w\s-]{{1,60}}?|(?:what|which) [\w-]+|who) {DO} (.+)$", re.IGNORECASE)
WHAT_BE = re.compile(rf"^(?:what|who) {BE} ((?:the|an?) .+|[A-Z].+|.+'s .+)$", re.IGNORECASE)
SUBJECT = re.compile(
    r"^(?:who|what|(?:what|which) [\w-]+) "
    r"((?!(?:is|are|was|were|did|does|do|can|could|would|will|should|has|have|had|may) )"
    r"\w+(?:ed|s|t|d|k|n|e|w|g)) (.+)$",
    re.IGNORECASE,
)
HAS = re.compile(
    r"^(?:who|what) (has|have|had|can|could|will|would|should) (?!(?:the|an?|he|she|it|they) )(\w+) (.+)$",
    re.IGNORECASE,
)
DONE = re.compile(r"(?:ed|en|wn|lt|pt|ld|nt|de|ne|un|ut|et|rn)$")
LAST = re.compile(r"\b(?:of|to|in|for|with|from|by|as|on|at|called|named|known)$")
PLACED = re.compile(r"(?:in|on|at|during|after|before|by|from|since|around|about|to|near)\b", re.IGNORECASE)
DAY = re.compile(r"[A-Z]\w+ \d{1,2}\b")


def statement(question: str, answer: str) -> str | None:
    """What a question and its short answer say; None where the question has none of the known forms."""
    asked, said = question.strip().rstrip("?").strip(), answer.strip().rstrip(".")
    if not said or len(said.split()) > MOST:
        return None
    made = _stated(asked, said)
    return f"{made[0].upper()}{made[1:]}." if made else None


def _stated(asked: str, said: str) -> str | None:
    if match := WHEN.match(asked):
        words = match[2].split()
        at = next((i for i in range(len(words) - 1, 0, -1) if DONE.search(words[i])), 0)
        before, after = " ".join(words[:at]), " ".join(words[at:])
        return f"{before} {match[1]} {after} {_when(said)}" if at else None
    if match := WHEN_DO.match(asked):
        told = _told(match[2], match[1])
        return told and f"{told} {_when(said)}"
    if match := WHERE_DO.match(asked):
        told = _told(match[2], match[1])
        return told and f"{told} {said if PLACED.match(said) else f'in {said}'}"
    if match := MANY.match(asked):
        counted = said if match[1].split()[-1].lower() in said.lower() else f"{said} {match[1]}"
        return f"{counted} {match[2]} {match[3]}"
    if match := THERE.match(asked):
        return f"there {match[2]} {said} {match[1]}{match[3]}"
    if match := WHAT_DO.match(asked):
        told = _told(match[2], match[1])
        return told and f"{told} {said}"
    if match := WHAT_BE.match(asked):
        if not LAST.search(match[2]):
            return f"{match[2]} {match[1]} {said}"
        before, last = match[2].rsplit(" ", 1)
        return f"{before} {match[1]} {last} {said}"
    if match := SUBJECT.match(asked):
        return f"{said} {match[1]} {match[2]}"
    if match := HAS.match(asked):
        return f"{said} {match[1]} {match[2]} {match[3]}"
    return None


def _when(said: str) -> str:
    if PLACED.match(said):
        return said
    return f"on {said}" if DAY.search(said) else f"in {said}"


def _told(words: str, do: str) -> str | None:
    """The words behind `did`, `does` or `do` without it: their verb in its form. None where no verb is known."""
    parts = words.split()
    for at in range(1, len(parts)):
        verb = parts[at].lower()
        if verb in _verbs() and parts[at - 1].lower() not in ("the", "a", "an", "to"):
            form = {"did": _past, "does": _third}.get(do.lower(), str)(verb)
            return " ".join([*parts[:at], form, *parts[at + 1 :]])
    return None


def _past(verb: str) -> str:
    if irregular := _verbs()[verb]:
        return irregular
    if verb.endswith("e"):
        return f"{verb}d"
    return f"{verb[:-1]}ied" if re.search("[^aeiou]y$", verb) else f"{verb}ed"


def _third(verb: str) -> str:
    if verb == "have":
        return "has"
    if re.search("(?:s|sh|ch|x|o)$", verb):
        return f"{verb}es"
    return f"{verb[:-1]}ies" if re.search("[^aeiou]y$", verb) else f"{verb}s"


@cache
def _verbs() -> dict[str, str]:
    """Verbs, each with its past where that is irregular."""
    return {verb: past for verb, _, past in (line.partition("|") for line in authored("claims", "verbs"))}
