"""Pseudonyms: what a model sees in place of personal data, and how the data is put back into its answer.

A value is called by its kind and a number, `<EMAIL_ADDRESS_1>`, by the same name wherever it stands in a turn, and in
the turns after. The names and their values travel with the turn. This file knows texts and names. What a value is, a
rail has found.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from trackbed.llm.types import Message
from trackbed.rails.types import Finding, Turn

# In linear time: a run holds no second "<", and only its last "_" has a digit behind it.
PSEUDONYM = re.compile("(<[A-Z][A-Z_]*_[1-9][0-9]*>)")
MOST = 500  # values of a turn that are told apart; hiding takes time with their number


def named(turn: Turn, found: Iterable[tuple[str, Sequence[Finding]]]) -> tuple[Turn, list[str]]:
    """The turn that also knows by names what was found in texts of its own, and these texts with the names.

    A number that already stands in the turn's texts is given to no value. What is found beyond the first 500 values is
    masked by its kind alone, and is not put back.

    >>> turn = Turn("mail a@b.org")
    >>> named(turn, [(turn.question, [Finding("EMAIL_ADDRESS", 5, 12)])])[1]
    ['mail <EMAIL_ADDRESS_1>']
    """
    values = dict(turn.pseudonyms)
    names = {value: name for name, value in values.items()}
    taken = values.keys() | {name for text in _texts(turn) for name in PSEUDONYM.findall(text)}
    numbers: dict[str, int] = {}
    texts = []
    for text, findings in found:
        pieces, reached = list[str](), 0
        for finding in sorted(findings, key=lambda f: (f.start, -f.end)):
            if finding.start >= reached:
                value = text[finding.start : finding.end]
                if value not in names and len(values) < MOST:
                    number = numbers.get(finding.label, 1)
                    while (name := f"<{finding.label}_{number}>") in taken:
                        number += 1
                    numbers[finding.label] = number + 1
                    values[name], names[value] = value, name
                pieces += [text[reached : finding.start], names.get(value, f"<{finding.label}>")]
            reached = max(reached, finding.end)
        texts.append("".join(pieces) + text[reached:])
    return turn.having(pseudonyms=MappingProxyType(values)), texts


def hidden(turn: Turn) -> Turn:
    """The turn with the names of the known values wherever these stand in the question, the history or the passages."""
    if not turn.pseudonyms:
        return turn
    values = turn.pseudonyms
    history = (Message(m.role, hide(m.content, values)) for m in turn.history)
    passages = (p if (text := hide(p.text, values)) == p.text else replace(p, text=text) for p in turn.passages)
    return turn.having(question=hide(turn.question, values), history=tuple(history), passages=tuple(passages))


def hide(text: str, values: Mapping[str, str]) -> str:
    """The text with names in place of the values, the longest first; names that stand there stay."""
    present = sorted(((v, name) for name, v in values.items() if v in text), key=lambda pair: -len(pair[0]))
    if not present:
        return text
    pieces = PSEUDONYM.split(text)  # every second one is a name
    for value, name in present:
        split = list[str]()
        for i, piece in enumerate(pieces):
            if i % 2 or value not in piece:
                split.append(piece)
                continue
            first, *others = piece.split(value)
            split.append(first)
            for other in others:
                split += [name, other]
        pieces = split
    return "".join(pieces)


def restored(text: str, values: Mapping[str, str]) -> str:
    """The text with the values in place of their names; a name that none has stays as it is.

    >>> restored("to <EMAIL_ADDRESS_1>", {"<EMAIL_ADDRESS_1>": "a@b.org"})
    'to a@b.org'
    """
    if not values:
        return text
    return "".join(values.get(piece, piece) if i % 2 else piece for i, piece in enumerate(PSEUDONYM.split(text)))


def complete(text: str, values: Mapping[str, str]) -> str:
    """The text without the beginning of a name that it may end in."""
    begun = text.rfind("<")
    if begun < 0 or not any(name.startswith(text[begun:]) and name != text[begun:] for name in values):
        return text
    return text[:begun]


def _texts(turn: Turn) -> tuple[str, ...]:
    """Where names may stand that are nobody's, or that an earlier turn gave."""
    return (
        turn.question,
        *(message.content for message in turn.history),
        *(passage.text for passage in turn.passages),
        *(value for value in turn.vars.values() if isinstance(value, str)),
    )
