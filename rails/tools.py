"""Which tools a model may call, read from a policy: `tools:` with its two lists of rails.

What a policy says of a tool's arguments, in schemas and rules, is held against the tools and against each other here,
so that a name that leads nowhere is told when the policy is loaded. This file judges no call.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from trackbed.rails.errors import Place
from trackbed.rails.extends import written_id
from trackbed.rails.language import ToolsKeys
from trackbed.rails.problems import Problems, read_keys
from trackbed.rails.source import Node
from trackbed.rails.template import Shape, nearest
from trackbed.rails.use import Part, RailUse, Scope, read_rails

DECIDED = ("allow", "confirm")  # what decides beside the rails; traces and `refuse` name them like rails


@dataclass(frozen=True, slots=True)
class Tools:
    """Which tools may be called."""

    allow: tuple[str, ...]
    confirm: frozenset[str]  # those whose calls the user has to confirm, one by one
    places: Mapping[str, Place]  # of each tool that is allowed


def read_tools(node: Node, scope: Scope, problems: Problems) -> tuple[Tools | None, tuple[RailUse, ...]]:
    """What the policy says of tools, and the rails that judge their calls and results."""
    keys = read_keys(ToolsKeys, node, "tools", problems)
    seen: set[str] = set()
    uses = [
        replace(use, part=part)
        for part in get_args(Part)
        for use in read_rails("tools", node.keys.get(part), scope, problems, seen)
    ]
    for use in uses:
        if use.id in DECIDED:
            problems.add(f"{use.id!r} is what 'tools' decides itself; give this rail another 'id'", use.place)
    if keys is None:
        return None, tuple(uses)
    allow = node.at(["allow"])
    tools = Tools(tuple(keys.allow), frozenset(keys.confirm), {str(n.value): n.place for n in allow.items})
    for key, names in (("allow", keys.allow), ("confirm", keys.confirm)):
        for i, name in enumerate(names):
            if name in names[:i]:
                problems.add(f"{name!r} is given twice", node.at([key, i]).place)
            elif name not in tools.allow:
                problems.add(_not_allowed(name, tools), node.at([key, i]).place)
    return tools, tuple(_named(uses, node, tools, scope, problems))


def schemaless(tools: Tools, uses: Sequence[RailUse]) -> Iterator[tuple[str, Place]]:
    """The tools whose arguments no schema describes, in words, with where they stand."""
    known = _schemas(uses)
    for name, place in tools.places.items():
        if name not in known:
            yield f"tool {name!r} may be called with anything; describe its arguments in a rail 'schema'", place


def _schemas(uses: Sequence[RailUse]) -> dict[str, Any]:  # Any: JSON
    """The schema of each tool that has one."""
    from trackbed.rails.library.schema import Schema

    found: dict[str, Any] = {}
    for use in uses:
        if isinstance(use.config, Schema.Config) and use.mode == "enforce":
            found |= use.config.schemas
    return found


def _named(uses: Sequence[RailUse], node: Node, tools: Tools, scope: Scope, problems: Problems) -> Iterator[RailUse]:
    """The rails, with the conditions of rules compiled; names that lead nowhere are told."""
    from trackbed.rails.library.rule import Rule
    from trackbed.rails.library.schema import Schema

    schemas = _schemas(uses)
    written = {written_id(rail): rail for part in get_args(Part) for rail in node.at([part]).items}
    for use in uses:
        if (rail := written.get(use.id)) is None:
            continue  # its id is no text, which is told where the rail was read
        config = use.config
        if isinstance(config, (Schema.Config, Rule.Config)) and use.part == "results":
            problems.add(f"rail {use.rail!r} judges calls; put it under 'calls'", use.place)
        if isinstance(config, Schema.Config):
            for name in config.schemas:
                if name not in tools.allow:
                    problems.add(_not_allowed(name, tools), rail.at(["schemas", name]).key)
        elif isinstance(config, Rule.Config):
            if config.tool not in tools.allow:
                problems.add(_not_allowed(config.tool, tools), rail.at(["tool"]).place)
            arguments = schemas.get(config.tool, {}).get("properties")
            known = {"vars": Shape(scope.vars), "question": Shape()}
            names = _Open(known) if arguments is None else {name: Shape() for name in arguments} | known
            with problems.caught():
                yield replace(use, config=config.compiled(rail.at(["require"]).text, names))
            continue
        yield use


def _not_allowed(name: str, tools: Tools) -> str:
    return f"{name!r} is not one of the tools that 'allow' names{nearest(name, tools.allow)}"


class _Open(dict[str, Shape]):
    """Names of which nobody knows them all: any other is an argument."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> Shape:
        return Shape()
