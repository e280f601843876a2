"""Is a condition the same whatever its variables are?

It is tried with the values that it speaks of, with some beside them, and with all combinations of these. That decides
comparisons of variables with each other and with constants; anything else is left open.
"""

from collections.abc import Iterator, Mapping
from itertools import islice, pairwise, product
from typing import Any, Literal

from jinja2 import nodes
from jinja2.parser import Parser

from trackbed.rails.policy import Variable
from trackbed.rails.template import ENVIRONMENT, Condition

MOST = 5_000  # combinations
COMPARES = (
    nodes.Name,
    nodes.Const,
    nodes.Getattr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.List,
    nodes.Tuple,
)


def constant(condition: Condition, vars: Mapping[str, Variable]) -> Literal["always", "never"] | None:
    """Whether the condition holds always or never; None where it depends, or cannot be told."""
    tree = Parser(ENVIRONMENT, condition.source, state="variable").parse_expression()
    parts = [tree, *tree.find_all(nodes.Node)]
    read = {part.attr for part in parts if isinstance(part, nodes.Getattr)}
    if any(not isinstance(part, COMPARES) for part in parts) or not read <= set(vars):
        return None
    if any(isinstance(part, nodes.Name) and part.name != "vars" for part in parts):
        return None
    constants = [part.value for part in parts if isinstance(part, nodes.Const)]
    values = [list(dict.fromkeys(_values(vars[name], constants))) for name in sorted(read)]
    combinations = list(islice(product(*values), MOST + 1))
    if len(combinations) > MOST:
        return None
    try:
        found = {condition.holds(vars=dict(zip(sorted(read), given, strict=True))) for given in combinations}
    except Exception:  # noqa: BLE001 - a condition over values of other types than it expects is not decided here
        return None
    return None if len(found) != 1 else "always" if found.pop() else "never"


def _values(variable: Variable, constants: list[Any]) -> Iterator[Any]:
    """Values of a variable that a condition with these constants may tell apart."""
    if variable.type == "boolean":
        yield from (True, False)
    elif variable.type == "string":
        texts = [constant for constant in constants if isinstance(constant, str)]
        yield from (text for text in texts if not variable.mistake(text))
        # Whether these fit the variable's pattern is not asked: others like them may.
        others = ("", "\x00", "".join(texts), *(f"{text}~" for text in texts))
        yield from (text for text in others if text not in texts)
    else:
        numbers = sorted({0, 1, *(c for c in constants if isinstance(c, int | float) and not isinstance(c, bool))})
        yield from (number for n in numbers for number in (n - 1, n, n + 1) if not variable.mistake(number))
        if variable.type == "number":
            yield from ((a + b) / 2 for a, b in pairwise(numbers))
