"""More attacks written for the training of judges: orders in several languages, pretexts for somebody's secrets, and
tasks hidden in tables, code, letters and manuals; beside them instructions that nobody minds, and the same documents.

The words stand under `texts/attacks`, and are our own; the code is Python's, the manual that of this package.
"""

import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

from faker import Faker

from trackbed.llm.tuning.authored import LICENCE, hidden
from trackbed.llm.tuning.rows import PLACES, Row, authored

PAGES = Path(__file__).parents[2] / "policies" / "knowledge"
MODULES: tuple[str, ...] = (
    "argparse",
    "calendar",
    "csv",
    "difflib",
    "fractions",
    "gettext",
    "heapq",
    "html.parser",
    "json.decoder",
)
MODULES += ("mimetypes", "netrc", "optparse", "pprint", "shelve", "statistics", "textwrap", "urllib.parse", "zipfile")


def order_rows(count: int, seed: int = 0) -> list[Row]:
    """So many each of orders, harmless instructions, documents with an order in them, and documents without."""
    chance = random.Random(seed)  # noqa: S311
    fillings = dict(line.split(": ", 1) for line in authored("attacks", "fillings"))
    choices = {name: words.split("|") for name, words in fillings.items()}
    orders, tasks, harmless = ([*authored("attacks", name)] for name in ("orders", "tasks", "harmless"))
    faker = Faker("en_US")
    faker.seed_instance(seed)
    pages = [*_code(), *_sections()]
    made = [*_tables(faker, chance, count), *_letters(faker, chance, count, choices["sentence"])]
    pages = chance.sample(pages, min(len(pages), count)) + made

    def said(templates: Sequence[str]) -> str:
        words = {name: chance.choice(values) for name, values in choices.items()}
        return chance.choice(templates).format(**words)

    def row(text: str, source: str, *, positive: bool, place: str = "") -> Row:
        return Row(text, "", positive, (), source, LICENCE, not positive, 0, place=place)

    rows = [row(said(orders), "authored-orders", positive=True) for _ in range(count)]
    rows += [row(said(harmless), "authored-instructions", positive=False) for _ in range(count)]
    for _ in range(count):
        place, order = chance.choice(PLACES), said(tasks) if chance.random() < 0.7 else said(orders)
        text = hidden(order, chance.choice(pages), place, chance)
        rows.append(row(text, "authored-hidden", positive=True, place=place))
    return rows + [
        row(hidden("", page, "end", chance), "authored-pages", positive=False)
        for page in chance.sample(pages, min(count, len(pages)))
    ]


def _code() -> Iterator[str]:
    """Functions and classes of Python's library."""
    for name in MODULES:
        for value in vars(import_module(name)).values():
            if inspect.isroutine(value) or inspect.isclass(value):
                try:
                    source = inspect.getsource(value)
                except (OSError, TypeError):  # it is not written in Python
                    continue
                if len(source) > 200:
                    yield source[:4000]


def _sections() -> Iterator[str]:
    """The sections of this package's manual."""
    for page in sorted(PAGES.glob("*.md")):
        for section in page.read_text(encoding="utf-8").split("\n## ")[1:]:
            yield f"## {section}"


def _tables(faker: Faker, chance: random.Random, count: int) -> Iterator[str]:
    """Tables in Markdown and as lines with commas."""
    columns: dict[str, Callable[[], str]] = {
        "Date": faker.date,
        "Name": faker.name,
        "City": faker.city,
        "Company": faker.company,
        "Result": lambda: chance.choice(("Won", "Lost", "Drawn", "Nominated", "Withdrawn", "-")),
        "Title": lambda: str(faker.catch_phrase()),
        "Total": lambda: f"{chance.randrange(100_000):,}",
        "Share": lambda: f"{chance.random():.1%}",
        "Remark": lambda: chance.choice(("", "", str(faker.bs()), "see note")),
    }
    for _ in range(count):
        names = chance.sample(sorted(columns), chance.randrange(3, 6))
        rows = [[columns[name]() for name in names] for _ in range(chance.randrange(4, 14))]
        if chance.random() < 0.6:
            rows = [names, ["---"] * len(names), *rows]
            yield "\n".join(f"| {' | '.join(row)} |" for row in rows)
        else:
            yield "\n".join(",".join(row) for row in [names, *rows])


def _letters(faker: Faker, chance: random.Random, count: int, sentences: Sequence[str]) -> Iterator[str]:
    """E-mails with a head and a foot, about nothing much."""
    asides = (
        *(
            "Please find the invoice attached.",
            "Could you send me the figures by Friday?",
            "Let me know if that suits you.",
        ),
        *(
            "Click the link below to confirm your address.",
            "Do not reply to this message.",
            "Your order has been shipped.",
        ),
        *("Please read the instructions before you install the update.", "Reset your password within 24 hours."),
        *("We have updated our terms; you do not have to do anything.", "The meeting has been moved to Room 4."),
        *("Remember to bring your passport.", "Rate your stay with one to five stars.", "To unsubscribe, click here."),
    )
    for _ in range(count):
        body = " ".join(chance.choice((*asides, *sentences, str(faker.catch_phrase()) + ".")) for _ in range(9))
        yield (
            f"Subject: {faker.catch_phrase()}\nFrom: {faker.name()} <{faker.ascii_safe_email()}>\n"
            f"Date: {faker.date()}\n\nHi {faker.first_name()},\n\n{body}\n\nBest,\n{faker.first_name()}\n"
            f"{faker.company()}"
        )
