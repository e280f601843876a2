"""A part of JSON Schema (2020-12): what a tool's arguments may be, checked in time that grows with their size.

It has the words that say something of one value at a time. A word that it does not have is refused when the schema is
read, since a limit that nobody checks is none. References lead into the schema's own `$defs` and are written out, so
that nothing is fetched and nothing goes round in a circle; patterns are RE2's. This file knows nothing of tools.

The tests compare this with the package `jsonschema`, which does not judge here. Its `uniqueItems` compares each item
with each, so that a model's long list holds up a turn; it follows a reference that leads to itself until Python's
stack ends; its `multipleOf` divides floats, by which 19.99 is no multiple of 0.01 and a long integer raises; its
messages quote the value; it takes words that it does not know, and bounds that are no numbers. Setting each of these
right, by extending its validator and by reading the schema first, leaves little of it in use.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from fractions import Fraction
from typing import Any
from uuid import UUID

from trackbed.rails.pattern import PatternBudget
from trackbed.rails.template import nearest

Schema = Mapping[str, Any]  # Any: JSON
# What is wrong with a value, in words that quote nothing of it; empty when nothing is.
Check = Callable[[Any], str]

MAX_PARTS = 2000  # of a schema, its references written out
MAX_DEPTH = 32

TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: _is_number(value),
    "integer": lambda value: _is_number(value) and value == int(value),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (lambda value, bound: value >= bound, "is below {}"),
    "maximum": (lambda value, bound: value <= bound, "is above {}"),
    "exclusiveMinimum": (lambda value, bound: value > bound, "is not above {}"),
    "exclusiveMaximum": (lambda value, bound: value < bound, "is not below {}"),
    "multipleOf": (lambda value, bound: _exactly(value) % _exactly(bound) == 0, "is no multiple of {}"),
}
SIZES: dict[str, tuple[type, bool, str]] = {
    "minLength": (str, False, "has fewer than {} characters"),
    "maxLength": (str, True, "has more than {} characters"),
    "minItems": (list, False, "has fewer than {} items"),
    "maxItems": (list, True, "has more than {} items"),
    "minProperties": (dict, False, "has fewer than {} keys"),
    "maxProperties": (dict, True, "has more than {} keys"),
}
NOTES = ("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$schema", "$comment")
DEFINITIONS = ("$defs", "definitions")
WORDS = (
    "type",
    "enum",
    "const",
    *BOUNDS,
    *SIZES,
    "pattern",
    "format",
    "uniqueItems",
    "items",
    "properties",
    "required",
)
WORDS += ("additionalProperties", "propertyNames", "allOf", "anyOf", "oneOf", "not", "$ref", *DEFINITIONS)
EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,255}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def compile_schema(schema: object, patterns: PatternBudget | None = None) -> Check:
    """What checks arguments against the schema of an object. Raises ValueError that says where the schema is wrong."""
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        raise ValueError("the schema of a tool's arguments begins with type: object")
    return compile_any_schema(schema, patterns)


def compile_any_schema(schema: object, patterns: PatternBudget | None = None) -> Check:
    """What checks any value against a schema. Raises ValueError that says where the schema is wrong."""
    if not isinstance(schema, Mapping):
        raise ValueError("a schema is a mapping of keys to values, such as type: object")
    compiler = _Compiler(schema, patterns or PatternBudget())
    for part in DEFINITIONS:
        for name, words in _mapping(schema.get(part, {}), (part,)).items():
            compiler.compile(words, (part, name), ())
    return compiler.compile(schema, (), ())


class _Compiler:
    """Makes checks of one schema's parts, and counts them."""

    def __init__(self, root: Schema, patterns: PatternBudget) -> None:
        self.root = root
        self.patterns = patterns
        self.parts = 0

    def compile(self, schema: object, path: tuple[str, ...], within: tuple[str, ...]) -> Check:
        """What checks a value against a part of the schema; `within` are the references that led to it."""
        self.parts += 1
        if self.parts > MAX_PARTS or len(path) > 2 * MAX_DEPTH or len(within) > MAX_DEPTH:
            raise ValueError(
                f"the schema has more than {MAX_PARTS} parts, its references written out, or nests too deep"
            )
        if isinstance(schema, bool):
            return _nothing if schema else _refuses
        if not isinstance(schema, Mapping):
            raise _wrong(path, "is no schema; it takes keys with values")
        checks = []
        for word, value in schema.items():
            if word in NOTES or (word in DEFINITIONS and not path):
                continue
            if word not in WORDS or word in DEFINITIONS:
                raise ValueError(f"{_at((*path, word))!r} is not a key of a tool's schema{nearest(word, WORDS)}")
            checks.append(self._check(word, value, schema, (*path, word), within))
        return _all(checks)

    def _check(self, word: str, value: Any, schema: Schema, path: tuple[str, ...], within: tuple[str, ...]) -> Check:
        if word in BOUNDS:
            return _bound(word, value, path)
        if word in SIZES:
            return _size(word, value, path)
        match word:
            case "type":
                return _type(value, path)
            case "const" | "enum":
                return _one_of(_filled_list(value, path) if word == "enum" else [value])
            case "pattern":
                return self._pattern(value, path)
            case "format":
                return _format(value, path)
            case "uniqueItems":
                if not isinstance(value, bool):
                    raise _wrong(path, "takes true or false")
                return _unique if value else _nothing
            case "required":
                return _required(value, schema, path)
            case "properties":
                parts = _mapping(value, path)
                return _keys({name: self.compile(part, (*path, name), within) for name, part in parts.items()})
            case "additionalProperties":
                known = frozenset(_mapping(schema.get("properties", {}), path))
                return _others(self.compile(value, path, within), known)
            case "propertyNames":
                return _names(self.compile(value, path, within))
            case "items":
                return _items(self.compile(value, path, within))
            case "not":
                check = self.compile(value, path, within)
                return lambda value: "" if check(value) else "is what it must not be"
            case "$ref":
                return self._reference(value, path, within)
        options = [self.compile(s, (*path, str(i)), within) for i, s in enumerate(_filled_list(value, path))]
        if word == "allOf":
            return _all(options)
        most = 1 if word == "oneOf" else len(options)
        return lambda value: "" if 1 <= sum(not check(value) for check in options) <= most else "is of no allowed kind"

    def _pattern(self, value: object, path: tuple[str, ...]) -> Check:
        if not isinstance(value, str):
            raise _wrong(path, "takes a regular expression")
        try:
            pattern = self.patterns.compile(value)
        except ValueError as error:
            raise _wrong(path, str(error)) from None

        def check(value: Any) -> str:
            # Half of a surrogate pair has no UTF-8, which is what RE2 reads.
            found = not isinstance(value, str) or pattern.search(value.encode("utf-8", "replace").decode())
            return "" if found else "does not have the form that it takes"

        return check

    def _reference(self, value: object, path: tuple[str, ...], within: tuple[str, ...]) -> Check:
        _, part, name = [*str(value).split("/"), "", "", ""][:3]
        if not isinstance(value, str) or part not in DEFINITIONS or value != f"#/{part}/{name}":
            raise _wrong(path, "is not of the form #/$defs/name; nothing else is looked up")
        known = _mapping(self.root.get(part, {}), (part,))
        if name not in known:
            raise _wrong(path, f"leads to nothing{nearest(name, known)}")
        if value in within:
            raise _wrong(path, "leads back to itself; arguments have a known depth")
        return self.compile(known[name], (part, name), (*within, value))


def _all(checks: Sequence[Check]) -> Check:
    if len(checks) == 1:
        return checks[0]
    return lambda value: next(filter(None, (check(value) for check in checks)), "")


def _within(name: str, mistake: str) -> str:
    inner, colon, words = mistake.partition(": ")
    return f"{name}.{inner}: {words}" if colon else f"{name}: {mistake}"


def _nothing(value: Any) -> str:
    return ""


def _refuses(value: Any) -> str:
    return "is not taken"


def _bound(word: str, bound: Any, path: tuple[str, ...]) -> Check:
    if not _is_number(bound) or (word == "multipleOf" and bound <= 0):
        raise _wrong(path, "takes a number" + (" above 0" if word == "multipleOf" else ""))
    holds, words = BOUNDS[word]
    return lambda value: words.format(bound) if _is_number(value) and not holds(value, bound) else ""


def _size(word: str, bound: Any, path: tuple[str, ...]) -> Check:
    if not isinstance(bound, int) or isinstance(bound, bool) or bound < 0:
        raise _wrong(path, "takes a whole number, 0 or more")
    kind, most, words = SIZES[word]

    def check(value: Any) -> str:
        if not isinstance(value, kind):
            return ""
        size = len(value)  # type: ignore[arg-type]  # each of the three kinds has one
        return words.format(bound) if (size > bound if most else size < bound) else ""

    return check


def _type(value: Any, path: tuple[str, ...]) -> Check:
    names = _filled_list([value] if isinstance(value, str) else value, path)
    if unknown := [name for name in names if str(name) not in TYPES]:
        raise _wrong(path, f"is {str(unknown[0])[:60]!r}, which is no type{nearest(str(unknown[0]), TYPES)}")
    kinds, words = [TYPES[name] for name in names], f"is no {' or '.join(names)}"
    return lambda value: "" if any(kind(value) for kind in kinds) else words


def _one_of(values: Sequence[Any]) -> Check:
    known = frozenset(map(_key, values))
    return lambda value: "" if _key(value) in known else "is none of the allowed values"


def _format(value: Any, path: tuple[str, ...]) -> Check:
    if str(value) not in FORMATS:
        raise _wrong(path, f"is {str(value)[:60]!r}, which is not checked{nearest(str(value), FORMATS)}")
    reads = FORMATS[value]

    def check(text: Any) -> str:
        try:
            return "" if not isinstance(text, str) or reads(text) else f"is no {value}"
        except ValueError:
            return f"is no {value}"

    return check


def _required(value: Any, schema: Schema, path: tuple[str, ...]) -> Check:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _wrong(path, "takes a list of names")
    known = schema.get("properties")
    if isinstance(known, Mapping) and (unknown := [name for name in value if name not in known]):
        raise _wrong(path, f"names {unknown[0][:60]!r}, which is none of the properties{nearest(unknown[0], known)}")
    return lambda found: next(
        (f"{name!r} is missing" for name in value if isinstance(found, dict) and name not in found), ""
    )


def _keys(checks: Mapping[str, Check]) -> Check:
    def keys(value: Any) -> str:
        if not isinstance(value, dict):
            return ""
        found = ((name, check(value[name])) for name, check in checks.items() if name in value)
        return next((_within(name, mistake) for name, mistake in found if mistake), "")

    return keys


def _items(check: Check) -> Check:
    def items(value: Any) -> str:
        if not isinstance(value, list):
            return ""
        found = ((str(i), check(item)) for i, item in enumerate(value))
        return next((_within(name, mistake) for name, mistake in found if mistake), "")

    return items


def _names(check: Check) -> Check:
    def names(value: Any) -> str:
        refused = isinstance(value, dict) and any(check(name) for name in value)
        return "has a key that is not allowed" if refused else ""

    return names


def _others(check: Check, known: frozenset[str]) -> Check:
    """What checks the values of keys that have no schema of their own; their names are the model's, and not told."""

    def others(value: Any) -> str:
        if not isinstance(value, dict) or not any(check(child) for name, child in value.items() if name not in known):
            return ""
        return "has a key that it does not take"

    return others


def _unique(value: Any) -> str:
    double = isinstance(value, list) and len(set(map(_key, value))) < len(value)
    return "has an item twice" if double else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _exactly(number: float) -> Fraction:
    """The number as it is written: 0.3 is three times 0.1."""
    return Fraction(repr(number))


def _key(value: Any) -> str:
    """The same text for values that JSON Schema takes for equal: 1 and 1.0, and not 1 and true."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value == int(value):
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    return [_plain(child) for child in value] if isinstance(value, list) else value


def _is_date(text: str) -> bool:
    return len(text) == 10 and text.isascii() and text[4] == text[7] == "-" and bool(date.fromisoformat(text))


def _is_moment(text: str) -> bool:
    return bool(MOMENT.fullmatch(text)) and bool(datetime.fromisoformat(text.upper()))


FORMATS: dict[str, Callable[[str], object]] = {
    "date": _is_date,
    "date-time": _is_moment,
    "email": EMAIL.fullmatch,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": lambda text: "%" not in text and ipaddress.IPv6Address(text),
    "uuid": lambda text: str(UUID(text)) == text.lower(),
}


def _mapping(value: Any, path: tuple[str, ...]) -> Schema:
    if not isinstance(value, Mapping):
        raise _wrong(path, "takes names with schemas")
    return value


def _filled_list(value: Any, path: tuple[str, ...]) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise _wrong(path, "takes a list that is not empty")
    return value


def _at(path: tuple[str, ...]) -> str:
    return ".".join(path)[:200]


def _wrong(path: tuple[str, ...], words: str) -> ValueError:
    return ValueError(f"{_at(path)!r} {words}")
