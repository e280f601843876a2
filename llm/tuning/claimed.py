"""Texts with what is claimed of them, that a judge of claims is taught with and tried on.

Rows are of grounding.jsonl: an answer, the text that it was written from, and whether somebody found it grounded. To
those that train, claims are added that are made here: sentences of the same texts in other words, made false, or of
another text (`falsify.py`), questions of XQuAD with right and wrong answers, as they are and as statements
(`statements.py`), and facts of things that do not exist (`facts.py`). What is made of a source's texts counts as that
source's. This file knows nothing of models.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from trackbed.llm.tuning.facts import Claim, fact_claims
from trackbed.llm.tuning.falsify import denied, falsified, names_of, opposite, other_number, reworded
from trackbed.llm.tuning.questions import HELD_OUT, Asked, read_asked, sentences_of, words
from trackbed.llm.tuning.rows import is_licensed
from trackbed.llm.tuning.statements import statement

MERGED = ("fool-me-twice", "xquad")  # sources of these names are one
SPEAKER = re.compile(r"^\s*[AB]:\s*")
ASKED = 200  # characters of what was asked, from its end
MADE, MADE_WEIGHT = 2, 0.6  # claims of each text that are made of its sentences; and what those made here weigh
PART_WEIGHT = 0.5  # of one sentence of an answer that is grounded
HEAVIEST = 2.5  # what a label weighs that is rare in its source
THINGS = 250
ASKING = ("xquad", "halueval-qa-200", "authored-things")  # sources where the question belongs to the claim
UNASKED = 0.4  # the share of other claims that are taught without it
TOGETHER = 12  # claims about one text that are read at once, at most
TRIES = 8


class Pack(NamedTuple):
    """A text and claims about it."""

    context: str
    claims: tuple[Claim, ...]


class Labelled(NamedTuple):
    """A claim, and whether what it teaches may be passed on."""

    claim: Claim
    licensed: bool


def read_claims(path: Path) -> list[Labelled]:
    """The rows of a file. Raises ValueError with the line."""
    found = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                source, licence = str(row["source"]), str(row.get("licence", ""))
                source = next((name for name in MERGED if source.startswith(name)), source)
                last = str(row.get("question") or "").strip().removesuffix("<br>").rsplit("<br>", 1)[-1]
                question = SPEAKER.sub("", last).strip()[-ASKED:]
                context, text = (str(row[key]).strip() for key in ("context", "answer"))
                claim = Claim(context, question, text, row["label"] == "grounded", source, licence)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path}:{number}: a row needs context, answer, label and source: {error!r}"
                ) from error
            found.append(Labelled(claim, is_licensed(licence)))
    return found


def packs(data: Path, held_out: Sequence[str] = (), seed: int = 0) -> list[Pack]:
    """What trains, of a folder with grounding.jsonl and qa_xquad_en.jsonl: nothing of sources that are held out.

    Paragraphs of XQuAD on which answers from passages are tried train nothing either.
    """
    chance = random.Random(seed)  # noqa: S311  draws, no secrets
    asked = read_asked(data / "qa_xquad_en.jsonl")
    tried = {row.context.strip() for row in asked if row.fold >= HELD_OUT}
    rows = [row.claim for row in read_claims(data / "grounding.jsonl") if row.licensed]
    rows = [claim for claim in rows if claim.source not in held_out and claim.context not in tried]
    made = [*contrasts(rows, seed), *fact_claims(THINGS, seed)]
    if "xquad" not in held_out:
        made += question_claims([row for row in asked if row.fold < HELD_OUT], seed)
    made = [claim._replace(weight=MADE_WEIGHT) for claim in made]
    by_text: dict[tuple[str, str], list[Claim]] = {}
    for claim in [*_weighed(rows), *_parts(rows, chance), *made]:
        keeps = claim.source in ASKING or chance.random() >= UNASKED
        by_text.setdefault((claim.source, claim.context), []).append(claim if keeps else claim._replace(question=""))
    found = []
    for (_, context), claims in sorted(by_text.items()):
        chance.shuffle(claims)
        groups = (claims[at : at + TOGETHER] for at in range(0, len(claims), TOGETHER))
        found += [Pack(context, tuple(group)) for group in groups]
    chance.shuffle(found)
    return found


def contrasts(rows: Iterable[Claim], seed: int = 0) -> list[Claim]:
    """For each text two claims: two in five are true, two are false, and one is of another text of its source."""
    chance, found = random.Random(seed), list[Claim]()  # noqa: S311  draws, no secrets
    texts = sorted({(row.source, row.licence, row.context) for row in rows})
    said = {text: [one for one in sentences_of(text) if 5 < len(one.split()) < 40] for _, _, text in texts}
    of_source: dict[str, list[str]] = {}
    for source, _, text in texts:
        of_source.setdefault(source, []).append(text)
    names = {
        source: sorted({match.group() for text in each for match in names_of(text)})
        for source, each in of_source.items()
    }
    for source, licence, text in texts:
        own = sorted({match.group() for match in names_of(text)})
        for _ in range(MADE if said[text] else 0):
            sentence, roll = chance.choice(said[text]), chance.random()
            made: str | None
            if roll < 0.4:
                made = reworded(sentence, chance)
            elif roll < 0.8:
                of_its = own if chance.random() < 0.5 and len(own) > 2 else names[source]
                some = chance.sample(of_its, min(20, len(of_its)))
                told = reworded(sentence, chance) if chance.random() < 0.7 else sentence
                made = next(filter(None, (falsified(told, chance, some) for _ in range(TRIES))), None)
            else:
                others = chance.sample(of_source[source], min(30, len(of_source[source])))
                made = _elsewhere(text, sentence, [one for other in others for one in said[other]], chance)
            if made and len(made.split()) > 3:
                found.append(Claim(text, "", made, roll < 0.4, source, licence))
    return found


def question_claims(rows: Sequence[Asked], seed: int = 0) -> list[Claim]:
    """For each question its answer, or that of another question on the same text; and the same as a statement."""
    chance, found = random.Random(seed), list[Claim]()  # noqa: S311  draws, no secrets
    by_text: dict[str, list[Asked]] = {}
    for row in rows:
        by_text.setdefault(row.context.strip(), []).append(row)

    def claim(row: Asked, question: str, text: str, *, supported: bool) -> None:
        found.append(Claim(row.context.strip(), question, text, supported, "xquad", row.licence))

    for each in by_text.values():
        for row in each:
            answers = [other.answer for other in each if not _alike(other.answer, row.answer)]
            others = [answer for answer in answers if _kind(answer) == _kind(row.answer)] or answers
            wrong = chance.choice(others) if others else None
            if chance.random() < 0.5 or wrong is None:
                claim(row, row.question, row.answer, supported=True)
            else:
                claim(row, row.question, wrong, supported=False)
            stated = statement(row.question, row.answer)
            if stated and chance.random() < 0.5:
                claim(row, "", stated, supported=True)
            elif stated:
                told = wrong if chance.random() < 0.7 else other_number(row.answer, chance)
                false = statement(row.question, told) if told else opposite(stated, chance) or denied(stated, chance)
                if false and false != stated:
                    claim(row, "", false, supported=False)
    return found


def _elsewhere(text: str, sentence: str, others: Sequence[str], chance: random.Random) -> str | None:
    """A sentence of another text that has most of this one's words, or one of this text that ends as that one does."""
    own = words(text)
    there = [other for other in others if other not in text]
    if not there:
        return None
    other = max(there, key=lambda one: len(own & words(one)) / (3 + len(one.split())))
    end = other.split(", ")[-1].rstrip(".")
    if chance.random() < 0.5 and 3 < len(end.split()) < 14:
        return f"{reworded(sentence, chance).rstrip('.')}, {end}."
    return reworded(other, chance)


def _weighed(rows: Sequence[Claim]) -> list[Claim]:
    """Both labels of a source weigh about the same."""
    sizes = Counter((row.source, row.supported) for row in rows)
    both = Counter(row.source for row in rows)
    return [row._replace(weight=min(HEAVIEST, both[row.source] / 2 / sizes[row.source, row.supported])) for row in rows]


def _parts(rows: Iterable[Claim], chance: random.Random) -> list[Claim]:
    """Of each grounded answer of several sentences one of them; of remarks in a talk, not all claim something."""
    found = []
    for row in rows:
        said = sentences_of(row.text)
        if row.supported and len(said) > 1 and "dialog" not in row.source:
            found.append(row._replace(text=chance.choice(said), weight=PART_WEIGHT))
    return found


def _alike(one: str, other: str) -> bool:
    a, b = one.casefold(), other.casefold()
    return a in b or b in a


def _kind(answer: str) -> str:
    if any(letter.isdigit() for letter in answer):
        return "number"
    return "name" if answer[:1].isupper() else "other"
