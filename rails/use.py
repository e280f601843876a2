"""A rail as a policy uses it: its class found by name, its own keys read by its own schema.

What is wrong is told at its key. This file knows every key that all rails share, and no rail.
"""

import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from trackbed.llm.types import Endpoint
from trackbed.rails.config import ModelReference, RailConfig
from trackbed.rails.errors import Place, PolicyError, UnknownRail
from trackbed.rails.extends import entries
from trackbed.rails.language import IMPORT_PATH, MAX_RAILS, DefaultKeys, OnError, RailKeys
from trackbed.rails.problems import Problems, read_keys
from trackbed.rails.source import Node
from trackbed.rails.template import Condition, Shape, compile_condition, nearest
from trackbed.rails.types import Rail, Stage, Then, Turn

Part = Literal["calls", "results"]  # of the tools stage

# What can be done to a draft cannot be done to a question.
ONLY_IN: Mapping[Then, Stage] = {"drop": "retrieval", "regenerate": "output", "quote": "output"}


@dataclass(frozen=True, slots=True)
class RailUse:
    """A rail as a policy uses it."""

    rail: str  # its name, as the policy writes it
    id: str
    stage: Stage
    rail_class: type[Rail]
    config: RailConfig
    place: Place
    then: Then = "block"
    mode: Literal["enforce", "observe"] = "enforce"
    on_error: OnError = "block"
    timeout: float = 10.0  # seconds
    when: Condition | None = None
    part: Part | None = None  # what it judges on the tools stage

    @property
    def name(self) -> str:
        """`stage/id`, which is what tests and refusals call it."""
        return f"{self.stage}/{self.id}"

    def applies(self, turn: Turn) -> bool:
        """Whether the rail is to judge this turn. Raises TemplateFailed where its condition lacks a variable."""
        return self.when is None or self.when.holds(vars=turn.vars, question=turn.question, text=turn.text)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a rail's keys may name, and what holds where they say nothing."""

    models: Mapping[str, str | Endpoint]
    vars: frozenset[str]
    defaults: DefaultKeys


def read_rails(
    stage: Stage, node: Node | None, scope: Scope, problems: Problems, seen: set[str] | None = None
) -> Iterator[RailUse]:
    """The rails of a stage; those that cannot be read are left out, and `problems` say why.

    `seen` are the ids that the stage has already, where it has a second list.
    """
    seen = set() if seen is None else seen
    for entry in entries(node)[:MAX_RAILS]:
        if problems.many:
            return
        if use := _rail(stage, entry, scope, problems):
            if use.id in seen:
                problems.add(f"two rails of {stage} have the id {use.id!r}; give one of them an 'id'", use.place)
            seen.add(use.id)
            yield use


def rail_class(name: str, place: Place) -> type[Rail]:
    """The class of a built-in name or of an import path. Raises UnknownRail, PolicyError."""
    # Imported here, since the package that holds the table also offers what is built on this file.
    from trackbed.rails import RAILS

    if name not in RAILS and not re.fullmatch(IMPORT_PATH, name):
        raise UnknownRail(f"{name!r} is not a rail{nearest(name, [*RAILS, 'package.module:Class'])}", place)
    found = imported(RAILS.get(name, name), place)
    for part in ("Config", "stages", "actions", "check"):
        if not hasattr(found, part):
            raise PolicyError(f"{name!r} is no rail: it has no {part!r}", place)
    if not issubclass(found.Config, RailConfig) or not inspect.iscoroutinefunction(found.check):
        raise PolicyError(f"{name!r} is no rail: it needs a Config(RailConfig) and an async check(turn)", place)
    return found  # type: ignore[no-any-return]  # what makes a rail has just been looked at


def imported(path: str, place: Place) -> Any:  # Any: whatever the path leads to
    """The class at an import path. Raises PolicyError."""
    found = resolved(path, place)
    if not inspect.isclass(found):
        raise PolicyError(f"{path!r} is no class", place)
    return found


def resolved(path: str, place: Place) -> Any:  # Any: whatever the path leads to
    """What stands at an import path. Raises PolicyError."""
    try:
        return pkgutil.resolve_name(path)
    except Exception as error:
        words = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PolicyError(f"{path!r} cannot be imported: {words}", place) from error


def _rail(stage: Stage, node: Node, scope: Scope, problems: Problems) -> RailUse | None:
    common = {key: child for key, child in node.keys.items() if key in RailKeys.model_fields}
    own = replace(node, value={key: child for key, child in node.keys.items() if key not in common})
    for key, child in node.keys.items():
        if child.value is None:
            problems.add(f"{key!r} has no value", child.key)
    keys = read_keys(RailKeys, replace(node, value=common), "a rail", problems)
    if keys is None:
        return None

    found, when = None, None
    with problems.caught():
        found = rail_class(keys.rail, common["rail"].place)
        _check_use(keys, stage, found, node)
    with problems.caught():
        if keys.when is not None:
            names = {"vars": Shape(scope.vars), "question": Shape(), "text": Shape()}
            when = compile_condition(keys.when, common["when"].text, names)
    if found is None:
        return None
    config = read_keys(found.Config, own, f"rail {keys.rail!r}", problems)
    if config is None:
        return None
    for key, model in named_models(config):
        if model not in scope.models:
            problems.add(f"{model!r} is not one of the models{nearest(model, scope.models)}", own.at([key]).place)
    if getattr(config, "restore", False) and (keys.then != "mask" or stage not in ("input", "retrieval")):
        problems.add("'restore' needs 'then: mask', on input or retrieval", own.at(["restore"]).place)
    return RailUse(
        rail=keys.rail,
        id=keys.id or keys.rail,
        stage=stage,
        rail_class=found,
        config=config,
        place=node.place,
        then=keys.then or "block",
        mode=keys.mode,
        on_error=keys.on_error or scope.defaults.on_error,
        timeout=keys.timeout or scope.defaults.timeout,
        when=when,
    )


def _check_use(keys: RailKeys, stage: Stage, found: type[Rail], node: Node) -> None:
    """Raise PolicyError where the rail does not judge this stage, or cannot do what `then` says."""
    if stage not in found.stages:
        judged = " and ".join(sorted(found.stages))
        raise PolicyError(f"rail {keys.rail!r} does not judge {stage}; it judges {judged}", node.keys["rail"].place)
    then = keys.then or "block"
    able = [action for action in get_args(Then) if action in found.actions and ONLY_IN.get(action, stage) == stage]
    if then not in able:
        place = node.at(["then"]).place
        raise PolicyError(f"rail {keys.rail!r} cannot {then} on {stage}; 'then' can be {', '.join(able)}", place)


def named_models(config: RailConfig) -> Iterator[tuple[str, str]]:
    """The keys of a rail's own that name models, with what they name."""
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, str) and (_is_model(info.metadata) or _is_model(get_args(info.annotation))):
            yield name, value


def _is_model(parts: object) -> bool:
    """Whether a field's metadata, or the arguments of its type such as `ModelName | None`, mark it as a model."""
    if isinstance(parts, list | tuple):
        return any(isinstance(part, ModelReference) or _is_model(get_args(part)) for part in parts)
    return False
