"""Tax, social-security and identity numbers of Germany, France, Spain and Italy.

A linear pattern proposes. Where a number has check digits that chance seldom meets, they decide (python-stdnum). Where
every tenth number meets them, words before it have to say what it is too. Nothing is looked up: whether a number was
ever given out is not known here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import re2
from stdnum.de import idnr, stnr
from stdnum.es import cif, dni, nie
from stdnum.fr import nir, siren
from stdnum.it import codicefiscale, iva

NEAR = 48  # characters before a number that may say what it is
IS_PART = re2.compile(r"[\w+]$|[0-9][-./,]$|\+[0-9]{1,3}[ -]$")
GOES_ON = re2.compile(r"^\w|^[-./,][0-9]")
IN_A_ROW = re2.compile(r"[0-9] $")  # before a number of spaced groups: it may be one of more groups
ROW_GOES_ON = re2.compile(r"^ [0-9]")


@dataclass(frozen=True, slots=True)
class Identity:
    """How numbers of a kind are written, and what proves one."""

    words: str  # what it is called in a verdict
    pattern: Any  # Any: RE2 patterns have no type
    is_valid: Callable[[str], bool]
    said: Any = None  # Any: as above; has to stand before the number, where its digits alone prove too little


IDENTITIES = {
    "DE_TAX_ID": Identity(
        "German tax identification number",
        re2.compile(r"[1-9][0-9] ?[0-9]{3} ?[0-9]{3} ?[0-9]{3}"),
        idnr.is_valid,
    ),
    # It has no check digit, but few other numbers are written with these slashes.
    "DE_TAX_NUMBER": Identity(
        "German tax number",
        re2.compile(r"[0-9]{2,3}/[0-9]{3,4}/[0-9]{4,5}|[0-9]{5}/[0-9]{5}"),
        stnr.is_valid,
    ),
    "FR_NIR": Identity(
        "French social security number",
        re2.compile(r"(?i)[1-478] ?[0-9]{2} ?[0-9]{2} ?(?:[0-9]{2}|2[ab]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}"),
        nir.is_valid,
    ),
    "FR_SIREN": Identity(
        "French company number",
        re2.compile(r"[0-9]{3} ?[0-9]{3} ?[0-9]{3}"),
        siren.is_valid,
        re2.compile(r"(?i)\b(?:siren|rcs|immatricul\pL*)\b"),
    ),
    "ES_NIF": Identity(
        "Spanish identity number",
        re2.compile(r"(?i)[0-9]{2}(?:\.[0-9]{3}\.[0-9]{3}|[0-9]{6})[- ]?[a-z]"),
        lambda number: bool(dni.is_valid(number.replace(".", ""))),
    ),
    "ES_NIE": Identity(
        "Spanish foreigner's number",
        re2.compile(r"(?i)[xyz]-?[0-9]{7}-?[a-z]"),
        nie.is_valid,
    ),
    "ES_CIF": Identity(
        "Spanish company number",
        re2.compile(r"(?i)[a-hjnp-w]-?[0-9]{2}(?:[. ]?[0-9]{3}){2}|[a-hjnp-w]-?[0-9]{7}-?[a-j]"),
        lambda number: bool(cif.is_valid(number.replace(".", ""))),
        re2.compile(
            r"(?i)\bc\.?i\.?f\b|\bn\.?i\.?f\b|\biva\b|\b(?:empresa|sociedad)\b|\bs\. ?[al]\b|\bs\.?[al]\.?u?[ ,.]"
        ),
    ),
    "IT_FISCAL_CODE": Identity(
        "Italian fiscal code",
        re2.compile(r"(?i)[a-z]{6}[0-9lmnp-v]{2}[a-ehlmprst][0-9lmnp-v]{2}[a-z][0-9lmnp-v]{3}[a-z]"),
        codicefiscale.is_valid,
    ),
    "IT_VAT_CODE": Identity(
        "Italian VAT number",
        re2.compile(r"(?i)(?:it ?)?[0-9]{11}"),
        iva.is_valid,
        re2.compile(r"(?i)\bp(?:artita|\.)? ?i(?:va|\.)|\bvat\b|\biva\b|\bcodice fiscale\b|\bc\.f\."),
    ),
}


def find_identities(text: str, kind: str) -> Iterator[tuple[int, int]]:
    """The numbers of one kind of `IDENTITIES`: `text[start:end]`, from left to right.

    >>> list(find_identities("NIE X1234567L.", "ES_NIE"))
    [(4, 13)]
    """
    identity = IDENTITIES[kind]
    for match in identity.pattern.finditer(text):
        start, end = match.span()
        number = match.group()
        before, after = text[max(0, start - 5) : start], text[end : end + 2]
        if IS_PART.search(before) or GOES_ON.search(after) or not identity.is_valid(number):
            continue
        if " " in number and (IN_A_ROW.search(before) or ROW_GOES_ON.search(after)):
            continue
        if (
            identity.said is None
            or number[:2].lower() == "it"
            or identity.said.search(text[max(0, start - NEAR) : start])
        ):
            yield start, end
