"""The dialog of a policy: its intents, and its flows as lists of steps; and what a reviewer would ask about them.

This file knows names and where they lead. It classifies nothing and runs nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from trackbed.rails.errors import Place
from trackbed.rails.language import DialogKeys
from trackbed.rails.problems import Problems, read_keys
from trackbed.rails.source import Node
from trackbed.rails.steps import Ask, Call, Generate, Grounds, Jump, Set, Step, reached, read_steps, saved
from trackbed.rails.template import Names, Template, nearest
from trackbed.rails.types import Cursor, Value
from trackbed.rails.use import Scope
from trackbed.rails.variable import MAX_TEXT, Variable
from trackbed.retrieval.types import Embedder

NONE = "none"  # what a model is to say of a message that has no intent
SAME = 0.98  # the cosine of two texts that mean the same


@dataclass(frozen=True, slots=True)
class Example:
    """A message that has an intent."""

    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Flow:
    """A scripted exchange; its name is its intent's where it has one."""

    name: str
    intent: str | None
    steps: tuple[Step, ...]
    place: Place

    @property
    def asks(self) -> dict[str, int]:
        """The numbers of its questions, by what a state calls them."""
        return {step.act.key: number for number, step in enumerate(self.steps) if isinstance(step.act, Ask)}


@dataclass(frozen=True, slots=True)
class Dialog:
    """The scripted part of a conversation."""

    intents: Mapping[str, tuple[Example, ...]]
    flows: Mapping[str, Flow]  # by name
    place: Place
    threshold: float = 0.6
    model: str | None = None  # asked below the threshold
    timeout: float = 10.0  # seconds that finding the intent may take
    vars: Mapping[str, Variable] = field(default_factory=dict)  # that the policy declares
    asks: Mapping[tuple[str, str], int] = field(default_factory=dict)  # questions by flow and name: the step's number
    writes: frozenset[str] = frozenset()  # the variables that its flows set
    prompts: Mapping[str, Template] = field(default_factory=dict)  # of the steps that bring their own, by path

    @property
    def actions(self) -> tuple[str, ...]:
        """The import paths of the actions that its flows call."""
        acts = [step.act for flow in self.flows.values() for step in flow.steps]
        return tuple(dict.fromkeys(act.action.path for act in acts if isinstance(act, Call)))

    def waits(self, cursor: Cursor) -> tuple[int, Ask] | None:
        """The question that a cursor waits at, and its number; None where this dialog has no such question."""
        number = self.asks.get((cursor.flow, cursor.ask))
        if number is None:
            return None
        act = self.flows[cursor.flow].steps[number].act
        assert isinstance(act, Ask)
        return number, act

    def kept(self, written: Mapping[str, Value]) -> dict[str, Value]:
        """The variables of a state that flows of this dialog can have set, and that still fit."""
        return {name: value for name, value in written.items() if name in self.writes and self.fits(name, value)}

    def fits(self, name: str, value: object) -> bool:
        """Whether a variable may have this value; one that only `save` makes may have any plain one."""
        if not isinstance(value, str | int | float | bool) or len(str(value)) > MAX_TEXT:
            return False
        return name not in self.vars or not self.vars[name].mistake(value)


def saved_names(dialog: Node | None) -> frozenset[str]:
    """The variables that a dialog's actions are saved in, whether it can be read or not."""
    flows = dialog.keys["flows"].items if dialog and "flows" in dialog.keys else []
    return frozenset(name for flow in flows if "do" in flow.keys for name in saved(flow.keys["do"]))


def read_dialog(
    node: Node, scope: Scope, vars: Mapping[str, Variable], prompt: Names, problems: Problems
) -> Dialog | None:
    """The dialog of a policy; None where it cannot be read, and `problems` say why."""
    keys = read_keys(DialogKeys, node, "dialog", problems)
    if keys is None:
        return None
    intents = {
        name: tuple(Example(str(item.value), item.place) for item in child.keys["examples"].items)
        for name, child in (node.keys["intents"].keys if "intents" in node.keys else {}).items()
    }
    if NONE in intents:
        problems.add(f"{NONE!r} is what a message without an intent has; call it something else",
                     node.at(["intents", NONE]).key)  # fmt: skip
    model = None if keys.classify.model == NONE else keys.classify.model
    if model is not None and model not in scope.models:
        place = node.at(["classify", "model"]).place
        problems.add(f"{model!r} is not one of the models{nearest(model, scope.models)}", place)

    names = frozenset(flow.intent or flow.id or "" for flow in keys.flows)
    grounds = Grounds(vars, scope.vars, prompt, names, scope.defaults.timeout)
    flows: dict[str, Flow] = {}
    for i, written in enumerate(keys.flows):
        child = node.at(["flows", i])
        name = child.keys["intent"] if "intent" in child.keys else child.keys["id"]
        if written.intent is not None and written.intent not in intents:
            problems.add(f"{written.intent!r} is not an intent{nearest(written.intent, intents)}", name.place)
        if written.id is not None and written.id in intents:
            problems.add(f"{written.id!r} is an intent; a flow that it begins has it as its 'intent'", name.place)
        if str(name.value) in flows:
            problems.add(f"two flows are called {name.value!r}", name.place)
        if problems.many:
            return None
        steps = read_steps(str(name.value), child.keys["do"], grounds, problems)
        flows[str(name.value)] = Flow(str(name.value), written.intent, steps, child.place)
    return Dialog(
        intents=intents,
        flows=flows,
        place=node.key,
        threshold=keys.classify.threshold,
        model=model,
        timeout=scope.defaults.timeout,
        vars=vars,
        asks={(flow.name, key): number for flow in flows.values() for key, number in flow.asks.items()},
        writes=frozenset(name for flow in flows.values() for step in flow.steps for name in _written(step)),
        prompts={
            step.path: step.act.prompt
            for flow in flows.values()
            for step in flow.steps
            if isinstance(step.act, Generate) and step.act.prompt
        },
    )


def unreachable(dialog: Dialog) -> Iterator[tuple[str, Place]]:
    """The flows that nothing begins, and the steps that no turn comes to."""
    begun: set[str] = set()
    ahead = [flow.name for flow in dialog.flows.values() if flow.intent]
    numbers = {flow.name: reached(flow.steps) for flow in dialog.flows.values()}
    while ahead:
        name = ahead.pop()
        if name not in begun:
            begun.add(name)
            acts = [dialog.flows[name].steps[number].act for number in numbers[name]]
            ahead += [act.flow for act in acts if isinstance(act, Jump) and act.flow]
    for flow in dialog.flows.values():
        if flow.name not in begun:
            yield (
                f"flow {flow.name!r} is never begun: it has no intent, and no 'goto' comes to it; leave it out",
                flow.place,
            )
            continue
        before = True
        for number, step in enumerate(flow.steps):
            now = number in numbers[flow.name] or not step.path
            if before and not now:
                yield f"step {step.path!r} is never reached; leave it out", step.place
            before = now


def colliding(dialog: Dialog, embedder: Embedder | None = None) -> Iterator[tuple[str, Place]]:
    """Examples that stand under two intents, word for word, or in meaning where there is an embedder to tell."""
    examples = [(intent, example) for intent, given in dialog.intents.items() for example in given]
    if not examples:
        return
    vectors = embedder.embed([example.text for _, example in examples]) if embedder else None
    for j, (intent, example) in enumerate(examples):
        for i, (other, earlier) in enumerate(examples[:j]):
            same = _plain(example.text) == _plain(earlier.text)
            near = vectors is not None and float(vectors[i] @ vectors[j]) >= SAME
            if intent != other and (same or near):
                words = "is also" if same else f"means the same as {earlier.text!r},"
                yield (
                    f"example {example.text!r} of intent {intent!r} {words} an example of {other!r}; leave one out",
                    example.place,
                )
                break


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def _written(step: Step) -> Iterator[str]:
    """The variables that a step sets."""
    match step.act:
        case Ask(var=var):
            yield var
        case Set(values=values):
            yield from values
        case Call(save=str(name)):
            yield name
