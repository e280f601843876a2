"""Who may read what, and what a filter lets through, as a condition on the table of passages.

The same rule as in `allowed`, which is its plain form; tests hold the two together. What a query says becomes
parameters, never words of the statement.
"""

import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from trackbed.retrieval.postgres.text import stored
from trackbed.retrieval.types import ALLOW, AnyOf, Between, Condition, Query, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg.sql import Composable

Parameters = dict[str, Any]  # Any: what psycopg can hand over
READABLE = "(readers IS NULL OR readers && {}::text[])"
# What is a number, a text, or several words is asked first: the comparison is made of nothing else.
NUMBER = "CASE jsonb_typeof({0}) WHEN 'number' THEN {1} ELSE false END"
TEXT = "CASE jsonb_typeof({0}) WHEN 'string' THEN {1} ELSE false END"
WORDS = """CASE jsonb_typeof({0}) WHEN 'array' THEN
    EXISTS (SELECT FROM jsonb_array_elements_text({0}) AS word WHERE {1}) ELSE false END"""


def readers(metadata: "Mapping[str, Value]") -> list[str] | None:
    """The groups that may read a passage, as its row names them; None where everybody may."""
    if ALLOW not in metadata:
        return None
    groups = metadata[ALLOW]
    return [stored(group) for group in (groups if isinstance(groups, tuple) else (str(groups),))]


def permitted(query: Query) -> "tuple[Composable, Parameters]":
    """The condition that a passage may be found, and its parameters: its readers, and what the query filters by."""
    from psycopg.sql import SQL

    held = _Held()
    first = SQL(READABLE).format(held.by_name([stored(group) for group in query.principals]))
    rest = [_condition(key, condition, held) for key, condition in query.filter.items()]
    return SQL(" AND ").join([first, *rest]), held.parameters


class _Held:
    """The parameters of a statement as it grows."""

    def __init__(self) -> None:
        self.parameters: Parameters = {}

    def by_name(self, value: Any) -> "Composable":
        """The placeholder of a parameter that has this value."""
        from psycopg.sql import Placeholder

        name = f"condition_{len(self.parameters)}"
        self.parameters[name] = value
        return Placeholder(name)


def _condition(key: str, condition: Condition, held: _Held) -> "Composable":
    return _any_of(key, condition, held) if isinstance(condition, AnyOf) else _between(key, condition, held)


def _any_of(key: str, condition: AnyOf, held: _Held) -> "Composable":
    from psycopg.sql import SQL

    if key == "source":
        sources = [stored(value) for value in condition.values if isinstance(value, str)]
        return SQL("source = ANY ({}::text[])").format(held.by_name(sources))
    # Containment is looked up in an index, and tells numbers, texts and truth apart. Several words are a list.
    values: list[object] = []
    for value in condition.values:
        if isinstance(value, str):
            values += [stored(value), [stored(value)]]
        elif math.isfinite(value):  # no other number is stored
            values.append(value)
    one = SQL("metadata @> {}::jsonb")
    ways = [one.format(held.by_name(json.dumps({stored(key): value}))) for value in values]
    return SQL("({})").format(SQL(" OR ").join(ways)) if ways else SQL("false")


def _between(key: str, condition: Between, held: _Held) -> "Composable":
    from psycopg.sql import SQL, Composable

    bounds = [bound for bound in condition if bound is not None]
    if any(isinstance(bound, bool) or bound != bound for bound in bounds):  # true is no number, and NaN is none
        return SQL("false")
    value: Composable = SQL("to_jsonb(source)")
    if key != "source":
        value = SQL("(metadata -> {}::text)").format(held.by_name(stored(key)))
    said = SQL("({} #>> '{{}}')").format(value)
    ways: list[Composable] = []
    if not any(isinstance(bound, str) for bound in bounds):
        ways.append(SQL(NUMBER).format(value, _within(SQL("{}::numeric").format(said), condition, held)))
    if all(isinstance(bound, str) for bound in bounds):
        ways.append(SQL(TEXT).format(value, _within(said, condition, held)))
        ways.append(SQL(WORDS).format(value, _within(SQL("word"), condition, held)))
    return SQL("({})").format(SQL(" OR ").join(ways)) if ways else SQL("false")


def _within(value: "Composable", condition: Between, held: _Held) -> "Composable":
    """That a value is within bounds of its kind; texts are in the order of their characters' numbers, as in Python."""
    from psycopg.sql import SQL

    limits: list[Composable] = [SQL("true")]
    for bound, compared in ((condition.least, "{} >= {}"), (condition.most, "{} <= {}")):
        if isinstance(bound, str):
            limit = SQL('{}::text COLLATE "C"').format(held.by_name(stored(bound)))
            limits.append(SQL(compared).format(value, limit))
        elif bound is not None:
            limits.append(SQL(compared).format(value, SQL("{}::numeric").format(held.by_name(Decimal(repr(bound))))))
    return SQL(" AND ").join(limits)
