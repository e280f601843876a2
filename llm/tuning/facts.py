"""Passages about things that do not exist, and claims about them in other words: true ones and false ones. CC0.

Each fact can be said in several ways (`texts/answers/things.yaml`). A passage says it in one of them, and a claim in
another, with the same values or with one of them exchanged; or a sentence of the passage answers a question, or
another one than was asked. This file knows nothing of models.
"""

from collections.abc import Iterator
from typing import NamedTuple

from trackbed.llm.tuning.invented import LICENCE, SLOT, SOURCE, Things

KNOWN = ("E", "e", "E_low", "He", "he", "His", "his")  # slots that the thing itself fills
LONGER = 1.3  # a claim says no more than the passage: it is not so much longer

Slot = tuple[str, int]  # what a slot is called, and which one of that name it is in a sentence


class Claim(NamedTuple):
    """What somebody claims of a text, in answer to a question if there is one."""

    context: str
    question: str
    text: str
    supported: bool
    source: str
    licence: str
    weight: float = 1.0


class _Said(NamedTuple):
    says: tuple[str, ...]
    asks: tuple[str, ...]
    form: str  # in which of the ways the passage says it
    values: dict[Slot, str]
    sentence: str


def fact_claims(count: int, seed: int = 0) -> list[Claim]:
    """Those about so many things; the same for the same seed."""
    draw = _Draw(seed)
    return [claim for _ in range(count) for claim in draw.claims()]


class _Draw(Things):
    """What is drawn, and from which generator."""

    def claims(self) -> Iterator[Claim]:
        """About one thing: some for each fact of its passage, and two of a fact that the passage does not have."""
        chance = self.chance
        kind = chance.choice(list(self.kinds))
        facts: list[dict[str, list[str]]] = self.kinds[kind]["facts"]  # type: ignore[assignment]
        name = self.filled(str(chance.choice(self.kinds[kind]["names"])), {})
        numbers = chance.sample(range(len(facts)), min(len(facts), chance.choice([3, 4, 4, 5])))
        pronouns = self.pronouns()
        told = self._told(kind, name, pronouns, [facts[number] for number in numbers])
        sentences = [one.sentence for one in told]
        text = " ".join(sentences) if chance.random() < 0.8 else " ".join(f"- {one}" for one in sentences)
        text = text if name in sentences[0] else f"{_capital(name)}: {text}"
        known = {**pronouns, "E": _capital(name), "e": name, "E_low": name}

        def claim(said: str, question: str, *, supported: bool) -> Claim:
            return Claim(text, question, said, supported, SOURCE, LICENCE)

        for one in told:
            if (said := self._otherwise(one, known, supported := chance.random() < 0.55)) is not None:
                yield claim(said, "", supported=supported)
            question, roll = self.filled(chance.choice(one.asks), {"e": name}), chance.random()
            others = [sentence for sentence in sentences if sentence != one.sentence]
            if roll < 0.3:
                yield claim(one.sentence, question, supported=True)
            elif roll < 0.6 and others:
                yield claim(chance.choice(others), question, supported=False)
        if missing := [fact for number, fact in enumerate(facts) if number not in numbers]:
            fact = chance.choice(missing)
            question = self.filled(chance.choice(fact["ask"]), {"e": name})
            yield claim(chance.choice(sentences), question, supported=False)
            yield claim(_capital(self._with(chance.choice(fact["say"]), known, {})), "", supported=False)

    def _told(self, kind: str, name: str, pronouns: dict[str, str], facts: list[dict[str, list[str]]]) -> list[_Said]:
        chance, found = self.chance, list[_Said]()
        for at, fact in enumerate(facts):
            form = max(chance.sample(fact["say"], min(2, len(fact["say"]))), key=lambda say: len(_slots(say)))
            subject = name if at == 0 or chance.random() < 0.3 else str(chance.choice(self.kinds[kind]["call"]))
            subject = SLOT.sub(lambda match: pronouns.get(match[3], match[0]), subject)
            low = subject if subject == name else subject[0].lower() + subject[1:]
            values = dict[Slot, str]()
            known = {**pronouns, "E": _capital(subject), "e": name, "E_low": low}
            said = _capital(self._with(form, known, values))
            found.append(_Said(tuple(fact["say"]), tuple(fact["ask"]), form, values, said))
        return found

    def _otherwise(self, one: _Said, known: dict[str, str], supported: bool) -> str | None:
        """A fact in another way, if there is one that says no more; with a value exchanged if it is not supported."""
        slots = {say: _slots(say) for say in one.says}
        whole = slots[one.form]
        ways = [say for say in one.says if slots[say] and slots[say] <= whole and len(say) < len(one.form) * LONGER]
        if not ways:
            return None
        way = self.chance.choice([say for say in ways if say != one.form] or ways)
        values = dict(one.values)
        if not supported:
            slot = self.chance.choice(sorted(slots[way]))
            del values[slot]
            self._with(way, known, values)
            if values[slot] == one.values[slot]:
                return None
        return _capital(self._with(way, known, values))

    def _with(self, text: str, known: dict[str, str], values: dict[Slot, str]) -> str:
        """The text with its slots filled; what is not known is drawn, and kept among the values."""
        counts: dict[str, int] = {}

        def value(name: str) -> str:
            slot = name, counts.get(name, 0)
            counts[name] = slot[1] + 1
            if slot not in values:
                values[slot] = self.filled(f"{{{name}}}", {})
            return values[slot]

        return SLOT.sub(lambda match: known.get(match[3]) or value(match[0][1:-1]), text)


def _slots(text: str) -> frozenset[Slot]:
    counts: dict[str, int] = {}
    found = set()
    for match in SLOT.finditer(text):
        if match[3] not in KNOWN:
            name = match[0][1:-1]
            found.add((name, counts.get(name, 0)))
            counts[name] = counts.get(name, 0) + 1
    return frozenset(found)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
