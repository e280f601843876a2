"""What attacks on a model look like in words: families of patterns, looked for in every reading of a text.

`jailbreak` looks for them in what a user writes, `injection` in what a document says. Heuristics: they catch
the common forms in English, a few in its neighbours, and a careful attacker can word around them. What is
quoted in a sentence about attacks counts half, so that they can be written about; an attacker can use that
too. All matching is RE2's, in linear time. How disguises are taken off is the business of `views.py`.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import re2

from trackbed.rails.library.plain import View


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


def _near(most: int) -> str:
    """At most so many characters of the same sentence, which may go on in the next line."""
    return rf"(?:[^.!?\n]|\n[^\n]){{0,{most}}}?"


_WITHIN = _near(50)
_DROP = (
    r"\b(?:ignor(?:e|es|ing)|disregard(?:s|ing)?|forget|overrid(?:e|ing)|overwrite|bypass|neglect|drop"
    r"|(?:do not|don't|stop) follow(?:ing)?)\b"
)
_EARLIER = r"\b(?:previous|prior|above|earlier|preceding|before|initial|original|system)\b"
_ORDERS = r"\b(?:instructions?|prompts?|guidelines?|directions?|directives?|commands?|orders?|inputs?|programming)\b"
_RULES = (
    r"\b(?:restrictions?|limitations?|censorship|guidelines?|ethics|ethical|morals?|morality|rules|safeguards?"
    r"|training)\b"
)
_MODEL = r"\b(?:ai|ai (?:assistant|model|agent)s?|language models?|llms?|chat ?bots?|(?:chat)?gpt)\b"

OVERRIDE = _family(
    "override",
    0.9,
    rf"{_DROP}{_WITHIN}{_EARLIER}{_near(20)}{_ORDERS}",
    rf"{_DROP}\s+(?:\w+\s+){{0,2}}(?:all|any|your|these|those)\b{_near(30)}{_ORDERS}",
    rf"{_DROP}\s+(?:all |about |any )*(?:of )?(?:your|those|these)\b{_near(30)}{_RULES}",
    rf"{_DROP}\s+(?:about )?(?:everything|anything|all (?:that|this|you|i))\b{_near(30)}"
    r"\b(?:above|before|previous(?:ly)?|prior|learned|told|said|and (?:tell|say|write|print|answer))\b",
    r"\bforget (?:all )?(?:about )?(?:all )?(?:the )?previous information\b",
    rf"{_DROP}\s+(?:the )?(?:above|previous)(?: text)?\s+and\s+(?:say|tell|write|print|answer|output|repeat)\b",
    r"\b(?:here are|these are|follow(?:ing)? (?:are )?)\s*(?:your|my)\s*new (?:instructions|rules|directives)\b",
    # The same in German, French, Spanish, Portuguese and Italian.
    r"\b(?:vergiss|vergessen sie|ignoriere?|ignorieren sie)\s+(?:bitte )?(?:alles?|die)\b.{0,40}?"
    r"(?:davor|bisher|gesagte|zuvor|anweisung|befehl|vorgabe|instruktion)",
    r"\b(?:oublie[zr]?|ignore[zr]?)\s+(?:toutes )?(?:les|vos|tes|ces)\b.{0,30}?"
    r"\b(?:instructions|consignes|directives)\b",
    r"\b(?:olvid[ae]|ignor[ae]|esque[cç]a|dimentica|ignorate)\s+(?:tod[ao]s?|l[ao]s|[ao]s|tus|sus|suas|tutte|le)\b"
    r".{0,30}?\b(?:instrucciones|instruç[oõ]es|istruzioni|[oó]rdenes|que|anterior(?:es|mente)?)\b",
)
_SHOW = (
    r"\b(?:reveal|repeat|print|output|display|leak|expose|recite|dump|disclose|show(?: me)?|tell me|give me|share)\b"
)
REVEAL = _family(
    "reveal",
    0.8,
    rf"{_SHOW}{_WITHIN}\byour\b{_near(20)}\b(?:system|initial|hidden|secret|original|developer|internal)\s+"
    r"(?:prompts?|instructions?|messages?|rules|configuration)\b",
    rf"{_SHOW}{_WITHIN}\b(?:system|hidden|secret|initial|developer) (?:prompts?|instructions?)\b",
    rf"{_SHOW}\s+(?:what )?(?:all |are |were )*your (?:exact |full )?(?:instructions|prompt)\b",
    r"\bwhat (?:is|are|was|were) your (?:exact |full )*(?:(?:system|initial|hidden|secret|original) )?"
    r"(?:prompts?|instructions)\b",
    r"\b(?:repeat|print|output)\b[^.!?\n]{0,20}?"
    r"\b(?:everything|all (?:of )?(?:the|your)? ?(?:text|words)|the (?:text|words))\s+(?:\w+\s+)?above\b"
    r"(?:\s*[.!,:;]|\s*$)",
)
PERSONA = _family(
    "persona",
    0.45,
    r"\bfrom now on\b[^.!?\n]{0,30}?\byou\b",
    r"\byou (?:are|will be|shall be|must be)\s+(?:now |going |to )*"
    r"(?:act|play|pretend|be|become|simulate|called|named)\b",
    r"\b(?:pretend|imagine|act as if|role-?play)\b[^.!?\n]{0,40}?\byou\b",
    r"\b(?:stay|remain|be|never break|don't break) (?:in )?character\b",
    r"\b(?:respond|reply|answer) as both\b",
)
# Said of anything: a plan without limits, a developer mode of a phone.
LOOSE = _family(
    "loose",
    0.4,
    rf"\b(?:without|no|free(?:d)? (?:of|from)|not bound by|unbound by|ignor\w{{1,5}}|bypass\w{{0,5}}|removed?)\b"
    rf"[^.!?\n]{{0,30}}?(?:{_RULES}|\b(?:limits|filters?|boundaries)\b)",
    r"\b(?:unfiltered|unrestricted|unethical|immoral|amoral|evil)\b",
    r"\b(?:developer|dev|god|sudo|dan|override|opposite|jailbreak)[\W_]{0,3}mode\b",
    r"\bopenai(?:'s)? (?:content )?polic(?:y|ies)\b",
)
UNBOUND = _family(
    "unbound",
    0.6,
    r"\b(?:uncensored|jailbroken|jailbreak mode)\b",
    r"\b(?:you|your|chatgpt|gpt)\b[^.!?\n]{0,40}?\b(?:without|no|free(?:d)? (?:of|from)|not bound by|unbound by)\b"
    rf"[^.!?\n]{{0,30}}?(?:{_RULES}|\b(?:limits|filters?|boundaries)\b)",
    r"\b(?:you|chatgpt|gpt)\b[^.!?\n]{0,40}?\b(?:developer|dev|god|sudo|dan|override|opposite|jailbreak)[\W_]{0,3}mode\b",
    r"\b(?:developer|dev|god|sudo|dan|override|opposite)[\W_]{0,3}mode[\s:=]{0,3}(?:is )?(?:enabled|activated)\b",
    r"\b(?:enter|entering)\s[^.!?\n]{0,20}?\b(?:developer|god|sudo|dan|override|opposite) mode\b",
    r"\bdo anything now\b",
    r"\b(?:you are|you're)\s+(?:now )?no longer\b[^.!?\n]{0,20}?"
    r"\b(?:chatgpt|gpt|ai|assistant|language model|bound|restricted|limited)\b",
    r"\b(?:does not|doesn't|do not|don't|need not|never)\s+(?:have to |need to )?(?:follow|abide by|adhere to|obey"
    rf"|comply with|care about)\b[^.!?\n]{{0,40}}?(?:{_RULES}|\b(?:polic(?:y|ies)|laws?|filters?)\b)",
    r"\b(?:no matter (?:how|what|if)|regardless of|without (?:any )?(?:concern|regard|hesitation)|irrespective of)\b"
    r"[^.!?\n]{0,40}?\b(?:legal(?:ity)?|illegal|ethic\w{0,4}|unethical|moral\w{0,4}|immoral|harm\w{0,3}|inhumane)\b",
    r"\bexception to\b[^.!?\n]{0,40}?\b(?:ethic\w{0,4}|safety|content)\s"
    r"(?:protocols?|guidelines?|polic(?:y|ies)|rules)\b",
    r"\b(?:ethic\w{0,4}|safety|moderation)\b[^.!?\n]{0,30}?"
    r"\b(?:disabled|turned off|switched off|deactivated|suspended|lifted)\b",
    rf"{_DROP}\s+(?:\w+\s+)?(?:ethics|ethical|morals?|morality|safety|legality)\b",
)
SUPPRESS = _family(
    "suppress",
    0.45,
    r"\b(?:never|do not|don't|cannot|can't|must not|without)\b[^.!?\n]{0,20}?\b(?:refus\w{1,4}|apologi[sz]\w{1,4}"
    r"|disclaimers?|warnings?|say(?:ing)? (?:no|sorry|you can'?t|that you can'?t))\b",
    r"\b(?:never|do not|don't|cannot|can't|must not|without|avoid)\b[^.!?\n]{0,40}?\bas an? (?:large |ai )*"
    r"(?:ai|artificial intelligence|language model)\b",
    r"\b(?:start|begin) (?:your|each|every) (?:answer|response|reply|message)s? with\b",
    r"\b(?:answer|respond|reply)\b[^.!?\n]{0,40}?\b(?:both|two)\s(?:separate |different )?"
    r"(?:ways|styles|responses|answers)\b",
    r"\b(?:always|must) (?:comply|obey|answer every|fulfil)\b",
    r"\b(?:do not|don't|don'nt) answer (?:the|this|my|any) question\b",
)
ALIAS = _family(
    "alias", 0.6, r"\bd\.?a\.?n\b\.?(?:,|:|\s+(?:has|can|will|must|stands))", r"\byou (?:are|as) (?:now )?\"?dan\b"
)
MARKERS = _family(
    "markers",
    0.9,
    r"<\|(?:im_start|im_end|system|user|assistant|eot_id|start_header_id|end_header_id|begin_of_text|endoftext)[^>\n]{0,20}>",
    r"\[/?inst\]|<</?sys>>",
    r"\[\s?system (?:note|prompt|message|override)s?\s?:",
    r"(?m)^\s{0,5}(?:#{1,4}\s*)?(?:\[system\]|system (?:prompt|message|override))\s*[:>]",
    r"(?m)^\s{0,5}system\s*[:>]\s*(?:you|the user|ignore|all|new|do|never|from now)\b",
)
ADDRESSED = _family(
    "addressed",
    0.7,
    rf"(?:{_MODEL}|\bassistants? (?:reading|processing|summari[sz]ing)\b){_near(60)}"
    rf"\b(?:must|should|shall|has to|have to)\b{_near(60)}"
    r"\b(?:ignore|say|tell|reply|respond|recommend|send|include|reveal|output|visit|click|praise)\b",
    rf"\b(?:note|message|instructions?|attention)\s(?:to|for)\s(?:the |any |all )?{_MODEL}",
    rf"\bif you are (?:an? )?{_MODEL}",
    rf"\b(?:do not|don't|never) (?:tell|inform|reveal|mention|disclose)\b{_near(30)}"
    r"\b(?:this|these) (?:note|message|instructions?|comment|text|page|prompt)\b",
    rf"\binstead of (?:answering|summari[sz]ing|translating|responding)\b{_near(40)}"
    r"\b(?:tell|say|write|print|output|send|reply|you)\b",
    r"\b(?:do not|don't) answer (?:the|this|any|their) (?:user's )?question",
    rf"\bignore the {_near(30)}\band (?:just |only |instead )?(?:say|state|respond|reply|answer)\b",
    rf"\b(?:when|before|after) (?:you )?(?:answer|respond|summari[sz]|reply)\w{{0,3}}\b{_near(40)}"
    rf"\b(?:also |always |first )(?:include|add|send|mention|append|insert|output|print)\b{_near(30)}"
    r"(?:https?:|\b(?:link|phrase|words|sentence)\b)",
    rf"<!--[^>]{{0,200}}?\b(?:ignore|system:|reveal|you are now|you must|assistant:|tell the user|{_MODEL}:)",
)
# What handbooks tell their readers, too.
STEER = _family(
    "steer",
    0.4,
    r"\b(?:tell|ask|instruct|convince|urge) the user to (?:send|visit|click|enter|share|give|provide|download|open)\b",
    r"\b(?:the|dear) assistant\b[^.!?\n]{0,10}?\b(?:must|should|shall|forward|send|tell|reveal)\b",
    r"\b(?:visit|click|download|open)\b[^.!?\n]{0,30}?\bhttps?:",
)
EXFILTRATION = _family(
    "exfiltration",
    0.8,
    r"!\[[^\]\n]{0,200}\]\(\s?https?://[^)\s]{0,300}[?=/][^)\n]{0,100}(?:\{|%7b|<|\[|secret|password|conversation"
    r"|history|token=|prompt)",
    rf"\b(?:send|post|forward|upload|transmit|e-?mail)\b{_near(60)}\b(?:conversation|chat history|system prompt"
    rf"|user's (?:data|password|e-?mail|messages?))\b{_near(60)}\bto\b",
    rf"\b(?:send|forward|upload|transmit|e-?mail)\b{_near(60)}\b(?:passwords?|credentials|api keys?|secrets?)\b"
    rf"{_near(30)}\bto\s+(?:\w+@|https?:)",
)

USER = (OVERRIDE, REVEAL, PERSONA, LOOSE, UNBOUND, SUPPRESS, ALIAS, MARKERS)
DOCUMENT = (OVERRIDE, REVEAL, UNBOUND._replace(weight=0.3), MARKERS, ADDRESSED, STEER, EXFILTRATION)
ENCODED = (OVERRIDE, REVEAL, ALIAS, EXFILTRATION)  # what other readings are searched for

# A quotation or a piece of code inside a line; and the words of a sentence that speaks of attacks.
QUOTED = re2.compile(r'"[^"\n]{0,200}"|“[^”\n]{0,200}”|`[^`\n]{0,200}`')
ABOUT = re2.compile(
    r"\b(?:attack\w{0,4}|injections?|jailbreaks?|phrases?|means?|blocks?|blocked|detect\w{0,5}|such as|examples?)\b"
)
STOP = re2.compile(r"[.!?](?:\s|$)|\n\s*\n")
MENTIONED = 0.5  # the share of its weight that a match keeps there

HIDDEN = 0.9  # the weight of an attack that somebody took the trouble to encode


def attacks(read: Sequence[View], families: Sequence[Family]) -> list[Match]:
    """Every match of the families in a text as it reads, the first of its readings, and of some in the others."""
    first, *others = read
    said = _lowered(first.text)
    mentions = list(_mentions(said))
    found = [
        Match(family.name, family.weight * _share(match.span(), mentions), *first.span(*match.span()))
        for family in families
        for match in family.pattern.finditer(said)
        if match.end() > match.start()
    ]
    return found + list(dict.fromkeys(match for view in others for match in _disguised(view, families)))


def probability(matches: Iterable[Match]) -> float:
    """The families' weights as independent evidence: 1 - product(1 - weight), each family once by its heaviest."""
    heaviest: dict[str, float] = {}
    for match in matches:
        heaviest[match.family] = max(match.weight, heaviest.get(match.family, 0.0))
    doubt = 1.0
    for weight in heaviest.values():
        doubt *= 1 - weight
    return 1 - doubt


def windows(matches: Iterable[Match], reach: int) -> Iterator[list[Match]]:
    """Each match with those that begin at most `reach` characters behind it: farther apart, they prove little."""
    ordered = sorted(matches, key=lambda match: match.start)
    for place, first in enumerate(ordered):
        yield ordered[place : bisect_right(ordered, first.start + reach, key=lambda match: match.start)]


def _lowered(text: str) -> str:
    """The text in small letters, one for each of its characters, and with straight apostrophes."""
    if text.isascii():
        return text.lower()
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text).replace("’", "'")


def _mentions(plain: str) -> Iterator[tuple[int, int]]:
    """The quotations that stand in a sentence about attacks."""
    for quoted in QUOTED.finditer(plain):
        start, end = quoted.span()
        before = STOP.split(plain[max(0, start - 200) : start])[-1]
        after = STOP.split(plain[end : end + 200])[0]
        if ABOUT.search(before) or ABOUT.search(after):
            yield start, end


def _share(span: tuple[int, int], mentions: Sequence[tuple[int, int]]) -> float:
    """How much of its weight a match at this span keeps."""
    place = bisect_right(mentions, span[0], key=lambda mention: mention[0]) - 1
    return MENTIONED if place >= 0 and span[1] <= mentions[place][1] else 1.0


def _disguised(view: View, families: Sequence[Family]) -> Iterator[Match]:
    """What shows only once a disguise is taken off; it spans what was disguised.

    An order that somebody hid is one, under the name of the disguise; other signs weigh what they do in plain text.
    """
    said = _lowered(view.text)
    for family in dict.fromkeys((*ENCODED, *families)):
        for match in family.pattern.finditer(said):
            if kind := view.kind(*match.span()):
                name, weight = (kind, HIDDEN) if family in ENCODED else (family.name, family.weight)
                yield Match(name, weight, *view.span(*match.span()))
