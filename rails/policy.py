"""A policy: what rails run in which stage, over what knowledge, with which words; and `load_policy`, which reads one.

The records hold what a file says after every name in it was found; whatever is wrong is refused with its place.
This file knows no rail: it finds their classes by name, and each brings the schema of its own keys.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, Literal

from trackbed.llm.types import Endpoint, Message, Role, SamplingParams
from trackbed.rails.budget import Budget
from trackbed.rails.dialog import Dialog, read_dialog, saved_names
from trackbed.rails.errors import Place, PolicyError, TemplateFailed
from trackbed.rails.extends import POLICIES, STAGES, entries, find_policy, read_policy, written_id
from trackbed.rails.knowledge import Knowledge, read_knowledge
from trackbed.rails.language import (
    DefaultKeys,
    ExpectKeys,
    Failure,
    PolicyKeys,
    SaidKeys,
    TestKeys,
    VariableKeys,
)
from trackbed.rails.pattern import PatternBudget
from trackbed.rails.problems import Problems, read_keys
from trackbed.rails.source import Node
from trackbed.rails.template import Names, Shape, Template, compile_template, nearest
from trackbed.rails.tools import DECIDED, Tools, read_tools
from trackbed.rails.trace import digest
from trackbed.rails.types import NOTHING, Action, Cite, Judge, Reason, Stage, Streaming, ToolCall, Turn, Value, Verdict
from trackbed.rails.use import RailUse, Scope, read_rails
from trackbed.rails.variable import Variable

__all__ = [
    "Expectation",
    "Generation",
    "Knowledge",
    "Policy",
    "PolicyTest",
    "RailUse",
    "Streaming",
    "Variable",
    "load_policy",
]

REFUSAL = "I can't help with that."
CONFIRM = "This needs your confirmation first."
CHAT = "smollm2-135m-instruct"
VERDICT = ("action", "stage", "rail", "reason", "detail", "categories")  # what words of refusal may read
CITED = "output/cite"  # who leaves out what no passage supports, in verdicts and tests
REASONS = ("default", "policy", "timeout", "error")

MAX_TEMPLATES = 65_536  # characters of all templates and conditions, each with
TEMPLATE = 40  # more, for what the shortest of them takes to compile

ModelSource = str | Endpoint  # a catalogue name, `hf:org/repo`, the absolute path of a file or folder; or elsewhere


@dataclass(frozen=True, slots=True)
class Generation:
    """How an answer is drafted."""

    model: str
    system: str  # who the model is told to be; empty when it is told nothing
    prompt: Template  # what it is asked: reads question, history, passages and vars
    sampling: SamplingParams
    unknown: str  # the answer where retrieval finds nothing
    history: int = 6  # how many of the last messages the model sees
    ahead: bool = False  # searched and drafted while the input rails judge
    cite: Cite = "when_possible"  # whether what is said needs a passage behind it
    redraft: bool = False  # where it does and has none, a second draft is made
    left_out: str = ""  # what is said behind an answer of which something was left out
    adapter: str = ""  # of the model: a name of the catalogue, or the absolute path of a folder; empty: none


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a test expects of a reply; what is None is not looked at."""

    action: Action | None = None
    by: str | None = None  # stage/id
    reason: Reason | None = None
    text: str | None = None  # the reply's, or the question's as the rails left it
    leaked: tuple[str, ...] = ()  # none of these leaves; nor, where it was masked, reaches the model that answers
    model_calls: int | None = None  # at most
    stage: Judge | None = None  # where a rail or a flow decided
    citations: int | None = None  # how many the reply has


@dataclass(frozen=True, slots=True)
class Said:
    """What the user says in a turn of a test, and what must come of it."""

    text: str
    expect: Expectation


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """A conversation, what the models are made to answer, and what must come of it."""

    messages: tuple[Message, ...]  # the last one asks
    expect: Expectation
    place: Place
    model: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # answers, by the policy's names of models
    passages: tuple[str, ...] | None = None  # what retrieval finds; None: it is left out
    fail: Mapping[str, Failure] = field(default_factory=dict)  # by stage/id, or dialog/flow
    actions: Mapping[str, Value] = field(default_factory=dict)  # what they return, by import path
    call: ToolCall | None = None  # judged alone, or with its result
    result: str | None = None
    confirmed: bool = False  # whether the user has confirmed the call
    before: tuple[Said, ...] = ()  # the turns that come before, each with what is expected of it
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
    budget: Budget = field(default_factory=Budget)
    stream: Streaming | None = None  # None: what a judge must be asked about again waits to the end
    vars: Mapping[str, Variable] = field(default_factory=dict)
    dialog: Dialog | None = None
    tools: Tools | None = None  # None: no tool may be called
    tests: tuple[PolicyTest, ...] = ()
    trace: Literal["hashed", "full"] = "hashed"  # whether traces hold the texts too
    digest: str = ""  # changes with all that the policy says, with its includes and what it extends

    @property
    def drafts(self) -> str:
        """What answers, as records name it: the model's source, and its adapter."""
        source, adapter = str(self.models[self.generation.model]), self.generation.adapter
        return f"{source}+{adapter}" if adapter else source

    def bind(self, turn: Turn) -> Turn:
        """The turn with all its variables: those that it gives, else as flows have set them, else their defaults.

        Raises ValueError for a given one that does not fit. What the conversation's state holds of other flows is left.
        """
        for name, value in turn.vars.items():
            if name not in self.vars:
                raise ValueError(f"{name!r} is not a variable of policy {self.name!r}{nearest(name, self.vars)}")
            if mistake := self.vars[name].mistake(value):
                raise ValueError(f"variable {name!r}: {mistake}")
        if turn.vars is NOTHING and not self.vars and not self.dialog:
            return turn
        defaults = {name: v.default for name, v in self.vars.items() if v.default is not None}
        kept = self.dialog.kept(turn.state.vars) if self.dialog else {}
        return replace(turn, vars=MappingProxyType({**defaults, **kept, **turn.vars}))

    def refusal(self, verdict: Verdict, turn: Turn) -> str:
        """The words for a block: the flow's or the rail's own where it judged, else the reason's, else the default."""
        if verdict.stage == "dialog" and verdict.reason == "policy":
            return turn.said
        key = self.refusal_key(verdict)
        if verdict.by == "tools/confirm" and key == "default":
            return CONFIRM
        template = self.refuse[key]
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
        except TemplateFailed:  # a refusal whose variable is missing still refuses
            return REFUSAL

    def refusal_key(self, verdict: Verdict) -> str:
        """Which of the policy's words of refusal are said for a block."""
        judged = [verdict.by, verdict.rail] if verdict.reason == "policy" else []
        keys = [*judged, verdict.reason or "policy", "default"]
        return next(key for key in keys if key in self.refuse)


def load_policy(path_or_name: str | Path) -> Policy:
    """The policy of a file, of a folder's `policy.yaml`, or of a shipped name such as `default`.

    Raises PolicyError, with a line for each mistake that was found; `place` is the first one's.
    """
    file = find_policy(path_or_name)
    root = read_policy(file)
    problems = Problems(str(file))
    _check_templates(root)
    _check_values(root, problems)
    keys = read_keys(PolicyKeys, root, "a policy", problems)
    scope = Scope(
        models={"chat": CHAT} | {name: _model_source(node) for name, node in _under(root, "models").items()},
        vars=frozenset(_under(root, "vars")) | saved_names(root.keys.get("dialog")),
        defaults=keys.defaults if keys else DefaultKeys(),
    )
    rails: dict[Stage, tuple[RailUse, ...]] = {
        stage: tuple(read_rails(stage, root.keys.get(stage), scope, problems)) for stage in STAGES if stage != "tools"
    }
    tools, rails["tools"] = read_tools(root.keys["tools"], scope, problems) if "tools" in root.keys else (None, ())
    if keys is None:
        problems.check()
    assert keys is not None

    # As they are written, so that what names a rail that cannot be read is no second mistake.
    names = [f"{stage}/{written_id(node)}" for stage in STAGES for node in entries(root.keys.get(stage))]
    if "tools" in root.keys:
        names += [f"tools/{name}" for name in DECIDED]
    _check_models(root, scope, problems)
    variables = _variables(keys, root, problems)
    dialog = None
    if "dialog" in root.keys:
        dialog = read_dialog(root.keys["dialog"], scope, variables, _prompt_names(scope), problems)
        names += [f"dialog/{name}" for name in (dialog.flows if dialog else ())]
    cites = (CITED,) if keys.generation.cite.mode == "required" else ()
    policy = Policy(
        name=keys.name or (file.resolve().parent.name if file.name == "policy.yaml" else file.stem),
        file=file,
        models=scope.models,
        generation=_generation(keys, root, scope, problems),
        rails=rails,
        refuse=_refuse(root, names, scope, problems),
        knowledge=read_knowledge(keys.knowledge, root.keys["knowledge"], _filter_names(scope), scope.models, problems)
        if keys.knowledge
        else None,
        budget=Budget(**keys.budget.model_dump()) if keys.budget else Budget(),
        stream=Streaming(**keys.output.stream.model_dump()) if keys.output and keys.output.stream else None,
        vars=variables,
        dialog=dialog,
        tools=tools,
        tests=tuple(
            _test(test, root.at(["tests", i]), names, dialog.actions if dialog else (), scope, problems, cites)
            for i, test in enumerate(keys.tests)
        ),
        trace=keys.trace,
        digest=digest(json.dumps(root.plain(), sort_keys=True)),
    )
    problems.check()
    return policy


def _under(root: Node, key: str) -> dict[str, Node]:
    return root.keys[key].keys if key in root.keys else {}


def _check_templates(root: Node) -> None:
    """Raise PolicyError where all templates and conditions, aliases written out, are too long to be compiled."""
    total, stack = 0, [("", root)]
    while stack:
        key, node = stack.pop()
        stack += [*node.keys.items(), *((key, item) for item in node.items)]
        if isinstance(node.value, str) and ("{" in node.value or key in ("when", "if", "require")):
            total += len(node.value) + TEMPLATE
        if total > MAX_TEMPLATES:
            raise PolicyError(f"templates and conditions of more than {MAX_TEMPLATES} characters together", node.place)


def _check_values(root: Node, problems: Problems) -> None:
    """A key without a value says nothing. What is inside a rail, its own schema decides."""
    for key, node in root.keys.items():
        for name, child in [(key, node), *((f"{key}.{k}", n) for k, n in node.keys.items())]:
            if child.value is None and key in PolicyKeys.model_fields:
                problems.add(f"{name!r} has no value", child.key)


def _model_source(node: Node) -> ModelSource:
    """What a model's source says; a path is made absolute, since it is relative to the file that says it."""
    if node.keys:
        written = {key: str(child.value) for key, child in node.keys.items()}
        return Endpoint(written.get("openai", ""), written.get("model", ""), written.get("key_env", ""))
    source = str(node.value)
    if source.startswith("hf:") or not ("/" in source or source.endswith(".gguf")):
        return source
    try:
        return str((Path(node.place.file).parent / Path(source).expanduser()).resolve())
    except (OSError, ValueError, RuntimeError):  # nobody's home, a NUL, links in a circle; told by _check_models
        return source


def _check_models(root: Node, scope: Scope, problems: Problems) -> None:
    # Imported when a policy is read, since the rest of the engine does without the catalogue.
    from trackbed.llm.catalogue import CATALOGUE, HUB_NAME

    for name, source in scope.models.items():
        if problems.many:
            return
        place = root.at(["models", name]).place
        if isinstance(source, Endpoint):
            continue
        if source.startswith("hf:"):
            if not HUB_NAME.fullmatch(source):
                problems.add(f"{source!r} is not of the form hf:org/repo", place)
        elif "/" in source and not Path(source).is_absolute():
            problems.add(f"{source!r} cannot be the path of a file or folder", place)
        elif "/" not in source and source not in CATALOGUE:
            problems.add(f"{source!r} is not a model of the catalogue{nearest(source, CATALOGUE)}", place)
        elif "/" not in source and CATALOGUE[source].kind == "adapter":
            problems.add(f"{source!r} is an adapter, and no model; name it under 'generation.adapter'", place)


def _variables(keys: PolicyKeys, root: Node, problems: Problems) -> dict[str, Variable]:
    found = {}
    for name, written in keys.vars.items():
        node, variable = root.at(["vars", name]), Variable(written.type, written.pattern, written.default)
        if mistake := _pattern_mistake(written, problems.patterns):
            problems.add(mistake, node.at(["pattern"]).place)
        elif written.default is not None and (mistake := variable.mistake(written.default)):
            problems.add(f"the default of {name!r}: {mistake}", node.at(["default"]).place)
        found[name] = variable
    return found


def _pattern_mistake(written: VariableKeys, patterns: PatternBudget) -> str:
    """Why a variable's pattern cannot be used; empty when it can, or there is none."""
    if written.pattern is None:
        return ""
    if written.type != "string":
        return f"a pattern is for strings, not for type {written.type}"
    try:
        patterns.compile(written.pattern)
    except ValueError as error:
        return str(error)
    return ""


def _generation(keys: PolicyKeys, root: Node, scope: Scope, problems: Problems) -> Generation:
    written, node = keys.generation, root.at(["generation"])
    _find(written.model, scope.models, "one of the models", node.at(["model"]).place, problems)
    file = POLICIES / "prompts" / "answer.j2"
    source, place = written.prompt, node.at(["prompt"]).text
    if source is None:
        source, place = file.read_text("utf-8"), Place(str(file), 1, 1)
    sampling = SamplingParams(**written.sampling.model_dump(exclude={"stop"}), stop=tuple(written.sampling.stop))
    prompt = _template(source, place, _prompt_names(scope), problems)
    adapter = _adapter(written.adapter, scope.models.get(written.model), node.at(["adapter"]), problems)
    return Generation(
        model=written.model,
        system=written.system,
        prompt=prompt,
        sampling=sampling,
        unknown=written.unknown,
        history=written.history,
        ahead=written.ahead,
        cite=written.cite.mode,
        redraft=written.cite.then == "regenerate",
        left_out=written.cite.left_out,
        adapter=adapter,
    )


def _adapter(name: str | None, model: ModelSource | None, node: Node, problems: Problems) -> str:
    """An adapter that is there and made for this model, as far as the catalogue knows; empty where none is named."""
    from trackbed.llm.catalogue import CATALOGUE, Shipped

    if name in (None, "none"):  # none: without the one of the policy that is extended
        return ""
    if isinstance(model, Endpoint):
        problems.add("an endpoint takes no adapter; serve the adapted model there, or say 'adapter: none'", node.key)
        return ""
    found = _model_source(node)
    if not isinstance(found, str) or "/" in found:
        folder = Path(str(found))
        if not any((folder / file).is_file() for file in ("adapter.json", "adapter_config.json")):
            problems.add(
                f"{name!r} is no folder of an adapter: it needs adapter.json, or peft's adapter_config.json", node.place
            )
        return str(found)
    known = {entry.name: entry.source for entry in CATALOGUE.values() if entry.kind == "adapter"}
    if name not in known:
        problems.add(f"{name!r} is not an adapter of the catalogue{nearest(name, known)}", node.place)
        return ""
    source = known[name]
    bases = source.bases if isinstance(source, Shipped) else ()
    if bases and model in CATALOGUE and model not in bases:
        problems.add(
            f"adapter {name!r} is made for {bases[0]}, and {model} answers; name another one, or say 'adapter: none'",
            node.place,
        )
    return name


def _filter_names(scope: Scope) -> Names:
    """What a filter on passages may read."""
    return {"vars": Shape(scope.vars), "question": Shape()}


def _prompt_names(scope: Scope) -> Names:
    """What a prompt may read."""
    return {
        "vars": Shape(scope.vars),
        "question": Shape(),
        "history": Shape(items=frozenset({"role", "content"})),
        "passages": Shape(items=frozenset({"n", "text", "source", "heading"})),
    }


def _refuse(root: Node, rails: Sequence[str], scope: Scope, problems: Problems) -> dict[str, Template]:
    known = [*REASONS, *dict.fromkeys(name.partition("/")[2] for name in rails), *rails]
    names = {"vars": Shape(scope.vars), "verdict": Shape(frozenset(VERDICT))}
    found = {"default": compile_template(REFUSAL, root.place, names)}
    for key, node in _under(root, "refuse").items():
        _find(key, known, "a rail or a reason", node.key, problems)
        if problems.many:
            break
        found[key] = _template(str(node.value), node.text, names, problems)
    return found


def _template(source: str, place: Place, names: Names, problems: Problems) -> Template:
    """The template, or an empty one where it cannot be read and `problems` say why."""
    with problems.caught():
        return compile_template(source, place, names)
    return compile_template("", place, names)


def _test(
    written: TestKeys,
    node: Node,
    rails: Sequence[str],
    actions: Sequence[str],
    scope: Scope,
    problems: Problems,
    cites: Sequence[str],
) -> PolicyTest:
    for key, known, called in (
        ("actions", actions, "an action of the dialog"),
        ("model", scope.models, "one of the models"),
        ("fail", rails, "a rail"),
        ("vars", scope.vars, "a variable"),
    ):
        for name, child in _under(node, key).items():
            _find(name, known, called, child.key, problems)
    call = _call(written, node, problems)
    judges = (*rails, *cites)
    *turns, said = written.turns or [SaidKeys(user=written.user or "")]
    asked = written.messages or ([{"user": said.user}] if call is None else [_shown(call, written)])
    *earlier, last = (Message(role, text) for message in asked for role, text in message.items())
    return PolicyTest(
        messages=(*earlier, replace(last, content=last.content * written.repeat)),
        expect=_expectation(written.expect, node, judges, problems),
        place=node.place,
        model={name: tuple(answers) for name, answers in written.model.items()},
        passages=None if written.passages is None else tuple(written.passages),
        fail=written.fail,
        actions=written.actions,
        before=tuple(
            Said(turn.user, _expectation(turn.expect, node.at(["turns", i]), judges, problems))
            for i, turn in enumerate(turns)
        ),
        vars=written.vars,
        call=call,
        result=written.result.text if written.result else None,
        confirmed=bool(written.call and written.call.confirmed),
    )


def _call(written: TestKeys, node: Node, problems: Problems) -> ToolCall | None:
    """The call that a test has judged, or whose result."""
    try:
        if written.call:
            return ToolCall(written.call.name, written.call.args)
    except ValueError as error:
        problems.add(str(error), node.at(["call", "args"]).place)
    named = written.call or written.result
    return ToolCall(named.name) if named else None


def _shown(call: ToolCall, written: TestKeys) -> dict[Role, str]:
    """A call or a result as a message, for reports."""
    return {"tool": written.result.text} if written.result else {"assistant": f"{call.name} {call.text}"}


def _expectation(keys: ExpectKeys | None, node: Node, rails: Sequence[str], problems: Problems) -> Expectation:
    if keys is None:
        return Expectation()
    if keys.by is not None:
        _find(keys.by, rails, "a rail", node.at(["expect", "by"]).place, problems)
    return Expectation(**keys.model_dump(exclude={"leaked"}), leaked=tuple(keys.leaked or ()))


def _find(name: str, known: Collection[str], called: str, place: Place, problems: Problems) -> None:
    """Note where a name is none of the known ones."""
    if name not in known and not problems.many:
        problems.add(f"{name!r} is not {called}{nearest(name, known)}", place)
