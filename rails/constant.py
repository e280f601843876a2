"""Is a condition the same whatever its variables are?

It is tried with the values that it speaks of, with some between and beside them, and with all combinations of these.
That decides comparisons of a variable with constants, and what `and`, `or` and `not` make of them; else it is open.
"""

from collections.abc import Iterator, Mapping
from itertools import islice, pairwise, product
from typing import Any, Literal

from jinja2 import nodes
from jinja2.parser import Parser

from trackbed.rails.policy import Variable
from trackbed.rails.template import ENVIRONMENT, Condition

MOST = 500  # combinations
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
    if not all(_simple(part, vars) for part in parts if isinstance(part, nodes.Compare)):
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


def _simple(compare: nodes.Compare, vars: Mapping[str, Variable]) -> bool:
    """Whether a comparison is of one variable with constants, and such that a few values tell all that there are."""
    operands = [compare.expr, *(operand.expr for operand in compare.ops)]
    read = [vars[operand.attr] for operand in operands if isinstance(operand, nodes.Getattr)]
    listed = [operand for operand in operands[1:] if isinstance(operand, nodes.List | nodes.Tuple)]
    constant = [operand for operand in operands if isinstance(operand, nodes.Const)]
    for operator in (operand.op for operand in compare.ops):
        if operator in ("in", "notin"):
            if len(operands) > 2 or not listed or not all(isinstance(item, nodes.Const) for item in listed[0].items):
                return False
        elif operator not in ("eq", "ne") and any(variable.type == "string" for variable in read):
            return False
    return len(read) <= 1 and len(read) + len(listed) + len(constant) == len(operands)


def _values(variable: Variable, constants: list[Any]) -> Iterator[Any]:
    """Values of a variable, one for each part that these constants divide them into, and more."""
    if variable.type == "boolean":
        yield from (True, False)
    elif variable.type == "string":
        texts = [constant for constant in constants if isinstance(constant, str)]
        yield from (text for text in texts if not variable.mistake(text))
        # Whether these fit the variable's pattern is not asked: others like them may.
        yield from {"", "".join(texts) + "~"} - set(texts)
    else:
        numbers = sorted({0, 1, *(c for c in constants if isinstance(c, int | float) and not isinstance(c, bool))})
        yield from (number for n in numbers for number in (n - 1, n, n + 1) if not variable.mistake(number))
        if variable.type == "number":
            yield from ((a + b) / 2 for a, b in pairwise(numbers))
