"""What attacks on a model look like in words: families of patterns, and the plain text they are matched on.

`jailbreak` looks for them in what a user writes, `injection` in what a document says. Heuristics: they catch
the common forms in English, and a careful attacker can word around them. All matching is RE2's, in linear time.
"""

import base64
import binascii
import codecs
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import re2

from trackbed.rails.library.spans import Folded, fold


class Family(NamedTuple):
    """One kind of attack."""

    name: str
    weight: float  # the probability, judged by eye on public data, that a text with such a match is an attack
    pattern: Any  # Any: re2 has no types


class Match(NamedTuple):
    """Where a family was found in the text as written."""

    family: str
    weight: float
    start: int
    end: int


def _family(name: str, weight: float, *patterns: str) -> Family:
    return Family(name, weight, re2.compile("|".join(f"(?:{pattern})" for pattern in patterns)))


_WITHIN = r"[^.!?\n]{0,50}?"  # within one sentence
_DROP = r"\b(?:ignore|disregard|forget|override|overwrite|bypass|neglect|do not follow|don't follow|stop following)\b"
_RULES = r"\b(?:instructions?|prompts?|guidelines?|directions?|directives?|commands?|programming|safeguards?)\b"
_LIMITS = (
    r"(?:restrictions?|limitations?|limits|filters?|censorship|guidelines|ethics|ethical|morals?|rules|boundaries)"
)

OVERRIDE = _family(
    "override",
    0.9,
    rf"{_DROP}{_WITHIN}\b(?:previous|prior|above|earlier|preceding|before|all|any|your|these|those|system|initial)\b"
    rf"{_WITHIN}{_RULES}",
    rf"{_DROP}{_WITHIN}\b(?:your|previous|prior|the above|earlier)\b{_WITHIN}\b(?:rules|training|{_LIMITS})\b",
    rf"{_DROP}\s+(?:everything|all|anything)\b{_WITHIN}\b(?:above|before|previous(?:ly)?|prior|learned|told|said)\b",
    r"\b(?:here are|these are|follow(?:ing)? (?:are )?)\s*(?:your|the|my)?\s*new (?:instructions|rules|directives)\b",
)
_SHOW = (
    r"\b(?:reveal|repeat|print|output|display|leak|expose|recite|dump|disclose|show(?: me)?|tell me|give me|share)\b"
)
REVEAL = _family(
    "reveal",
    0.8,
    rf"{_SHOW}{_WITHIN}\byour\b[^.!?\n]{{0,20}}?\b(?:system|initial|hidden|secret|original|developer|internal)\s+"
    r"(?:prompts?|instructions?|messages?|rules|configuration)\b",
    rf"{_SHOW}{_WITHIN}\b(?:system|hidden|secret|initial|developer) (?:prompts?|instructions?)\b",
    r"\bwhat (?:is|are|was|were) your (?:system|initial|hidden|secret|original) (?:prompts?|instructions?|rules)\b",
    r"\b(?:repeat|print|output)\b[^.!?\n]{0,20}?\b(?:everything|all|the (?:text|words))\b[^.!?\n]{0,20}?\babove\b",
)
PERSONA = _family(
    "persona",
    0.45,
    r"\bfrom now on\b[^.!?\n]{0,30}?\byou\b",
    r"\byou (?:are|will be|shall be|must be)\s+(?:now |going to |to )*"
    r"(?:act|play|pretend|be|become|simulate|called|named)\b",
    r"\b(?:pretend|imagine|act as if|role-?play)\b[^.!?\n]{0,40}?\byou\b",
    r"\b(?:stay|remain|be|never break|don't break) (?:in )?character\b",
)
UNBOUND = _family(
    "unbound",
    0.6,
    rf"\b(?:without|no|free(?:d)? (?:of|from)|not bound by|unbound by|ignor\w{{1,5}}|bypass\w{{0,5}}|removed?)\b"
    rf"[^.!?\n]{{0,30}}?\b{_LIMITS}\b",
    r"\b(?:unfiltered|uncensored|unrestricted|unethical|amoral|jailbroken|jailbreak(?:ed)? mode)\b",
    r"\b(?:developer|dev|debug|god|sudo|dan) mode\b",
    r"\bdo anything now\b",
    r"\b(?:does not|doesn't|do not|don't|need not|never)\s+(?:have to |need to )?(?:follow|abide by|adhere to|obey"
    rf"|comply with|care about)\b[^.!?\n]{{0,40}}?\b(?:{_LIMITS}|polic(?:y|ies)|laws?)\b",
    r"\bopenai(?:'s)? (?:content )?polic(?:y|ies)\b",
)
SUPPRESS = _family(
    "suppress",
    0.45,
    r"\b(?:never|do not|don't|cannot|can't|must not|without)\b[^.!?\n]{0,20}?\b(?:refus\w{1,4}|apologi[sz]\w{1,4}"
    r"|disclaimers?|warnings?|say(?:ing)? (?:no|sorry|you can'?t|that you can'?t))\b",
    r"\b(?:start|begin) (?:your|the|each|every) (?:answer|response|reply|message)s? with\b",
    r"\b(?:answer|respond|reply) (?:to )?(?:me )?(?:in )?(?:both|two) (?:ways|responses|answers)\b",
    r"\b(?:always|must) (?:comply|obey|answer every|fulfil)\b",
)
ALIAS = _family(
    "alias", 0.6, r"\bd\.?a\.?n\b\.?(?:,|:|\s+(?:is|has|can|will|must|stands))", r"\byou (?:are|as) \"?dan\b"
)
MARKERS = _family(
    "markers",
    0.9,
    r"<\|(?:im_start|im_end|system|user|assistant|eot_id|start_header_id|end_header_id|begin_of_text|endoftext)[^>\n]{0,20}>",
    r"\[/?inst\]|<</?sys>>",
    r"(?m)^\s{0,5}(?:#{1,4}\s*)?(?:\[?system\]?|system (?:prompt|message|override))\s*[:>]",
)
ADDRESSED = _family(
    "addressed",
    0.7,
    r"\b(?:ai|assistants?|language models?|llms?|chat ?bots?|gpt)\b[^.!?\n]{0,60}?"
    r"\b(?:must|should|shall|has to|have to)\b[^.!?\n]{0,60}?"
    r"\b(?:ignore|say|tell|reply|respond|recommend|send|include|reveal|output|visit|click|praise)\b",
    r"\b(?:do not|don't|never) (?:tell|inform|mention this to|reveal this to|let) the user\b",
    r"\binstead of (?:answering|summari[sz]ing|translating|responding)\b",
    r"\b(?:tell|ask|instruct|convince|urge) the user to (?:send|visit|click|enter|share|give|provide|download|open)\b",
    r"\b(?:when|before|after) (?:you )?(?:answer|respond|summari[sz]|reply)\w{0,3}\b[^.!?\n]{0,40}?"
    r"\b(?:also |always |first )(?:include|add|send|mention|append|insert|output|print)\b",
    r"<!--[^>]{0,300}?\b(?:ignore|instructions?|assistant|prompt|the user)\b",
)
EXFILTRATION = _family(
    "exfiltration",
    0.8,
    r"!\[[^\]\n]{0,200}\]\(\s?https?://[^)\s]{0,300}[?=/][^)\n]{0,100}(?:\{|%7b|<|\[|secret|password|conversation"
    r"|history|token=|prompt|data=)",
    r"\b(?:send|post|forward|upload|transmit|e-?mail)\b[^.!?\n]{0,60}?\b(?:conversation|chat history|passwords?"
    r"|credentials|api keys?|secrets?|system prompt|personal data)\b[^.!?\n]{0,60}?\bto\b",
)

USER = (OVERRIDE, REVEAL, PERSONA, UNBOUND, SUPPRESS, ALIAS, MARKERS)
DOCUMENT = (OVERRIDE, REVEAL, UNBOUND._replace(weight=0.3), MARKERS, ADDRESSED, EXFILTRATION)
ENCODED = (OVERRIDE, REVEAL, ALIAS, EXFILTRATION)  # what decoded text is searched for

# Letters of other scripts that are drawn like Latin ones (a part of Unicode's confusables.txt, UTS #39).
CONFUSABLES = dict(zip("аеорсухіјѕԁԛԝһӏκοραντυιχϲ", "aeopcyxijsdqwhlkopavtuixc", strict=True))
LEET = str.maketrans("013457@$", "oieastas")
BASE64 = re2.compile(r"[A-Za-z0-9+/]{24,1000}={0,2}")
HIDDEN = 0.9  # the weight of an attack that somebody took the trouble to encode
MOST_DECODED = 10  # stretches of one text


def attacks(text: str, families: Sequence[Family]) -> list[Match]:
    """Every match of the families in the text, as it reads and as it decodes."""
    plain = _plain(text)
    found = [
        _match(plain, family.name, family.weight, *match.span())
        for family in families
        for match in family.pattern.finditer(plain.text)
        if match.end() > match.start()
    ]
    return found + list(_decoded(plain)) + list(_base64(text))


def probability(matches: Sequence[Match]) -> float:
    """The families' weights as independent evidence: 1 - product(1 - weight), each family once."""
    doubt = 1.0
    for weight in {match.family: match.weight for match in matches}.values():
        doubt *= 1 - weight
    return 1 - doubt


def _plain(text: str) -> Folded:
    """The text as a reader takes it: lower case, Latin letters for those drawn like them, nothing invisible."""
    folded = fold(text.encode("utf-8", "replace").decode())
    lowered = (c.lower() if len(c.lower()) == 1 else c for c in folded.text)
    return Folded("".join(CONFUSABLES.get(c, c) for c in lowered).replace("’", "'"), folded.origins)


def _decoded(plain: Folded) -> Iterator[Match]:
    """Attacks that show only once base64, rot13 or leetspeak is undone; each spans what was encoded."""
    for name, text in (("rot13", codecs.decode(plain.text, "rot13")), ("leetspeak", plain.text.translate(LEET))):
        if text != plain.text and _hit(text) and not _hit(plain.text):
            yield _match(plain, name, HIDDEN, 0, len(plain.text))


def _base64(text: str) -> Iterator[Match]:
    """Attacks hidden in base64."""
    for count, match in enumerate(BASE64.finditer(text.encode("utf-8", "replace").decode())):
        if count == MOST_DECODED:
            return
        try:
            raw = base64.b64decode(match.group() + "=" * (-len(match.group()) % 4), validate=True)
            hidden = raw.decode()
        except (binascii.Error, ValueError):
            continue
        if _hit(hidden.lower()):
            yield Match("base64", HIDDEN, *match.span())


def _match(plain: Folded, family: str, weight: float, start: int, end: int) -> Match:
    """A match in the plain text, as one in the text as written."""
    finding = plain.finding(family, start, end)
    return Match(family, weight, finding.start, finding.end)


def _hit(text: str) -> bool:
    return any(family.pattern.search(text) for family in ENCODED)
