"""Sentences in which names of people, places, streets and organisations are marked: written here, filled in by Faker.

Faker (MIT) draws names of many countries; sentences, and the places of the world, are our own. What only looks like a
name, since it begins with a capital letter or is also a word, stands in sentences without marks. This file knows
nothing of models.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from faker import Faker

from trackbed.llm.tuning.rows import authored

KINDS = ("PERSON", "LOCATION", "STREET_ADDRESS", "ORGANIZATION")
LOCALES = (
    *("en_US", "en_GB", "en_IN", "en_AU", "en_CA", "en_NZ", "de_DE", "de_AT", "fr_FR", "fr_CA", "es_ES", "es_MX"),
    *("it_IT", "nl_NL", "pl_PL", "sv_SE", "da_DK", "fi_FI", "no_NO", "pt_BR", "pt_PT", "cs_CZ", "hu_HU", "tr_TR"),
    *("ro_RO", "hr_HR", "sl_SI", "id_ID", "vi_VN", "zu_ZA"),
)
ENGLISH = LOCALES[:6]
SLOT = re.compile(r"\{(\w+)\}")
# What the labels of other data are called here; those that are none of these are not learned.
SAME = {"GPE": "LOCATION", **{kind: kind for kind in KINDS}}


PLACES, ORGANISATIONS = authored("names", "places"), authored("names", "organisations")
# Each slot is a mark where its kind is one of KINDS; those of what is no name fill in what is around them.
SENTENCES, PLAIN = authored("names", "sentences"), authored("names", "plain")


class Named(NamedTuple):
    """A text, and the names in it."""

    text: str
    spans: tuple[tuple[str, int, int], ...]  # kind, start, end: `text[start:end]`
    source: str
    fold: int


def read_named(path: Path) -> list[Named]:
    """Rows of JSON lines with `text` and `spans`; of these the kinds that are known here. Raises ValueError."""
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                spans = [(SAME[s["label"]], int(s["start"]), int(s["end"])) for s in row["spans"] if s["label"] in SAME]
                rows.append(Named(str(row["text"]), tuple(spans), str(row["source"]), int(row["fold"])))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}:{number}: a row needs text, spans, source and fold: {error!r}") from error
    return rows


def named_rows(count: int, seed: int = 0) -> list[Named]:
    """So many texts of one to three sentences with names, and a third as many without, the same ones each time."""
    chance = random.Random(seed)  # noqa: S311
    draw = _Draw(chance)
    rows = [_spoken(_text(draw, SENTENCES, chance), chance) for _ in range(count)]
    return rows + [_spoken(_text(draw, PLAIN, chance), chance) for _ in range(count // 3)]


def _text(draw: "_Draw", sentences: Sequence[str], chance: random.Random) -> Named:
    """Some sentences in a row, filled in; now and then one without a name among them."""
    text, spans = "", []
    for i in range(chance.choice((1, 1, 1, 2, 2, 3, 5))):
        sentence = chance.choice(PLAIN if i and chance.random() < 0.3 else sentences)
        text += chance.choice((" ", " ", "\n")) if text else ""
        reached = 0
        draw.country(chance.choice(LOCALES if chance.random() < 0.6 else ENGLISH))
        for slot in SLOT.finditer(sentence):
            text += sentence[reached : slot.start()]
            kind, value = draw.fill(slot.group(1))
            if kind:
                start = len(text) + (4 if value.startswith("the ") else 0)
                spans.append((kind, start, len(text) + len(value)))
            text, reached = text + value, slot.end()
        text += sentence[reached:]
    return Named(text, tuple(spans), "authored-names", 0)


def _spoken(row: Named, chance: random.Random) -> Named:
    """As people type: without capitals now and then, or all in capitals, where that moves no letter."""
    share = chance.random()
    changed = row.text.lower() if share < 0.2 else row.text.upper() if share < 0.24 else row.text
    return row._replace(text=changed) if len(changed) == len(row.text) else row


class _Draw:
    """What slots are filled with, of one country at a time."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.fakers = {locale: Faker(locale) for locale in LOCALES}
        for faker in self.fakers.values():
            faker.seed_instance(chance.randrange(2**31))
        self.faker = self.fakers["en_US"]

    def country(self, locale: str) -> None:
        """Whose names come next."""
        self.faker = self.fakers[locale]

    def fill(self, slot: str) -> tuple[str, str]:
        """The kind of a slot, empty where it is no name, and a value."""
        faker, english = self.faker, self.fakers["en_US"]
        names: dict[str, tuple[str, Callable[[], str]]] = {
            "P": ("PERSON", self._person),
            "F": ("PERSON", faker.first_name),
            "L": ("PERSON", faker.last_name),
            "C": ("LOCATION", lambda: self.chance.choice(PLACES) if self.chance.random() < 0.6 else str(faker.city())),
            "N": ("LOCATION", lambda: self.chance.choice(PLACES) if self.chance.random() < 0.6 else english.country()),
            "A": ("STREET_ADDRESS", self._street),
            "B": ("STREET_ADDRESS", self._block),
            "O": (
                "ORGANIZATION",
                lambda: self.chance.choice(ORGANISATIONS) if self.chance.random() < 0.4 else faker.company(),
            ),
        }
        others: dict[str, Callable[[], str]] = {
            "J": english.job,
            "E": faker.ascii_safe_email,
            "T": faker.phone_number,
            "t": lambda: self.chance.choice(("Mr", "Mrs", "Ms", "Mr.", "Mrs.", "Ms.", "Miss", "Dr.", "Prof.")),
            "d": lambda: english.date(self.chance.choice(("%d %B %Y", "%Y-%m-%d", "%d/%m/%Y", "%B %d", "%d.%m.%y"))),
            "w": english.day_of_week,
            "y": english.year,
            "n": lambda: str(self.chance.randrange(1, 10 ** self.chance.randrange(1, 6))),
            "a": lambda: str(self.chance.randrange(2, 99)),
            "z": faker.postcode,
            "c": english.credit_card_number,
            "i": self.fakers["de_DE"].iban,
            "I": english.ipv4_public,
        }
        if slot in names:
            kind, value = names[slot]
            return kind, value()
        return "", others[slot]()

    def _person(self) -> str:
        first, last, share = self.faker.first_name(), self.faker.last_name(), self.chance.random()
        if share < 0.12:
            return f"{first} {self.chance.choice('ABCDEFGHJKLMNPRSTVW')}. {last}"
        if share < 0.2:
            return f"{first} {self.faker.first_name()} {last}"
        if share < 0.26:
            return f"{first[0]}. {last}"
        if share < 0.3:
            return f"{first} {last}-{self.faker.last_name()}"
        return f"{first} {last}"

    def _block(self) -> str:
        """A street with the town and perhaps the country, which are parts of the address."""
        town = self.chance.choice((f"{self.faker.postcode()} {self.faker.city()}", f"{self.faker.city()}", "London"))
        parts = [self._street(), town]
        if self.chance.random() < 0.4:
            parts.append(str(self.fakers["en_US"].country()))
        joint = self.chance.choice((", ", "\n", "\n ", ",\n"))
        return joint.join(parts)

    def _street(self) -> str:
        """A street with its number, and a flat now and then; what countries write between them is a line or a comma."""
        street = " ".join(str(self.faker.street_address()).replace("\n", ", ").split())
        if self.chance.random() < 0.15:
            street += self.chance.choice((", Apt. {}", ", Flat {}", " Suite {}", ", {}. Stock", " App. {}")).format(
                self.chance.randrange(1, 200)
            )
        return street
