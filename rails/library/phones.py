"""Phone numbers in text: a linear pattern proposes, the words around it and the numbering plans decide.

Most rows of digits are no phone numbers but dates, prices, orders, versions. Which is which is judged by what stands
before a number, by how it is grouped, and by libphonenumber's plans.
"""

from collections.abc import Iterator

import re2
from phonenumbers import Leniency, PhoneNumberMatcher

from trackbed.rails.errors import RailFailed

NEAR = 48  # characters before a number that may say what it is
DIGITS = re2.compile("[0-9]+")
# From seven digits up, with what people put between them, and an extension. A longer row is looked at in pieces.
PHONE_RUN = re2.compile(
    r"(?:\(?\+ ?\(?|\()?[0-9](?:(?:[-./]| {1,2}| ?\(|\)[-. ]?| [-/] )?[0-9]){6,40}"
    r"((?:[ ,;]{0,2}(?i:x|ext\.?|extension|#)[ .:]{0,2}[0-9]{1,7})?)"
)
DATE = re2.compile(
    r"\b(?:(?:19|20)[0-9]{2}[-./][01]?[0-9][-./][0-3]?[0-9]|[0-3]?[0-9][-./][0-3]?[0-9][-./](?:19|20)[0-9]{2})\b"
)
# How people write a national number when nothing around it says that it is one: a trunk 0, brackets around the area
# code, or at least three groups.
SHAPED = re2.compile(r"^0[0-9]{9,10}$|^0[0-9]{1,5}[-. /)]|^\([0-9]+\)|[0-9]{2,}[-. /][0-9]{2,}[-. /][0-9]{2,}")
# The nearest of these words before a number says what it is. A verb has to lead up to it: "call me on".
SAID = re2.compile(
    r"(?i)\b(?:(phone|telephone|telefon|teléfono|téléphone|telefono|tel|mobile|mobil|móvil|cell|cellphone|cellulare"
    r"|portable|handy|landline|hotline|fax|whatsapp|sms|desk|my number|new number"
    r"|(?:call|dial|ring|text|reach|contact)(?:ing)?(?:\b[^.!?\n]*\b(?:on|at|under|or)| me| us| him| her| them)?[ :]*$)"
    r"|order|invoice|ticket|ref|reference|id|account|acct|isbn|issn|tracking|parcel|part|serial|case|model|version|zip"
    r"|postcode|licen[cs]e|passport|policy|sku|upc|ean|vat|tax|batch|timestamp|doi|patent)(?:s?\b|$)"
)
SAID_AFTER = re2.compile(r"(?i)^[-\s(,]{0,3}(?:fax|office|mobile|cell|home|work|tel)\b")
NO_REGION = "ZZ"  # CLDR: unknown
CURRENCIES = tuple("$£€¥")
MOST_DIGITS = 15  # of a number with its country code (ITU-T E.164)
MOST_CHECKED = 400  # checking one takes up to a few milliseconds
MOST_TRIES = 10  # at the pieces of a run, for a region


def find_phones(text: str, regions: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Numbers with a country code, and national ones of the regions.

    What words near it call a phone number is one, if it is not too long. Any other has to be a number that the region
    gives out, written in groups as it is there; a bare row of digits is none, unless it starts with a 0.
    Raises RailFailed when there are too many to look at.
    """
    text = DATE.sub(lambda date: "\0" * len(date.group()), text)
    checked = 0
    for match in PHONE_RUN.finditer(text):
        start, end = match.span()
        number = text[start : match.start(1)]  # without its extension
        if number[0] == "(" and ")" not in number:
            start += 1
        said = _is_said(text, start, end)
        digits = "".join(DIGITS.findall(number))
        if said and len(digits) <= MOST_DIGITS and text[start - 1 : start] not in CURRENCIES:
            yield start, end
        elif "+" in number or (said is not False and SHAPED.search(number) and not _counts(digits)):
            checked += 1
            if checked > MOST_CHECKED:
                raise RailFailed(f"more than {MOST_CHECKED} numbers that may be phone numbers; limit the text's length")
            yield from _numbers_in(text, start, end, regions if "+" not in number else None)


def _counts(digits: str) -> bool:
    """Whether the digits are binary, or count up."""
    return not digits.strip("01") or digits in "0123456789012345"


def _is_said(text: str, start: int, end: int) -> bool | None:
    """Whether words near a number call it a phone number, or something else; None when they are silent."""
    words = list(SAID.finditer(text[max(0, start - NEAR) : start]))
    if words:
        return words[-1].group(1) is not None
    return True if SAID_AFTER.search(text[end : end + 12]) else None


def _numbers_in(text: str, start: int, end: int, regions: tuple[str, ...] | None) -> list[tuple[int, int]]:
    """The phone numbers of a run, by the first region that knows any; without regions, those with a country code."""
    if regions is None:
        return _matches(text, start, end, NO_REGION, Leniency.POSSIBLE)
    found_by = (_matches(text, start, end, region, Leniency.EXACT_GROUPING) for region in regions)
    return next((found for found in found_by if found), [])


def _matches(text: str, start: int, end: int, region: str, leniency: int) -> list[tuple[int, int]]:
    # One character before, for the matcher to see letters and currency signs; and three after, for the ":00" of a time.
    first = max(0, start - 1)
    matcher = PhoneNumberMatcher(text[first : end + 3], region, leniency, max_tries=MOST_TRIES)
    spans = [(first + match.start, first + match.end) for match in matcher]
    return [span for span in spans if not text[span[1] : span[1] + 1].isdigit()]  # else the run was cut there
