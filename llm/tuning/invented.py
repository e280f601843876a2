"""Questions about things that do not exist, and passages about them: written here, filled in by chance. CC0.

Nothing that a model may have read helps with them: what is asked stands in the passages, or it does not. Each kind of
thing has facts; each fact is said in several ways and asked for in others. People's names are Faker's (MIT). This file
knows nothing of models.
"""

import random
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml
from faker import Faker

from trackbed.llm.tuning.rows import authored

SOURCE, LICENCE = "authored-things", "CC0-1.0"
SLOT = re.compile(r"\{(?:(\d+)-(\d+)|(\w+))\}")
ARTICLE = re.compile(r"^(?:the|a|an) ", re.IGNORECASE)
COINED = (
    *("bal", "cor", "del", "fen", "gor", "hal", "jun", "kel", "lor", "mar", "nor", "pel", "quin", "ros", "sal", "tor"),
    *("ul", "ven", "wex", "yor", "zan"),
)
VOWELS = ("a", "e", "i", "o", "u", "ar", "en", "il", "os", "um")
ENDINGS = ("bar", "dex", "gren", "lia", "mond", "nis", "rath", "ska", "tis", "vale", "von", "wick")
LICENCES = ("the MIT licence", "Apache-2.0", "GPL-3.0", "a licence of its own", "BSD-2-Clause")
TIMES = ("once", "twice", "three times")
JOBS = ("a carpenter", "a nurse", "a surveyor", "a teacher", "a ship's cook", "an optician", "a printer", "a judge")
ASK_HOW = (
    *("How do I {}?", "How can I {}?", "What do I have to do to {}?", "I want to {}. How?", "how to {}"),
    *("What is the way to {}?", "Please tell me how to {}.", "Where do I {}?"),
)
SAY_HOW = ("To {task}, {how}.", "If you want to {task}, {how}.", "{How} to {task}.", "{How}. That is how to {task}.")
ASK_WHAT = ("What is {}?", "What does the word for {} mean?", "Explain what {} is.", "Define {}.")


class Piece(NamedTuple):
    """A passage as a question shows it."""

    text: str
    heading: str = ""


class Case(NamedTuple):
    """A question, numbered passages, and the sentence of one of them that answers it."""

    question: str
    pieces: tuple[Piece, ...]
    answer: str  # empty: none does
    place: int  # of the passage that has it, from 0
    source: str
    licence: str
    before: tuple[str, str] | None = None  # what was asked and answered earlier


class _Fact(NamedTuple):
    said: str
    asked: tuple[str, ...]


def invented(count: int, seed: int = 0) -> list[Case]:
    """So many questions about things, two fifths of them without an answer; the same for the same seed."""
    draw = _Draw(seed)
    return [draw.case() for _ in range(count)]


def procedures(count: int, seed: int = 0) -> list[Case]:
    """So many questions how something is done and what a word means, a third of them without an answer."""
    draw = _Draw(seed)
    return [draw.procedure() for _ in range(count)]


@cache
def _things() -> dict[str, dict[str, object]]:
    path = Path(__file__).parent / "texts" / "answers" / "things.yaml"
    found: dict[str, dict[str, object]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


class Things:
    """What things there are, and what is drawn of them, from one generator."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311  draws, no secrets
        self.faker = Faker("en_GB")
        self.faker.seed_instance(seed)
        self.fill: dict[str, list[str]] = _things()["fill"]  # type: ignore[assignment]
        self.kinds: dict[str, dict[str, list[object]]] = _things()["kinds"]  # type: ignore[assignment]

    def pronouns(self) -> dict[str, str]:
        """Those of somebody, by the slots that they fill."""
        he = self.chance.choice(["He", "She"])
        his = "His" if he == "He" else "Her"
        return {"He": he, "he": he.lower(), "His": his, "his": his.lower()}

    def filled(self, text: str, known: dict[str, str]) -> str:
        """The text with its slots filled; what is not known is drawn."""

        def value(match: re.Match[str]) -> str:
            if match[1]:
                return str(self.chance.randint(int(match[1]), int(match[2])))
            return known[match[3]] if match[3] in known else self._drawn(match[3])

        return SLOT.sub(value, text)

    def _drawn(self, slot: str) -> str:
        chance = self.chance
        match slot:
            case "person":
                return f"{self.faker.first_name()} {self.faker.last_name()}"
            case "surname":
                return self.faker.last_name()
            case "place":
                return self.faker.city() if chance.random() < 0.5 else self._coined()
            case "coined":
                return self._coined()
            case "lower":
                return self._coined().lower()
            case "key":
                return chance.choice(["workers", "pool.size", "max_workers", "threads", "WORKER_COUNT"])
            case "year":
                return str(chance.randint(1480, 2024))
            case "licence":
                return chance.choice(LICENCES)
            case "times":
                return chance.choice(TIMES)
            case "a_job":
                return chance.choice(JOBS)
            case "cause_cap":
                cause = chance.choice(self.fill["cause"])
                return cause[0].upper() + cause[1:]
            case _:
                return str(chance.choice(self.fill[slot]))

    def _coined(self) -> str:
        first, second, third = (self.chance.choice(part) for part in (COINED, VOWELS, ENDINGS))
        return (first + second + third if self.chance.random() < 0.7 else first + third).capitalize()


class _Draw(Things):
    """Questions about them."""

    def case(self) -> Case:
        """Passages about one to four things, mostly of a kind, and a question about one fact of one of them."""
        chance = self.chance
        kind = chance.choice(list(self.kinds))
        total = chance.choice([1, 1, 2, 2, 3, 3, 4])
        answerable = chance.random() < 0.6
        asked_at = chance.randrange(len(self.kinds[kind]["facts"]))
        pieces, answer, question, place = [], "", "", chance.randrange(total)
        for at in range(total):
            mine = at == place
            its = kind if mine or chance.random() < 0.6 else chance.choice(list(self.kinds))
            name = self.filled(str(chance.choice(self.kinds[its]["names"])), {})
            if mine and not answerable and chance.random() < 0.3:
                # Somebody else of the kind has the fact; the one that is asked for is not spoken of.
                other = self.filled(str(chance.choice(self.kinds[kind]["names"])), {})
                _, asked = self._facts(kind, other, [asked_at], asked_at)
                question = chance.choice(asked.asked) if asked else ""
                piece, _ = self._piece(its, name, keep=asked_at)
            elif mine:
                piece, found = self._piece(its, name, keep=asked_at if answerable else None, without=asked_at)
                if found:
                    answer, question = found.said, chance.choice(found.asked)
                else:
                    _, asked = self._facts(kind, name, [asked_at], asked_at)
                    question = chance.choice(asked.asked) if asked else ""
            else:
                piece, _ = self._piece(its, name, keep=asked_at if its == kind and chance.random() < 0.7 else None)
            pieces.append(piece)
        return Case(self._typed(question), tuple(pieces), answer, place, SOURCE, LICENCE)

    def procedure(self) -> Case:
        """Passages each of which says how something is done, or what a word means."""
        chance = self.chance
        words = chance.random() < 0.25
        lines = authored("answers", "terms" if words else "tasks")
        drawn = chance.sample(lines, chance.choice([2, 3, 3, 4, 5]))
        asked, *others = drawn
        answerable = chance.random() < 0.66
        first, _ = asked.split("|")
        question = chance.choice(ASK_WHAT if words else ASK_HOW).format(first)
        if words:
            question = question.replace("word for a ", "word ").replace("word for an ", "word ")
        shown = [asked, *others[: chance.choice([1, 2, 3])]] if answerable else others
        chance.shuffle(shown)
        pieces, place, answer = [], 0, ""
        for at, line in enumerate(shown):
            one, two = line.split("|")
            said = f"{one[0].upper()}{one[1:]} is {two}." if words else self._how(one, two)
            texts = [said]
            if chance.random() < 0.5:
                texts.append(self._aside())
            if chance.random() < 0.3:
                texts.insert(0, self._aside())
            heading = ""
            if chance.random() < 0.4:
                heading = f"What is {one}?" if words else f"How do I {one}?"
                if chance.random() < 0.4:
                    heading = one[0].upper() + one[1:]
            pieces.append(Piece(" ".join(texts), heading))
            if answerable and line == asked:
                place, answer = at, said.split(". That is")[0] + ("." if ". That is" in said else "")
        return Case(self._typed(question), tuple(pieces), answer, place, "authored-procedures", LICENCE)

    def _how(self, task: str, how: str) -> str:
        return self.chance.choice(SAY_HOW).format(task=task, how=how, How=how[0].upper() + how[1:])

    def _aside(self) -> str:
        return self.filled(
            self.chance.choice(
                [
                    "This takes about {2-40} minutes.",
                    "Ask {person} if it does not work.",
                    "The page was last changed in {month} {year}.",
                    "It has been like that since {year}.",
                    "Most people need it once a {weekday}.",
                    "Nothing is lost by that.",
                    "More is said in chapter {2-30}.",
                    "You need to be signed in.",
                ]
            ),
            {},
        )

    def _piece(
        self, kind: str, name: str, keep: int | None = None, without: int | None = None
    ) -> tuple[Piece, _Fact | None]:
        """A passage about a thing with these facts in it, or not in it; and the fact that was to be kept."""
        chance = self.chance
        count = len(self.kinds[kind]["facts"])
        numbers = chance.sample(range(count), chance.choice([2, 3, 3, 4, 5]))
        numbers = [n for n in numbers if n not in (keep, without)][:4]
        if keep is not None and keep < count:
            numbers.insert(chance.randrange(len(numbers) + 1), keep)
        said, kept = self._facts(kind, name, numbers, keep)
        title = name[0].upper() + name[1:]
        if chance.random() < 0.2:
            return Piece("\n".join(f"- {line}" for line in said), title), kept
        opening = "" if any(name in line or title in line for line in said[:1]) else f"{title}: "
        heading = title if opening or chance.random() < 0.3 else ""
        return Piece(" ".join(said), heading), kept

    def _facts(self, kind: str, name: str, numbers: list[int], keep: int | None) -> tuple[list[str], _Fact | None]:
        """The sentences that say these facts; and of one of them how it is asked for too."""
        chance, kept, said = self.chance, None, []
        call = [str(word) for word in self.kinds[kind]["call"]]
        pronouns = self.pronouns()
        for at, number in enumerate(numbers):
            fact: dict[str, list[str]] = self.kinds[kind]["facts"][number]  # type: ignore[assignment]
            subject = name if at == 0 or chance.random() < 0.3 else chance.choice(call)
            subject = SLOT.sub(lambda m: pronouns.get(m[3], m[0]), subject)
            known = {**pronouns, "E": subject[0].upper() + subject[1:], "e": name, "E_low": subject}
            if subject in ("It", "He", "She", *call):
                known["E_low"] = subject[0].lower() + subject[1:]
            sentence = self.filled(chance.choice(fact["say"]), known)
            said.append(sentence[0].upper() + sentence[1:])
            if number == keep:
                bare = ARTICLE.sub("", name) if "the {e}" in fact["ask"][0] else name
                kept = _Fact(said[-1], tuple(self.filled(ask, {"e": bare}) for ask in fact["ask"]))
        return said, kept

    def _typed(self, question: str) -> str:
        """As people type: now and then without capitals, or without the mark at the end."""
        roll = self.chance.random()
        if roll < 0.06:
            return question.lower()
        return question.rstrip("?") if roll < 0.1 else question
