"""Values that a policy writes and a turn fills in: plain, words with places, or an expression that keeps its type."""

import re

from trackbed.rails.errors import TemplateFailed
from trackbed.rails.problems import Problems
from trackbed.rails.source import Node
from trackbed.rails.template import Condition, Names, Template, compile_condition, compile_template
from trackbed.rails.types import Value

EXPRESSION = re.compile(r"\s*\{\{(?![-+])([^{}]*)(?<![-+])\}\}\s*")
MARKUP = ("{{", "{%", "{#")

Filled = Value | Template | Condition


def to_fill(node: Node, names: Names, problems: Problems) -> Filled:
    """What stands for the value of a node, a scalar; a text without places stays one."""
    value = node.value
    if isinstance(value, str) and any(mark in value for mark in MARKUP):
        with problems.caught():
            if found := EXPRESSION.fullmatch(value):
                return compile_condition(found[1].strip(), node.text, names)
            return compile_template(value, node.text, names)
        return ""
    assert isinstance(value, str | int | float | bool), "as the keys say"
    return value


def fill(written: Filled, **values: object) -> Value:
    """The value, filled in. Raises TemplateFailed where one is missing, or is no text, number or boolean."""
    if isinstance(written, Template):
        return written.render(**values)
    found = written.value(**values) if isinstance(written, Condition) else written
    if not isinstance(found, str | int | float | bool):
        raise TemplateFailed(f"an expression gives {type(found).__name__}, not a text, a number or a boolean")
    return found
