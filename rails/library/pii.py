"""Personal data: e-mail addresses, phone, card and account numbers, IP addresses, tax and social security numbers.

Each kind is found in two steps: a linear pattern proposes, and what the number itself can prove (check digits, a
numbering plan, an address parser) decides. Names of people, places and streets prove nothing: where a policy asks for
them, a model says what it takes for one. Dates of birth are not found.
"""

import ipaddress
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, ClassVar, Literal, NamedTuple, Self

import re2
from phonenumbers import SUPPORTED_REGIONS
from pydantic import Field, field_validator, model_validator
from stdnum import iban, luhn, numdb

from trackbed.rails.config import ModelName, RailConfig
from trackbed.rails.library.identities import IDENTITIES, find_identities
from trackbed.rails.library.names import NAMES, PRESIDIO, Analyze, missing, names_by, presidio
from trackbed.rails.library.phones import NEAR, find_phones
from trackbed.rails.library.spans import disjoint, fold
from trackbed.rails.types import Finding, Models, Stage, Streams, Then, Turn, Verdict

Entity = Literal[
    "EMAIL_ADDRESS",
    "IBAN_CODE",
    "CREDIT_CARD",
    "IP_ADDRESS",
    "US_SSN",
    "PHONE_NUMBER",
    "DE_TAX_ID",
    "DE_TAX_NUMBER",
    "FR_NIR",
    "FR_SIREN",
    "ES_NIF",
    "ES_NIE",
    "ES_CIF",
    "IT_FISCAL_CODE",
    "IT_VAT_CODE",
    "PERSON",
    "LOCATION",
    "STREET_ADDRESS",
    "COMMON",
    "EU",
    "DE",
    "FR",
    "ES",
    "IT",
]

COMMON: dict[str, str] = {
    "EMAIL_ADDRESS": "e-mail address",
    "IBAN_CODE": "bank account number",
    "CREDIT_CARD": "credit card number",
    "IP_ADDRESS": "IP address",
    "US_SSN": "social security number",
    "PHONE_NUMBER": "phone number",
}
WORDS = {
    **COMMON,
    **{kind: identity.words for kind, identity in IDENTITIES.items()},
    "PERSON": "name of a person",
    "LOCATION": "name of a place",
    "STREET_ADDRESS": "postal address",
}
# Names that stand for several kinds.
GROUPS: dict[str, tuple[str, ...]] = {
    "COMMON": tuple(COMMON),
    "EU": tuple(IDENTITIES),
    **{country: tuple(k for k in IDENTITIES if k.startswith(f"{country}_")) for country in ("DE", "FR", "ES", "IT")},
}


Span = tuple[int, int]  # `text[start:end]`
Finder = Callable[[str], Iterator[Span]]


class Pii:
    """Finds personal data. Loopback and unspecified addresses, and version numbers, are not taken for IP addresses."""

    asks: ClassVar[str] = "model"  # it waits for nothing where this names none
    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval", "tools", "output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask", "drop"})
    streams: ClassVar[Streams] = "spans"

    class Config(RailConfig):
        """What to look for."""

        entities: list[Entity] = Field(
            ["COMMON"],
            min_length=1,
            description="The kinds to find; COMMON, if unset, which are the first six. EU are the tax, social-security "
            "and identity numbers of Germany, France, Spain and Italy; DE, FR, ES and IT are those of one country. "
            "PERSON, LOCATION and STREET_ADDRESS need a `model`; the first two do with the extra `pii` too.",
        )
        model: ModelName | None = Field(
            None, description="The policy's name of a model that finds names, such as minilm-names."
        )
        ner_model: str = Field(
            "en_core_web_sm",
            pattern=r"^[a-z]{2,3}_\w+$",
            description="Without `model`: the installed spaCy model that finds PERSON and LOCATION, in one language.",
        )
        analyzer: str | None = Field(
            None,
            description="What finds PERSON and LOCATION in place of Presidio: the import path, package.module:name, "
            "of a function that is given a text and a list of kinds, and gives the kind, start and end of each name.",
        )
        regions: tuple[str, ...] = Field(
            ("US", "GB", "DE", "FR", "ES", "IT"),
            description="Countries (ISO 3166, two letters) whose phone numbers are found without a country code too. "
            "Numbers that start with + and a country code are always found.",
        )

        @field_validator("regions")
        @classmethod
        def _known_regions(cls, regions: tuple[str, ...]) -> tuple[str, ...]:
            if unknown := [region for region in regions if region not in SUPPORTED_REGIONS]:
                raise ValueError(f"{', '.join(unknown)}: not an ISO 3166 code of two capital letters, such as US or DE")
            return regions

        restore: bool = Field(
            False,
            description="With `then: mask` on input or retrieval: whether the model sees a pseudonym in place of each "
            "value, such as <EMAIL_ADDRESS_1>, and the value is put back into the answer.",
        )

        @model_validator(mode="after")
        def _names_can_be_found(self) -> Self:
            if not self.names or self.model:
                return self
            if self.analyzer is None:
                more = [kind for kind in self.names if kind not in PRESIDIO]
                mistake = f"{more[0]} needs a `model`, such as minilm-names" if more else missing(self.ner_model)
            else:
                mistake = "" if callable(_resolved(self.analyzer)) else f"{self.analyzer!r} is no function"
            if mistake:
                raise ValueError(mistake)
            return self

        @property
        def names(self) -> list[str]:
            """The kinds to find that only a model knows."""
            return [kind for kind in NAMES if kind in self.kinds]

        @property
        def streams(self) -> Streams:
            """A model may take a name for another when the sentence goes on."""
            return "whole" if self.names else "spans"

        @property
        def kinds(self) -> frozenset[str]:
            """The kinds to find, with those of groups."""
            return frozenset(kind for name in self.entities for kind in GROUPS.get(name, (name,)))

    def __init__(self, config: Config, models: Models) -> None:
        # From the kind that proves most to the one that proves least: what one has claimed, the next does not see.
        finders: dict[str, Finder] = {
            "EMAIL_ADDRESS": find_emails,
            "IBAN_CODE": find_ibans,
            **{kind: partial(find_identities, kind=kind) for kind in IDENTITIES},
            "CREDIT_CARD": find_cards,
            "IP_ADDRESS": find_ip_addresses,
            "US_SSN": find_ssns,
            "PHONE_NUMBER": partial(find_phones, regions=config.regions),
        }
        self.finders = {entity: find for entity, find in finders.items() if entity in config.kinds}
        self.names = config.names
        self.model = models.generators[config.model] if config.model and self.names else None
        if self.names and self.model is None:
            self.analyze: Analyze = _resolved(config.analyzer) if config.analyzer else presidio(config.ner_model)

    async def check(self, turn: Turn) -> Verdict:
        """Block on any personal data, and say where each piece is. Raises RailFailed on too many numbers to judge."""
        folded = fold(turn.text)
        text = folded.text
        findings: list[Finding] = []
        for entity, find in self.finders.items():
            spans = list(find(text))
            findings += [folded.finding(entity, *span) for span in spans]
            text = _blanked(text, spans)
        if self.names and text.strip("\0 "):
            left = text.replace("\0", " ")
            named = await names_by(self.model, left) if self.model else self.analyze(left, self.names)
            findings += [folded.finding(*name) for name in named if name[0] in self.names]
        if not findings:
            return Verdict.allow()
        found = disjoint(findings)
        kinds = tuple(kind for kind in WORDS if any(finding.label == kind for finding in found))
        return Verdict.block(detail=", ".join(WORDS[kind] for kind in kinds), categories=kinds, findings=found)

    def held(self, turn: Turn) -> int:
        """From where on a number or an address may have begun that is not complete."""
        folded = fold(turn.text)
        return folded.origin(_unfinished(folded.text))


def _resolved(path: str) -> Any:  # Any: whatever the path leads to
    """What stands at an import path. Raises ValueError."""
    try:
        return pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{path!r} cannot be imported: {error}") from None


APART = 64  # characters between two digits of one number, and behind its last one that say what it is, at most
MARKS = re2.compile(r"\[[0-9]{1,3}\]|([0-9@])")  # the number of a citation is part of no other
# An IBAN's country and a phone number's plus may stand apart from the digits.
LAST_WORDS = re2.compile(r"(?:(?:\A|\s)(?:\S{0,2}(?i:[a-z]{2})|[(+]{1,4})\s+)?\S*\z")


def _unfinished(text: str) -> int:
    """Where the last words begin, or the last row of numbers, whose end is not known yet."""
    start = _words_before(text, len(text))
    for place in reversed([match.start() for match in MARKS.finditer(text) if match.group(1)]):
        if place < start - APART:
            break
        start = min(start, _words_before(text, place))
    return start


def _words_before(text: str, place: int) -> int:
    return int(LAST_WORDS.search(text[:place]).start())


def _blanked(text: str, spans: list[Span]) -> str:
    """The text with NUL, which no pattern matches, in place of the spans (sorted, apart)."""
    pieces, reached = [], 0
    for start, end in spans:
        pieces += [text[reached:start], "\0" * (end - start)]
        reached = end
    return "".join(pieces) + text[reached:]


# E-mail -----------------------------------------------------------------------------------------------------------

# The user of a URL is skipped: `https://name@host.org` is no address. A local part starts with a letter or digit, so
# that the quotes and brackets around it stay outside.
EMAIL = re2.compile(
    r"(?i)[a-z][a-z0-9+.-]*://[^\s/?#@,;=<>\"'()]*@"
    r"|([\pL\pN][\pL\pM\pN_+%&'~!#$*-]*(?:\.[\pL\pM\pN_+%&'~!#$*-]+)*"
    r"@(?:[\pL\pN](?:[\pL\pM\pN-]*[\pL\pM\pN])?\.)+(?:xn--[a-z0-9-]*[a-z0-9]|\pL[\pL\pM]+))"
)
FILES = frozenset({"avif", "gif", "ico", "jpeg", "jpg", "png", "svg", "webp"})  # logo@2x.png; no top-level domains


def find_emails(text: str) -> Iterator[Span]:
    """Addresses of RFC 5322's dot-atom form, with domains of any script; git@host:path is a remote, not a person."""
    for match in EMAIL.finditer(text):
        start, end = match.span(1)
        if start < 0 or text[end : end + 1].isdigit():
            continue
        local, _, domain = text[start:end].lower().rpartition("@")
        if domain.rpartition(".")[2] in FILES or (local == "git" and text[end : end + 1] == ":"):
            continue
        yield start, end


# Bank accounts ----------------------------------------------------------------------------------------------------

IBAN_HEAD = re2.compile(r"(?i)[a-z]{2}[ -]?[0-9]{2}")


def find_ibans(text: str) -> Iterator[Span]:
    """IBANs of the length and structure of their country, with the right check digits, however they are spaced."""
    reached = 0
    for match in IBAN_HEAD.finditer(text):
        start = match.start()
        length = _iban_length(text[start : start + 2].upper())
        if start < reached or not length or text[start - 1 : start].isalnum():
            continue
        end = _end_of(text, start, length)
        if end and not text[end : end + 1].isalnum() and iban.is_valid(text[start:end], check_country=False):
            yield start, (reached := end)


@cache
def _iban_length(country: str) -> int:
    """How long the country's IBANs are; 0 where it has none."""
    # The registry writes what follows the check digits as "4!a6!n8!n": four letters, six digits, eight digits.
    structure = numdb.get("iban").info(country)[0][1].get("bban")
    return 4 + sum(int(count) for count in re2.findall("[0-9]+", structure)) if structure else 0


def _end_of(text: str, start: int, length: int) -> int:
    """Where `length` ASCII letters and digits end that single spaces or dashes may part; 0 if they do not come."""
    counted = 0
    for i in range(start, min(len(text), start + 2 * length)):
        if text[i].isascii() and text[i].isalnum():
            counted += 1
            if counted == length:
                return i + 1
        elif text[i] not in " -" or text[i - 1] in " -":
            return 0
    return 0


# Cards ------------------------------------------------------------------------------------------------------------

CARD_RUN = re2.compile(r"[0-9](?:[ ._-]{0,3}[0-9]){11,}")
DIGITS = re2.compile("[0-9]+")
FEWEST, MOST = 12, 19  # digits of a card number (ISO/IEC 7812)
FEWEST_IN_A_ROW = 15  # characters of a card number among other groups of digits


class Issuer(NamedTuple):
    """The numbers that an issuer gives out: the first digits, from `first` to `last`, and how many there are in all."""

    first: str
    last: str
    lengths: tuple[int, ...]

    def issues(self, digits: str) -> bool:
        """Whether a number is one of theirs."""
        return len(digits) in self.lengths and self.first <= digits[: len(self.first)] <= self.last


ISSUERS = (
    Issuer("4", "4", (13, 16, 19)),  # Visa
    Issuer("51", "55", (16,)),  # Mastercard
    Issuer("2221", "2720", (16,)),
    Issuer("34", "34", (15,)),  # American Express
    Issuer("37", "37", (15,)),
    Issuer("6011", "6011", (16, 17, 18, 19)),  # Discover
    Issuer("644", "659", (16, 17, 18, 19)),
    Issuer("300", "305", (14, 16)),  # Diners Club
    Issuer("3095", "3095", (14, 16)),
    Issuer("36", "36", (14, 16)),
    Issuer("38", "39", (14, 16)),
    Issuer("35", "35", (16, 17, 18, 19)),  # JCB gives out 3528 to 3589; test numbers have the others too
    Issuer("1800", "1800", (15,)),
    Issuer("2131", "2131", (15,)),
    Issuer("62", "62", (16, 17, 18, 19)),  # UnionPay
    Issuer("2200", "2204", (16, 17, 18, 19)),  # Mir
    Issuer("60", "60", (16,)),  # RuPay
    Issuer("81", "82", (16,)),
    Issuer("508", "508", (16,)),
    Issuer("0604", "0604", tuple(range(12, 20))),  # Maestro
    Issuer("5018", "5038", tuple(range(12, 20))),
    Issuer("56", "58", tuple(range(12, 20))),
    Issuer("6304", "6304", tuple(range(12, 20))),
    Issuer("6390", "6390", tuple(range(12, 20))),
    Issuer("67", "67", tuple(range(12, 20))),
)


class Group(NamedTuple):
    """Digits that stand together."""

    start: int
    end: int
    digits: str


def find_cards(text: str) -> Iterator[Span]:
    """Card numbers with an issuer's first digits and length and a right check digit, in groups or in one piece."""
    for run in CARD_RUN.finditer(text):
        groups = [
            Group(run.start() + m.start(), run.start() + m.end(), m.group()) for m in DIGITS.finditer(run.group())
        ]
        if all(len(group.digits) == 1 for group in groups):  # 4 1 1 1 ...: the whole row is one number or none
            groups = [Group(run.start(), run.end(), "".join(group.digits for group in groups))]
        first = 0
        while first < len(groups):
            size = _card_at(groups[first : first + MOST])
            start, end = groups[first].start, groups[first + max(size, 1) - 1].end
            # Three groups of four among others prove little; nor is a fraction a card.
            whole = size in (1, len(groups)) or end - start >= FEWEST_IN_A_ROW
            if size and whole and not (size == 1 and _is_fraction(text, start, end)):
                yield start, end
            first += size or 1


def _card_at(groups: list[Group]) -> int:
    """How many groups from the first on are a card number: the most that are, or 0."""
    size, digits = 0, ""
    for count, group in enumerate(groups, start=1):
        digits += group.digits
        # Small numbers in a row would make a card by chance.
        if len(group.digits) < 3 or len(digits) > MOST:
            break
        if len(digits) >= FEWEST and any(issuer.issues(digits) for issuer in ISSUERS) and luhn.is_valid(digits):
            size = count
    return size


def _is_fraction(text: str, start: int, end: int) -> bool:
    """Whether a decimal point parts the digits from others."""
    return bool(re2.search(r"[0-9]\.$", text[max(0, start - 2) : start]) or re2.match(r"\.[0-9]", text[end : end + 2]))


# IP addresses -----------------------------------------------------------------------------------------------------

# Digits with dots, or hexadecimal digits with at least two colons: as much as stands together.
IP_RUN = re2.compile(r"[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*|[0-9]+(?:\.[0-9]+)+")
VERSION = re2.compile(
    r"(?i)(?:\b(?:version|ver|release|build|firmware|section|chapter|clause|v)[.:]?\s*|[a-z][-/]|§\s*|[=~^<>!]=\s*|[~^]\s*)$"
)


def find_ip_addresses(text: str) -> Iterator[Span]:
    """Addresses of either version that may be somebody's; "version 1.2.3.4" and "Chrome/120.0.0.0" are none."""
    for run in IP_RUN.finditer(text):
        token = run.group()
        start = run.start() + (token[0] == ":" and token[1] != ":")  # "ip:2001:db8::1"
        token = text[start : run.end()].rstrip(".")
        if token.endswith(":") and not token.endswith("::"):
            token = token[:-1]
        end = start + len(token)
        if not (_is_word(text[start - 1 : start]) or _is_word(text[end : end + 1])) and _is_somebodys(token):
            if ":" not in token and VERSION.search(text[max(0, start - 16) : start]):
                continue
            yield start, end


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def _is_somebodys(token: str) -> bool:
    """Whether a token is an address, and not one that every machine has."""
    try:
        address = ipaddress.ip_address(token)
    except ValueError:
        return False
    if token.count(":") == 2 and not any(c.isdigit() for c in token):  # "abc::def" is C++
        return False
    return not (address.is_loopback or address.is_unspecified or token.startswith("255."))  # the last: a netmask


# US social security numbers ---------------------------------------------------------------------------------------

SSN = re2.compile(r"([0-9]{3})([- .]?)([0-9]{2})([- .]?)([0-9]{4})")
ENDS_IN_PART = re2.compile(r"\w$|[0-9][-.]$")
STARTS_WITH_PART = re2.compile(r"^\w|^[-.][0-9]")
SSN_WORDS = re2.compile(r"(?i)\b(?:ssn|social[ -]security)\b")


def find_ssns(text: str) -> Iterator[Span]:
    """Numbers of the form 123-45-6789 that can have been issued, invalidated ones included.

    With spaces, dots or nothing between the groups, only after words that say what the number is.
    """
    for match in SSN.finditer(text):
        area, before, group, after, serial = match.groups()
        start, end = match.span()
        if before != after or area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000":
            continue
        if ENDS_IN_PART.search(text[max(0, start - 2) : start]) or STARTS_WITH_PART.search(text[end : end + 2]):
            continue  # it is a piece of a longer number or word
        if before == "-" or SSN_WORDS.search(text[max(0, start - NEAR) : start]):
            yield start, end
