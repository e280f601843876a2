"""Where a policy's passages come from, and what is asked there on behalf of a turn.

The file knows what a policy says of an index. It knows nothing of how one is searched.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trackbed.rails.filling import Filled, fill, to_fill
from trackbed.rails.language import KnowledgeKeys
from trackbed.rails.problems import Problems
from trackbed.rails.source import Node
from trackbed.rails.template import Names
from trackbed.rails.types import Turn
from trackbed.rails.use import imported
from trackbed.retrieval.types import AnyOf, Between, Condition, Query


@dataclass(frozen=True, slots=True)
class Listed:
    """A condition that one of these values meets."""

    values: tuple[Filled, ...]


@dataclass(frozen=True, slots=True)
class Bounded:
    """A condition that a value between these meets; None: there is no bound."""

    least: Filled | None
    most: Filled | None


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Where passages come from."""

    index: str
    retriever: str = "faiss"  # or package.module:Class
    passages: int = 4
    minimum_score: float = 0.3
    filter: Mapping[str, Listed | Bounded] = field(default_factory=dict)  # by key of the metadata

    def query(self, turn: Turn) -> Query:
        """What is sought for a turn. Raises TemplateFailed where its filter needs a variable that is missing."""
        conditions = {key: _condition(wanted, turn) for key, wanted in self.filter.items()}
        return Query(turn.question, turn.principals, conditions)


def read_knowledge(keys: KnowledgeKeys, node: Node, names: Names, problems: Problems) -> Knowledge:
    """What the keys under `knowledge` say; `names` are what a filter may read."""
    if ":" in keys.retriever:
        with problems.caught():
            imported(keys.retriever, node.at(["retriever"]).place)
    written = node.keys["filter"].keys if "filter" in node.keys else {}
    return Knowledge(
        keys.index,
        keys.retriever,
        keys.passages,
        keys.minimum_score,
        {key: _wanted(child, names, problems) for key, child in written.items()},
    )


def _wanted(node: Node, names: Names, problems: Problems) -> Listed | Bounded:
    if not node.keys:
        return Listed(tuple(to_fill(item, names, problems) for item in node.items or (node,)))
    bounds = {key: to_fill(child, names, problems) for key, child in node.keys.items()}
    return Bounded(bounds.get("least"), bounds.get("most"))


def _condition(wanted: Listed | Bounded, turn: Turn) -> Condition:
    """The condition with the turn's values in it."""
    said = {"vars": turn.vars, "question": turn.question}
    if isinstance(wanted, Listed):
        return AnyOf(tuple(fill(value, **said) for value in wanted.values))
    least, most = (None if bound is None else fill(bound, **said) for bound in (wanted.least, wanted.most))
    return Between(least, most)
