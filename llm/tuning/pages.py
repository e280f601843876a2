"""Questions that the headings of Markdown pages ask, and the paragraphs under them: the first sentence answers.

This file knows nothing of models.
"""

import random
import re
from collections.abc import Sequence
from pathlib import Path

from trackbed.llm.tuning.invented import Case, Piece
from trackbed.llm.tuning.questions import Asked, Paragraphs, around, sentences_of

HEADING = re.compile(r"^#{1,6} +(.+?)(?: *\{[^}]*\})?$")
SHORT = 9  # words of a sentence that says too little by itself
OTHER_WORDS = (
    (re.compile(r"^How do I (.+)\?$"), ("How can I {}?", "how to {}", "What do I do to {}?", "I want to {}. How?")),
    (re.compile(r"^What is (.+)\?$"), ("Explain {}.", "What does {} mean?", "what's {}")),
    (re.compile(r"^What happens when (.+)\?$"), ("What if {}?", "What is done when {}?")),
    (re.compile(r"^How does (.+)\?$"), ("In what way does {}?", "Tell me how {}.")),
)


def page_cases(folder: Path, source: str, licence: str, seed: int = 0) -> list[Case]:
    """Of each heading that asks something: as it is and in other words, beside other sections, or without its own."""
    chance = random.Random(seed)  # noqa: S311
    sections = [section for path in sorted(folder.rglob("*.md")) for section in _sections(path)]
    asking = [piece for piece in sections if piece.heading.endswith("?")]
    others = Paragraphs([Asked("", piece.text, "", piece.heading, 0, source, licence) for piece in sections])
    cases = []
    for piece in asking:
        near = [p for p in others.like(piece.heading, "", None, piece.text) if p.heading != piece.heading]
        answer = _first(piece.text)
        for question in _asked(piece.heading, chance):
            beside = chance.sample(near[:8], min(len(near), chance.choice([1, 2, 2, 3])))
            pieces = [Piece(around(p.text, question, 60), p.heading) for p in beside]
            if not pieces or chance.random() < 0.68:
                place = chance.randrange(len(pieces) + 1)
                pieces.insert(place, piece)
                cases.append(Case(question, tuple(pieces), answer, place, source, licence))
            else:
                cases.append(Case(question, tuple(pieces), "", -1, source, licence))
    return cases


def _asked(heading: str, chance: random.Random) -> list[str]:
    """The heading, and the same in other words."""
    found = [heading]
    for pattern, others in OTHER_WORDS:
        if match := pattern.match(heading):
            found += [other.format(match[1]) for other in chance.sample(others, 2)]
    return found


def _first(text: str) -> str:
    """Its first sentence; where that is short, the second one too."""
    said = sentences_of(text)
    return f"{said[0]} {said[1]}" if len(said) > 1 and len(said[0].split()) < SHORT else said[0]


def _sections(path: Path) -> list[Piece]:
    """The first paragraph of prose under each heading."""
    found, heading, lines, fenced = list[Piece](), "", list[str](), False
    for line in [*path.read_text(encoding="utf-8").splitlines(), "# "]:
        if line.startswith(("```", "~~~")):
            fenced = not fenced
        if not fenced and (match := HEADING.match(line) or re.match(r"^# ()$", line)):
            if text := _prose(lines):
                found.append(Piece(text, heading))
            heading, lines = match[1], []
        elif not fenced:
            lines.append(line)
    return found


def _prose(lines: Sequence[str]) -> str:
    """The first paragraph that is made of sentences; empty where there is none."""
    for paragraph in "\n".join(lines).strip().split("\n\n"):
        text = " ".join(paragraph.split())
        if text and text[0].isalpha() and text.endswith((".", "!")) and len(text.split()) >= 6:
            return text
    return ""
