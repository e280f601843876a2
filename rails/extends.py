"""Which file a policy's name means, and what a policy has from the one that it extends.

This file knows stages and the ids of their rails. It does not look at what else a policy says.
"""

from dataclasses import replace
from pathlib import Path
from typing import get_args

from trackbed.rails.errors import PolicyError
from trackbed.rails.source import Node, Spent, inside, read_source
from trackbed.rails.types import Stage

POLICIES = Path(__file__).parents[1] / "policies"  # those that ship
STAGES: tuple[Stage, ...] = get_args(Stage)
LISTS = ("rails", "calls", "results")  # the keys of a stage that hold rails
MAX_GENERATIONS = 8  # policies that extend each other


def shipped() -> tuple[str, ...]:
    """The names of the policies that ship."""
    return tuple(sorted(file.stem for file in POLICIES.glob("*.yaml")))


def find_policy(path_or_name: str | Path) -> Path:
    """The file that a shipped name or a path means. Raises PolicyError."""
    if path_or_name in shipped():
        return POLICIES / f"{path_or_name}.yaml"
    file = Path(path_or_name)
    known = ", ".join(shipped())
    try:
        file = file / "policy.yaml" if file.is_dir() else file
        if file.is_file():
            return file
    except (OSError, ValueError) as error:  # a name too long, or in a folder that nobody may read
        raise PolicyError(f"there is no policy at {path_or_name!r}: {error}; it can be one of: {known}") from None
    raise PolicyError(f"there is no policy at {file}; give a file, a folder with a policy.yaml, or one of: {known}")


def read_policy(file: Path) -> Node:
    """The tree of a policy's file, over that of the policy which it extends. Raises PolicyError."""
    return _read(file, (), Spent())


def _read(file: Path, heirs: tuple[Path, ...], spent: Spent) -> Node:
    own = read_source(file, spent)
    node = own.keys.get("extends")
    if node is None or not isinstance(node.value, str):
        return own
    if node.value in shipped():
        base = POLICIES / f"{node.value}.yaml"
    else:
        base = inside(file.parent, node.value, node.place)
        if base.is_dir():
            base = inside(file.parent, f"{node.value}/policy.yaml", node.place)
        if not base.is_file():
            known = ", ".join(shipped())
            raise PolicyError(
                f"there is no policy at {base}; give a path in this folder, or one of: {known}", node.place
            )
    heirs = (*heirs, file.resolve())
    if base.resolve() in heirs:
        raise PolicyError(f"{node.value!r} extends this policy in turn", node.place)
    if len(heirs) > MAX_GENERATIONS:
        raise PolicyError(f"more than {MAX_GENERATIONS} policies extend each other", node.place)
    return _merged(_read(base, heirs, spent), own)


def entries(stage: Node | None) -> list[Node]:
    """The rails of a stage, in its short form, a list, or its long one, under its keys."""
    if stage is None:
        return []
    return [rail for key in LISTS if key in stage.keys for rail in stage.keys[key].items] or stage.items


def written_id(rail: Node) -> str:
    """A rail's id as it is written, whether it can be read or not."""
    named = rail.keys.get("id") or rail.keys.get("rail")
    return str(named.value) if named else ""


def _merged(base: Node, own: Node) -> Node:
    """The base with `own` over it: rails by their id, other keys one level deep. Names and tests are not inherited."""
    merged = {key: node for key, node in base.keys.items() if key not in ("name", "extends", "tests")}
    for key, node in own.keys.items():
        under = merged.get(key)
        if under and key == "tools":
            merged[key] = _merged_tools(under, node)
        elif under and key in STAGES:
            merged[key] = _merged_stage(under, node)
        elif under and under.keys and node.keys:
            merged[key] = replace(node, value={**under.keys, **node.keys})
        else:
            merged[key] = node
    return replace(own, value=merged)


def _merged_tools(base: Node, own: Node) -> Node:
    """Each list of rails merged by itself; what else `tools` says takes the place of what is inherited."""
    merged = {**base.keys, **own.keys}
    for key in LISTS:
        if key in base.keys and key in own.keys:
            merged[key] = _merged_stage(base.keys[key], own.keys[key])
    return replace(own, value=merged) if own.keys else own


def _merged_stage(base: Node, own: Node) -> Node:
    """The stage's rails: one of the same id takes the place of the inherited one, and new ones come after."""
    if not entries(own):
        return own  # a mistake, and told when the keys are read
    own_by_id = {written_id(node): node for node in reversed(entries(own))}
    kept = [own_by_id.get(written_id(node), node) for node in entries(base)]
    placed = {id(node) for node in kept}
    rails = replace(own, value=[*kept, *(node for node in entries(own) if id(node) not in placed)])
    return replace(own, value={**base.keys, **own.keys, "rails": rails}) if base.keys or own.keys else rails
