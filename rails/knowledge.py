"""Where a policy's passages come from, and what is asked there on behalf of a turn.

The file knows what a policy says of an index. It knows nothing of how one is searched.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from trackbed.rails.filling import Filled, fill, to_fill
from trackbed.rails.language import KnowledgeKeys
from trackbed.rails.problems import Problems
from trackbed.rails.rewrite import NONE, RULES
from trackbed.rails.source import Node
from trackbed.rails.template import Names, nearest
from trackbed.rails.types import Turn
from trackbed.rails.use import resolved
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

    indexes: tuple[str, ...]
    retriever: str = "faiss"  # or package.module:Class
    passages: int = 4
    minimum_score: float = 0.3
    filter: Mapping[str, Listed | Bounded] = field(default_factory=dict)  # by key of the metadata
    rewrite: str = NONE  # what is made of a question that leans on the conversation: NONE, RULES, or a model's name
    rerank: str | None = None  # the model that puts candidates in order
    candidates: int = 30
    diversity: float | None = None
    neighbours: int = 0
    section: bool = False
    timeout: float = 2.0  # seconds of what is done with candidates

    @property
    def index(self) -> str:
        """What reports call it."""
        return ", ".join(self.indexes)

    @property
    def refines(self) -> bool:
        """Whether something is done with what a search finds."""
        return bool(self.rerank or self.diversity is not None or self.neighbours or self.section)

    @property
    def asks(self) -> str | None:
        """The model that words questions anew."""
        return None if self.rewrite in (NONE, RULES) else self.rewrite

    def query(self, turn: Turn, also: tuple[str, ...] = ()) -> Query:
        """What is sought for a turn. Raises TemplateFailed where its filter needs a variable that is missing."""
        conditions = {key: _condition(wanted, turn) for key, wanted in self.filter.items()}
        return Query(turn.question, turn.principals, conditions, also)


def read_knowledge(
    keys: KnowledgeKeys, node: Node, names: Names, models: Collection[str], problems: Problems
) -> Knowledge:
    """What the keys under `knowledge` say; `names` are what a filter may read, `models` the policy's."""
    if keys.rewrite not in (NONE, RULES, *models):
        known = nearest(keys.rewrite, (NONE, RULES, *models))
        problems.add(f"{keys.rewrite!r} is no way to rewrite a question{known}", node.at(["rewrite"]).place)
    if keys.rerank is not None and keys.rerank not in models:
        known = nearest(keys.rerank, models)
        problems.add(f"{keys.rerank!r} is not one of the models{known}", node.at(["rerank"]).place)
    if ":" in keys.retriever:
        with problems.caught():
            resolved(keys.retriever, node.at(["retriever"]).place)
    written = node.keys["filter"].keys if "filter" in node.keys else {}
    return Knowledge(
        tuple(keys.index),
        filter={key: _wanted(child, names, problems) for key, child in written.items()},
        **keys.model_dump(exclude={"index", "filter"}),
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
