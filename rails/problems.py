"""What is wrong with a policy, and where: every mistake in words, gathered so that its writer sees them all at once.

This file knows what pydantic says of keys and values. It knows nothing of what the keys mean.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from trackbed.rails.config import RailConfig
from trackbed.rails.errors import Place, PolicyError
from trackbed.rails.language import RailKeys
from trackbed.rails.pattern import PatternBudget
from trackbed.rails.source import Node
from trackbed.rails.template import nearest

LIMIT = 20  # mistakes told at once
SUBJECTS = ("Input", "String", "List", "Tuple", "Frozenset", "Dictionary")  # what pydantic's messages begin with

Model = TypeVar("Model", bound=BaseModel)


class Problems:
    """The mistakes of a policy, gathered so that its writer sees them all at once."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[PolicyError] = []
        self.patterns = PatternBudget()

    @property
    def many(self) -> bool:
        """Whether there are more than anybody reads."""
        return len(self.found) >= LIMIT

    def add(self, message: str, place: Place) -> None:
        """Note a mistake."""
        self.found.append(PolicyError(message, place))

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Note a mistake that the block raises, and go on after it."""
        try:
            yield
        except PolicyError as error:
            self.found.append(error)

    def check(self) -> None:
        """Raise what was found as one error, a line for each mistake, in the order of the file."""
        told: dict[Place | None, PolicyError] = {}
        for error in self.found:
            told.setdefault(error.place, error)  # what else is wrong in one place mostly follows from the first
        if told:
            first, *rest = sorted(told.values(), key=self._order)[:LIMIT]
            raise type(first)(first.message, first.place, rest)

    def _order(self, error: PolicyError) -> tuple[bool, str, int, int]:
        place = error.place or Place(self.file)
        return place.file != self.file, place.file, place.line, place.column


def read_keys(model: type[Model], node: Node, called: str, problems: Problems) -> Model | None:
    """The node as a `model`; None when it is none, and `problems` say why and where."""
    try:
        # JSON has lists where Python has tuples and sets, so types can be strict and a Config may use either.
        return model.model_validate_json(json.dumps(node.plain()), strict=True, context=problems.patterns)
    except ValidationError as error:
        problems.found += [
            _problem(details, model, node, called) for details in error.errors(include_url=False)[:LIMIT]
        ]
        return None


def _problem(error: ErrorDetails, model: type[BaseModel], node: Node, called: str) -> PolicyError:
    """One of pydantic's errors in our words."""
    *path, last = error["loc"] or ("",)
    found = node.at(error["loc"])
    value, key = error["input"], found.place.key or called
    if value is None and error["type"] != "extra_forbidden":
        return PolicyError(f"{key!r} has no value", found.key)
    match error["type"]:
        case "extra_forbidden":
            owner = _owner(model, path)
            name = str(last)
            fields = [info.alias or name for name, info in owner.model_fields.items()]
            known = [*fields, *(RailKeys.model_fields if issubclass(owner, RailConfig) else ())]
            called = called if owner is model else getattr(owner, "called", key.rpartition(".")[0])
            return PolicyError(f"{name!r} is not a key of {called}{nearest(name, known)}", found.key)
        case "missing":
            owner = _owner(model, path)
            called = called if owner is model else getattr(owner, "called", key)
            return PolicyError(f"{str(last)!r} is missing from {called}", found.place)
        case "value_error":
            return PolicyError(str(error["ctx"]["error"]), found.place)
        case "literal_error":
            words = error["ctx"]["expected"].replace("'", "")
            known = words.replace(" or ", ", ").split(", ")
            close = get_close_matches(str(value)[:60], [word for word in known if word != value], n=1)
            meant = f"; did you mean {close[0]!r}? It" if close else "; it"
            return PolicyError(f"{key!r} is {_short(value)}{meant} can be {words}", found.place)
        case "too_short" if not value:
            return PolicyError(f"{key!r} is given but empty; leave it out, or give it something", found.key)
        case "bool_type" | "bool_parsing":
            return PolicyError(f"{key!r} is {_short(value)}; it can be true or false", found.place)
        case "dict_type" | "model_type":
            return PolicyError(f"{key!r} is {_short(value)}; it takes keys with values", found.place)
        case "list_type" | "tuple_type" | "set_type" | "frozen_set_type":
            return PolicyError(f"{key!r} is {_short(value)}; it takes a list", found.place)
        case "string_type" if isinstance(value, bool | int | float):
            return PolicyError(f"{key!r} is {_short(value)}, which is no text; put it in quotes", found.place)
    subject, _, rest = error["msg"].partition(" ")
    words = f"it {rest}" if subject in SUBJECTS else error["msg"]
    return PolicyError(f"{key!r} is {_short(value)}; {words}", found.place)


def _short(value: object) -> str:
    """A value in a message."""
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "a mapping"
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _owner(model: type[BaseModel], path: list[str | int]) -> type[BaseModel]:
    """The model whose keys stand at a path of pydantic's."""
    for step in path:
        if isinstance(step, str) and step in model.model_fields:
            model = next(_models(model.model_fields[step].annotation), model)
    return model


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
