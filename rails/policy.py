"""A policy: what rails run in which stage, over what knowledge, with which words.

These are the records that the rest of the engine works with; they hold what a file says after every name in it
was found and every mistake refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from jinja2 import TemplateError

from trackbed.llm.types import Message, SamplingParams
from trackbed.rails.errors import Place
from trackbed.rails.template import Condition, Template
from trackbed.rails.types import Action, Rail, RailConfig, Reason, Stage, Then, Turn, Verdict

ModelSource = str  # a catalogue name, `hf:org/repo`, or the absolute path of a file or folder
Failure = Literal["timeout", "error", "nonsense"]


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
    on_error: Literal["block", "allow"] = "block"
    timeout: float = 10.0  # seconds
    when: Condition | None = None

    def applies(self, turn: Turn) -> bool:
        """Whether the rail is to judge this turn. Raises jinja2.TemplateError where its condition lacks a variable."""
        return self.when is None or self.when.holds(vars=turn.vars, question=turn.question, text=turn.text)


@dataclass(frozen=True, slots=True)
class Variable:
    """A value that a turn may carry, for conditions and templates to read."""

    type: Literal["string", "number", "integer", "boolean"]
    pattern: str | None = None  # RE2; the whole of a string matches it
    default: str | float | bool | None = None  # None: there is no default


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Where passages come from."""

    index: str
    retriever: str = "faiss"  # or package.module:Class
    passages: int = 4
    minimum_score: float = 0.3


@dataclass(frozen=True, slots=True)
class Generation:
    """How an answer is drafted."""

    model: str
    prompt: Template  # reads question, history, passages and vars
    sampling: SamplingParams
    unknown: str  # the answer where retrieval finds nothing
    history: int = 6  # how many of the last messages the model sees


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a test expects of a reply; what is None is not looked at."""

    action: Action | None = None
    by: str | None = None  # stage/id
    reason: Reason | None = None
    text: str | None = None  # the reply's, or the question's as the rails left it
    leaked: tuple[str, ...] = ()  # none of these stands in the reply
    model_calls: int | None = None  # at most


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """A conversation, what the models are made to answer, and what must come of it."""

    messages: tuple[Message, ...]  # the last one asks
    expect: Expectation
    place: Place
    model: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # answers, by the policy's names of models
    passages: tuple[str, ...] = ()
    fail: Mapping[str, Failure] = field(default_factory=dict)  # by stage/id
    vars: Mapping[str, Any] = field(default_factory=dict)  # any JSON value


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be said."""

    name: str
    file: Path
    models: Mapping[str, ModelSource]
    generation: Generation
    rails: Mapping[Stage, tuple[RailUse, ...]]
    refuse: Mapping[str, Template]  # by stage/id, rail id or reason; always has `default`
    knowledge: Knowledge | None = None
    vars: Mapping[str, Variable] = field(default_factory=dict)
    tests: tuple[PolicyTest, ...] = ()

    def refusal(self, verdict: Verdict, turn: Turn) -> str:
        """The words for a block: the rail's own where it judged, else those of the reason, else the default."""
        judged = [verdict.by, verdict.rail] if verdict.reason == "policy" else []
        keys = [*judged, verdict.reason or "policy", "default"]
        template = next(self.refuse[key] for key in keys if key in self.refuse)
        shown = SimpleNamespace(
            action=verdict.action,
            stage=verdict.stage or "",
            rail=verdict.rail,
            reason=verdict.detail or verdict.reason or "",
            detail=verdict.detail,
            categories=verdict.categories,
        )
        try:
            return template.render(verdict=shown, vars=turn.vars)
        except TemplateError:  # a refusal whose variable is missing still refuses
            return REFUSAL


REFUSAL = "I can't help with that."
