"""Templates and conditions of a policy: Jinja2's sandbox, cut down to what cannot run away.

A template chooses words and walks a list. It has no calls, no assignments and no loop inside a loop, so its
size and its time follow from what it is given. Every name in it is checked when it is compiled. This file
knows nothing of policies; who compiles a template says which names there are.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache, reduce
from types import NoneType, SimpleNamespace
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.visitor import NodeTransformer

from trackbed.rails.errors import Place, PolicyError, TemplateFailed

MAX_SOURCE = 32_768  # characters of a template
MAX_DEPTH = 40  # of expressions and blocks in each other
MAX_KNOWN = 100  # names that a message lists, and characters of a name that it looks for among them
MAX_JOINED = 65_536  # characters that `join` makes at most
MAX_SUM = 100  # parts of an expression that puts texts together, each of which may be all that a user wrote
MAX_LOOPED = 400  # parts of all loops of a template together: what runs once for each message or passage
KEPT = 64  # compiled templates
MAX_RENDERED = 1_000_000  # characters of a template, filled in


@dataclass(frozen=True, slots=True)
class Shape:
    """What a template may read of a name: its attributes; of a list, the attributes of its items."""

    attributes: frozenset[str] = frozenset()
    items: frozenset[str] = frozenset()


Names = Mapping[str, Shape]


@dataclass(frozen=True, slots=True)
class Template:
    """Words with places to fill in."""

    source: str
    place: Place
    compiled: jinja2.Template | None = field(repr=False, compare=False)  # None: the words are what they are

    def render(self, **values: object) -> str:
        """The words, filled in. Raises TemplateFailed where a value is missing, or where they are too many."""
        if self.compiled is None:
            return self.source
        pieces, length = [], 0
        with _failing(self.place):
            for piece in self.compiled.generate(_readable(values)):
                pieces.append(piece)
                length += len(piece)
                if length > MAX_RENDERED:
                    raise jinja2.TemplateRuntimeError(f"it makes more than {MAX_RENDERED} characters")
        return "".join(pieces)


@dataclass(frozen=True, slots=True)
class Condition:
    """An expression that is true or not."""

    source: str
    place: Place
    compiled: jinja2.environment.TemplateExpression = field(repr=False, compare=False)
    reads: frozenset[str] = frozenset()  # the names in it

    def holds(self, **values: object) -> bool:
        """Whether it is true. Raises TemplateFailed where a value is missing."""
        with _failing(self.place):
            return bool(self.compiled(_readable(values)))

    def value(self, **values: object) -> object:
        """What it comes to. Raises TemplateFailed where a value is missing."""
        with _failing(self.place):
            found = self.compiled(_readable(values))
            if isinstance(found, jinja2.Undefined):
                raise jinja2.UndefinedError(f"{self.source!r} reads a value that is missing")
            return found


def compile_template(source: str, place: Place, names: Names) -> Template:
    """A template that reads these names; `place` is where its first line stands. Raises PolicyError."""
    _check_length(source, place)
    if "{" not in source:
        return Template(source.removesuffix("\n"), place, None)
    try:
        _check(_parsed(source), names, place)
        return Template(source, place, _compiled(source))
    except (jinja2.TemplateSyntaxError, RecursionError, ValueError) as error:
        raise _unreadable(error, place) from None


# The same words are compiled once: those that ship, and those of a policy that is read again.
@lru_cache(maxsize=KEPT)
def _parsed(source: str) -> nodes.Template:
    return ENVIRONMENT.parse(source)


@lru_cache(maxsize=KEPT)
def _compiled(source: str) -> jinja2.Template:
    return ENVIRONMENT.from_string(_parsed(source))


def compile_condition(source: str, place: Place, names: Names, *, typed: bool = False) -> Condition:
    """A condition that reads these names; a typed one fails where it compares what cannot be. Raises PolicyError."""
    _check_length(source, place)
    try:
        expression = Parser(ENVIRONMENT, source, state="variable").parse_expression()
        _check(expression, names, place)
        if typed:
            _check_whole(expression, names, place)
        reads = {expression.name} if isinstance(expression, nodes.Name) else set[str]()
        reads |= {name.name for name in expression.find_all(nodes.Name)}
        compiled = ENVIRONMENT.compile_expression(source, undefined_to_none=False)
        if typed:
            result = nodes.Assign(nodes.Name("result", "store"), _Typing().visit(expression), lineno=1)
            tree = nodes.Template([result], lineno=1)
            tree.set_environment(ENVIRONMENT)
            compiled = jinja2.environment.TemplateExpression(ENVIRONMENT.from_string(tree), undefined_to_none=False)
        return Condition(source, place, compiled, frozenset(reads))
    except (jinja2.TemplateSyntaxError, RecursionError, ValueError) as error:
        raise _unreadable(error, place) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, and all of them.

    >>> nearest("inptu", ["input", "output"])
    "; did you mean 'input'? It has: input, output"
    """
    known = list(known)[:MAX_KNOWN]
    close = get_close_matches(name[:MAX_KNOWN], known, n=1)
    return (f"; did you mean {close[0]!r}? It has: " if close else "; it has: ") + (", ".join(known) or "nothing")


def _join(values: Iterable[object], separator: str = "") -> str:
    """Jinja's `join`, of bounded size: joined joins would multiply."""
    pieces = [str(value) for value in values]
    if sum(map(len, pieces)) + len(pieces) * len(separator) > MAX_JOINED:
        raise jinja2.TemplateRuntimeError(f"join makes more than {MAX_JOINED} characters")
    return separator.join(pieces)


# What can neither loop nor multiply. Everything else that Jinja has is refused by its name.
ALLOWED = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Const,
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Slice,
    nodes.List,
    nodes.Tuple,
    nodes.If,
    nodes.For,
    nodes.CondExpr,
    nodes.Filter,
    nodes.Test,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Neg,
    nodes.Add,
    nodes.Sub,
    nodes.Concat,
)
SAFE_FILTERS = ("capitalize", "default", "first", "last", "length", "lower", "title", "trim", "truncate", "upper")
SAFE_TESTS = ("defined", "undefined", "none", "true", "false", "boolean", "integer", "number", "string", "in")
LOOP = Shape(frozenset({"index", "index0", "first", "last", "length", "revindex"}))

KINDS = {
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    NoneType: "null",
    list: "list",
    dict: "mapping",
}
TYPED = "compared by type"  # the name of a filter that nobody can write
COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
    "in": lambda value, holder: value in holder,
    "notin": lambda value, holder: value not in holder,
}


class _Typing(NodeTransformer):
    """Has each comparison made by `_compared`."""

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        """The comparison, link by link, since `a < b < c` is two of them."""
        self.generic_visit(node)
        left, links = node.expr, list[nodes.Expr]()
        for operand in node.ops:
            arguments = [nodes.Const(operand.op), operand.expr]
            links.append(nodes.Filter(left, TYPED, arguments, [], None, None, lineno=node.lineno))
            left = operand.expr
        return reduce(nodes.And, links)

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        """`x is in y` compares too."""
        self.generic_visit(node)
        if node.name != "in":
            return node
        return nodes.Filter(
            node.node, TYPED, [nodes.Const("in"), *(node.args or [])], [], None, None, lineno=node.lineno
        )


def _compared(left: object, operation: str, right: object) -> bool:
    """What a comparison comes to. Raises TypeError where the two are of different types, or one is missing."""
    kind, others = KINDS.get(type(left)), [right]
    if operation in ("in", "notin") and not isinstance(right, str):
        if not isinstance(right, list | tuple):
            raise TypeError("only a list or a text holds anything")
        others = list(right)
    if kind is None or any(KINDS.get(type(other)) != kind for other in others):
        raise TypeError("values of different types are compared")
    return COMPARED[operation](left, right)


# Nothing is computed while compiling (`optimized`), and there are no global functions.
ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, optimized=False, trim_blocks=True, lstrip_blocks=True
)
ENVIRONMENT.globals.clear()
ENVIRONMENT.filters = {name: FILTERS[name] for name in SAFE_FILTERS} | {"join": _join, TYPED: _compared}
ENVIRONMENT.tests = {name: TESTS[name] for name in SAFE_TESTS}


@contextmanager
def _failing(place: Place) -> Iterator[None]:
    """Say in our words what Jinja cannot do with the values that it is given."""
    try:
        yield
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise TemplateFailed(f"{place}: {error}") from error


def _readable(values: Mapping[str, object]) -> dict[str, object]:
    """The values with `vars` as attributes alone, so that a variable may be called `items`."""
    given = values.get("vars")
    return dict(values) | ({"vars": SimpleNamespace(**given)} if isinstance(given, Mapping) else {})


def _check_length(source: str, place: Place) -> None:
    if len(source) > MAX_SOURCE:
        raise PolicyError(f"a template of {len(source)} characters; the limit is {MAX_SOURCE}", place)


def _check(tree: nodes.Node, names: Names, place: Place) -> None:
    """Raise PolicyError where the tree holds what a template cannot, or a name that there is not."""
    stack: list[tuple[nodes.Node, Names, int]] = [(tree, names, 0)]
    looped = 0
    while stack:
        node, names, depth = stack.pop()
        here = _line(place, node.lineno)
        if depth > MAX_DEPTH:
            raise PolicyError(f"a template nests deeper than {MAX_DEPTH}", here)
        if not isinstance(node, ALLOWED):
            raise PolicyError(f"a template cannot use Jinja's {type(node).__name__.lower()!r}", here)
        match node:
            case nodes.Name(name=name, ctx="load") if name not in names:
                raise PolicyError(f"{name!r} is not a name of this template{nearest(name, names)}", here)
            case nodes.Getattr(attr=attribute) if attribute.startswith("_"):
                raise PolicyError(f"{attribute!r} is private", here)
            case nodes.Getattr(node=nodes.Name(name=name), attr=attribute):
                _check_attribute(name, attribute, names, here)
            case nodes.Getitem(node=nodes.Name(name=name), arg=nodes.Const(value=str(attribute))):
                _check_attribute(name, attribute, names, here)
            case nodes.Concat() | nodes.Add() if sum(1 for _ in node.find_all(nodes.Node)) > MAX_SUM:
                raise PolicyError(f"a template puts more than {MAX_SUM} parts together in one place", here)
            case nodes.Filter(name=name) if name not in ENVIRONMENT.filters:
                raise PolicyError(f"{name!r} is not a filter{nearest(name, (*SAFE_FILTERS, 'join'))}", here)
            case nodes.Test(name=name) if name not in ENVIRONMENT.tests:
                raise PolicyError(f"{name!r} is not a test{nearest(name, ENVIRONMENT.tests)}", here)
            case nodes.For():
                if "loop" in names:
                    raise PolicyError("a template has a loop inside a loop", here)
                looped += sum(1 for _ in node.find_all(nodes.Node))
                if looped > MAX_LOOPED:
                    raise PolicyError(f"a template's loops have more than {MAX_LOOPED} parts", here)
                stack.append((node.iter, names, depth + 1))
                inner = {**names, "loop": LOOP, **_targets(node, names)}
                parts = [*node.body, *node.else_, *([node.test] if node.test else [])]
                stack += [(part, inner, depth + 1) for part in reversed(parts)]
                continue
        stack += [(child, names, depth + 1) for child in reversed(list(node.iter_child_nodes()))]


def _check_whole(expression: nodes.Expr, names: Names, place: Place) -> None:
    """Raise PolicyError where a typed condition reads the inside of a value; only names with known parts have one."""
    for node in (expression, *expression.find_all((nodes.Getattr, nodes.Getitem))):
        match node:
            case nodes.Getattr(node=nodes.Name(name=name)) if names[name].attributes:
                continue
            case nodes.Getitem(node=nodes.Name(name=name), arg=nodes.Const(value=str())) if names[name].attributes:
                continue
            case nodes.Getattr() | nodes.Getitem():
                raise PolicyError("a condition reads a value whole, and no part of it", _line(place, node.lineno))


def _check_attribute(name: str, attribute: str, names: Names, place: Place) -> None:
    if name in names and attribute not in names[name].attributes:
        known = sorted(names[name].attributes)
        raise PolicyError(f"{attribute!r} is not a part of {name!r}{nearest(attribute, known)}", place)


def _targets(loop: nodes.For, names: Names) -> dict[str, Shape]:
    """The names that a loop makes; those over a known list have its items' attributes."""
    shape = Shape()
    if isinstance(loop.iter, nodes.Name) and loop.iter.name in names:
        shape = Shape(names[loop.iter.name].items)
    targets = loop.target.find_all(nodes.Name) if not isinstance(loop.target, nodes.Name) else [loop.target]
    return {target.name: shape for target in targets}


def _unreadable(error: Exception, place: Place) -> PolicyError:
    if isinstance(error, jinja2.TemplateSyntaxError):
        return PolicyError(f"the template cannot be read: {error.message}", _line(place, error.lineno))
    cause = "it nests too deep" if isinstance(error, RecursionError) else "a number in it is too long"
    return PolicyError(f"the template cannot be read: {cause}", place)


def _line(place: Place, number: int | None) -> Place:
    """The place of a template's line, of which the first stands at `place`."""
    return place if number is None or number <= 1 else Place(place.file, place.line + number - 1, 1, place.key)
