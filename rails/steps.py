"""The steps of a flow as a policy writes them, read into a straight list in which `if` and `goto` are jumps.

Every name in a step is checked when it is read. This file knows what a step says; doing it is `flows.py`'s work.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from trackbed.rails.action import Action, find_action
from trackbed.rails.errors import Place
from trackbed.rails.filling import Filled, to_fill
from trackbed.rails.language import IMPORT_PATH, MAX_STEPS, Duration, Keys, Steps, Word
from trackbed.rails.problems import Problems, read_keys
from trackbed.rails.source import Node
from trackbed.rails.template import (
    Condition,
    Names,
    Shape,
    Template,
    compile_condition,
    compile_template,
    nearest,
)
from trackbed.rails.types import Value
from trackbed.rails.variable import MAX_TEXT, Variable


@dataclass(frozen=True, slots=True)
class Say:
    """Words of the policy's own."""

    words: Template


@dataclass(frozen=True, slots=True)
class Ask:
    """A question, whose answer the next turn brings."""

    key: str  # what a state calls it: the variable, with a number where the flow asks for it again
    var: str
    variable: Variable
    words: Template
    again: Template  # when an answer does not fit
    times: int  # how often it is asked at most
    otherwise: Template  # when no answer did


@dataclass(frozen=True, slots=True)
class Set:
    """Variables that take a value."""

    values: Mapping[str, Filled]


@dataclass(frozen=True, slots=True)
class Call:
    """An action that is run, and the variable that takes what it returns."""

    action: Action
    arguments: Mapping[str, Filled]
    save: str | None
    timeout: float  # seconds


@dataclass(frozen=True, slots=True)
class Branch:
    """The next step, where the condition holds; else that of the number `otherwise`."""

    condition: Condition
    otherwise: int


@dataclass(frozen=True, slots=True)
class Jump:
    """On to the step of that number, of another flow where one is named."""

    number: int
    flow: str | None = None


@dataclass(frozen=True, slots=True)
class Generate:
    """The flow is over and a model answers, asked by this prompt or by the policy's own."""

    prompt: Template | None


@dataclass(frozen=True, slots=True)
class Refuse:
    """The turn is refused with these words."""

    words: Template


@dataclass(frozen=True, slots=True)
class Stop:
    """The flow is over."""


Act = Say | Ask | Set | Call | Branch | Jump | Generate | Refuse | Stop


@dataclass(frozen=True, slots=True)
class Step:
    """One step, and where it is written."""

    act: Act
    path: str  # what traces and reports call it: refund.do[2].then[0]; empty for a jump that nobody wrote
    place: Place


@dataclass(frozen=True, slots=True)
class Grounds:
    """What the steps of a policy may name."""

    vars: Mapping[str, Variable]  # that `vars` declares
    known: frozenset[str]  # those, and what `save` makes
    prompt: Names  # what a prompt may read
    flows: frozenset[str]
    timeout: float  # of an action that has none of its own

    @property
    def names(self) -> Names:
        """What words and conditions may read."""
        return {"vars": Shape(self.known), "question": Shape()}


Filling = dict[Word, str | bool | int | float]


class SayStep(Keys):
    """Words of the policy's own, a Jinja2 template over vars and question."""

    called: ClassVar[str] = "the step 'say'"
    say: str = Field(min_length=1)
    """What is said."""


class AskKeys(Keys):
    """A question, whose answer goes into a variable."""

    called: ClassVar[str] = "'ask'"
    var: Word
    """The variable, one of `vars`; its type and pattern say what fits."""
    say: str = Field(min_length=1)
    """The question."""
    again: str | None = Field(None, min_length=1)
    """The question after an answer that does not fit; the same again unless given."""
    times: int = Field(3, ge=1, le=10)
    """How often it is asked at most."""
    otherwise: str = Field("Let's leave that.", min_length=1)
    """What is said when no answer fitted; the flow is over then."""


class AskStep(Keys):
    """Ask, and go on when the answer fits."""

    called: ClassVar[str] = "the step 'ask'"
    ask: AskKeys
    """What is asked, and the variable that takes the answer."""


class SetStep(Keys):
    """Give variables a value."""

    called: ClassVar[str] = "the step 'set'"
    set: Filling = Field(min_length=1)
    """Values by variable; a text is a template, and one that is a single {{ expression }} keeps its type."""


class CallKeys(Keys):
    """An action: anyone's function, plain or async."""

    called: ClassVar[str] = "'call'"
    action: str = Field(pattern=f"^{IMPORT_PATH}$", max_length=200)
    """The function's import path, package.module:function."""
    args: Filling = Field({})
    """Arguments by name; a text is a template, and one that is a single {{ expression }} keeps its type."""
    save: Word | None = None
    """The variable that takes what it returns: a text, a number or a boolean."""
    timeout: Duration | None = None
    """How long it may take: 800ms, 2s."""


class CallStep(Keys):
    """Run an action."""

    called: ClassVar[str] = "the step 'call'"
    call: CallKeys
    """What is called."""


class IfStep(Keys):
    """Choose between steps."""

    called: ClassVar[str] = "the step 'if'"
    condition: str = Field(alias="if", min_length=1)
    """A condition over vars and question, such as vars.status == 'open'."""
    then: Steps
    """The steps where it is true."""
    otherwise: Steps | None = Field(None, alias="else")
    """The steps where it is not."""


class PromptKeys(Keys):
    """How the model is asked."""

    called: ClassVar[str] = "'generate'"
    prompt: str | None = Field(None, min_length=1)
    """A Jinja2 template over question, history, passages and vars; the policy's own prompt unless given."""


class GenerateStep(Keys):
    """Let the model answer; the flow is over."""

    called: ClassVar[str] = "the step 'generate'"
    generate: PromptKeys
    """With which prompt."""


class RefuseStep(Keys):
    """Refuse the turn; the flow is over."""

    called: ClassVar[str] = "the step 'refuse'"
    refuse: str = Field(min_length=1)
    """The words of refusal, a Jinja2 template over vars and question."""


class GotoStep(Keys):
    """Go on at a label of this flow, or at the beginning of a flow."""

    called: ClassVar[str] = "the step 'goto'"
    goto: str = Field(min_length=1)
    """The label's or the flow's name."""


class LabelStep(Keys):
    """A place in this flow that `goto` can name."""

    called: ClassVar[str] = "the step 'label'"
    label: Word
    """Its name."""


class StopStep(Keys):
    """End the flow."""

    called: ClassVar[str] = "the step 'stop'"
    stop: Annotated[Literal[True], BeforeValidator(lambda value: _only_true(value))]
    """true, or the word `stop` as the whole step."""


STEPS: Mapping[str, type[Keys]] = {
    "say": SayStep,
    "ask": AskStep,
    "set": SetStep,
    "call": CallStep,
    "if": IfStep,
    "generate": GenerateStep,
    "refuse": RefuseStep,
    "goto": GotoStep,
    "label": LabelStep,
    "stop": StopStep,
}
BARE: Mapping[str, Value | dict[str, Node]] = {"stop": True, "generate": {}}  # a word that is a whole step


def read_steps(name: str, node: Node, grounds: Grounds, problems: Problems) -> tuple[Step, ...]:
    """The steps of a flow; those that cannot be read are left out, and `problems` say why."""
    reader = _Reader(grounds, problems)
    reader.read(node, f"{name}.do")
    reader.resolve()
    return tuple(step for step in reader.steps if step is not None)


def kind(node: Node) -> str | None:
    """The kind of step that a node is written as; None where it is none, or several."""
    if isinstance(node.value, str):
        return node.value if node.value in BARE else None
    found = [key for key in node.keys if key in STEPS]
    return found[0] if len(found) == 1 else None


def saved(steps: Node) -> Iterator[str]:
    """The variables that actions of these steps are saved in, whether the steps can be read or not."""
    for node in steps.items:
        name = node.at(["call", "save"]).value
        if "call" in node.keys and "save" in node.keys["call"].keys and isinstance(name, str):
            yield name
        for branch in ("then", "else"):
            if branch in node.keys:
                yield from saved(node.keys[branch])


def _only_true(value: object) -> object:
    if value is not True:
        raise ValueError("'stop' is true, or the whole step is the word stop")
    return value


class _Reader:
    """Reads the steps of one flow into one list."""

    def __init__(self, grounds: Grounds, problems: Problems) -> None:
        self.grounds = grounds
        self.problems = problems
        self.steps: list[Step | None] = []  # None: a jump whose target is not known yet
        self.labels: dict[str, int] = {}
        self.gotos: list[tuple[int, str, str, Node]] = []  # at which number, to which name
        self.asked: dict[str, int] = {}

    def read(self, node: Node, path: str) -> None:
        """The steps of a list, behind those that were read."""
        for i, step in enumerate(node.items):
            if self.problems.many or len(self.steps) > MAX_STEPS:
                return
            if (found := kind(step)) is None:
                self._unknown(step)
            elif keys := read_keys(STEPS[found], _spelt(step), f"the step {found!r}", self.problems):
                self._add(keys, _spelt(step), f"{path}[{i}]")

    def resolve(self) -> None:
        """Give each `goto` its target."""
        known = [*self.labels, *sorted(self.grounds.flows)]
        for number, name, path, node in self.gotos:
            if name in self.labels:
                jump = Jump(self.labels[name])
            elif name in self.grounds.flows:
                jump = Jump(0, name)
            else:
                self.problems.add(f"{name!r} is not a label of this flow, nor a flow{nearest(name, known)}", node.place)
                jump = Jump(len(self.steps))
            self.steps[number] = Step(jump, path, node.place)

    def _unknown(self, node: Node) -> None:
        found = [key for key in node.keys if key in STEPS]
        if len(found) > 1:
            words = f"a step does one thing, and this one does {len(found)}: {', '.join(found)}"
            self.problems.add(words, node.place)
        elif node.keys:
            key, child = next(iter(node.keys.items()))
            self.problems.add(f"{key!r} is not a step{nearest(key, STEPS)}", child.key)
        else:
            word = node.value if isinstance(node.value, str) else ""
            self.problems.add(f"{node.place.key!r} is no step{nearest(word, STEPS)}", node.place)

    def _add(self, keys: Keys, node: Node, path: str) -> None:
        """One step that fits its keys; what its names and templates lead to is looked at here."""
        match keys:
            case SayStep():
                self._put(Say(self._words(node.at(["say"]))), path, node)
            case AskStep():
                self._ask(keys.ask, node.at(["ask"]), path)
            case SetStep():
                values = {var: child for var, child in node.keys["set"].keys.items() if self._is_var(var, child)}
                self._put(Set({var: self._filled(child, var) for var, child in values.items()}), path, node)
            case CallStep():
                self._call(keys.call, node.at(["call"]), path)
            case IfStep():
                self._if(node, path)
            case GenerateStep():
                prompt = node.at(["generate", "prompt"]) if keys.generate.prompt is not None else None
                self._put(Generate(self._words(prompt, self.grounds.prompt) if prompt else None), path, node)
            case RefuseStep():
                self._put(Refuse(self._words(node.at(["refuse"]))), path, node)
            case GotoStep():
                self.gotos.append((len(self.steps), keys.goto, path, node.at(["goto"])))
                self.steps.append(None)
            case LabelStep():
                self._label(keys.label, node.at(["label"]))
            case StopStep():
                self._put(Stop(), path, node)

    def _put(self, act: Act, path: str, node: Node) -> None:
        self.steps.append(Step(act, path, node.place))

    def _ask(self, keys: AskKeys, node: Node, path: str) -> None:
        variable, place = self.grounds.vars.get(keys.var), node.at(["var"]).place
        if variable is None:
            known = nearest(keys.var, self.grounds.vars)
            self.problems.add(f"{keys.var!r} is not a variable of 'vars'{known}", place)
            return
        count = self.asked[keys.var] = self.asked.get(keys.var, 0) + 1
        words = self._words(node.at(["say"]))
        again = words if keys.again is None else self._words(node.at(["again"]))
        written = node.keys.get("otherwise")
        otherwise = self._words(written) if written else compile_template(keys.otherwise, node.place, {})
        key = keys.var if count == 1 else f"{keys.var}#{count}"
        self._put(Ask(key, keys.var, variable, words, again, keys.times, otherwise), path, node)

    def _call(self, keys: CallKeys, node: Node, path: str) -> None:
        written = node.keys["args"].keys if "args" in node.keys else {}
        arguments = {name: self._filled(child) for name, child in written.items()}
        with self.problems.caught():
            action = find_action(keys.action, arguments, node.at(["action"]).place)
            self._put(Call(action, arguments, keys.save, keys.timeout or self.grounds.timeout), path, node)

    def _if(self, node: Node, path: str) -> None:
        branch = len(self.steps)
        self.steps.append(None)
        self.read(node.keys["then"], f"{path}.then")
        leave = len(self.steps)
        if "else" in node.keys:
            self.steps.append(None)
            self.read(node.keys["else"], f"{path}.else")
            self.steps[leave] = Step(Jump(len(self.steps)), "", node.place)
            leave += 1
        written = node.at(["if"])
        condition = None
        with self.problems.caught():
            condition = compile_condition(str(written.value), written.text, self.grounds.names)
        condition = condition or compile_condition("false", written.place, {})
        self.steps[branch] = Step(Branch(condition, leave), path, node.place)

    def _label(self, name: str, node: Node) -> None:
        if name in self.labels:
            self.problems.add(f"two labels of this flow are called {name!r}", node.place)
        elif name in self.grounds.flows:
            self.problems.add(f"{name!r} is a flow's name; give the label another", node.place)
        self.labels[name] = len(self.steps)

    def _words(self, node: Node, names: Names | None = None) -> Template:
        with self.problems.caught():
            return compile_template(str(node.value), node.text, self.grounds.names if names is None else names)
        return compile_template("", node.place, {})

    def _is_var(self, var: str, node: Node) -> bool:
        if var not in self.grounds.known:
            self.problems.add(f"{var!r} is not a variable{nearest(var, sorted(self.grounds.known))}", node.key)
        return var in self.grounds.known

    def _filled(self, node: Node, var: str | None = None) -> Filled:
        """What stands for a value; a plain one has to fit its variable here and now."""
        value = to_fill(node, self.grounds.names, self.problems)
        if isinstance(value, Template | Condition):
            return value
        variable = self.grounds.vars.get(var) if var else None
        if variable and (mistake := variable.mistake(value)):
            self.problems.add(f"{var!r}: {mistake}", node.place)
        elif isinstance(value, str) and len(value) > MAX_TEXT:
            self.problems.add(f"a value of {len(value)} characters; the limit is {MAX_TEXT}", node.place)
        return value


def _spelt(node: Node) -> Node:
    """The step with its keys, where it is written as a bare word, or as a key without a value."""
    if isinstance(node.value, str) and node.value in BARE:
        return _keyed(node, node.value)
    if len(node.keys) == 1 and (word := next(iter(node.keys))) in BARE and node.keys[word].value is None:
        return _keyed(node, word)
    return node


def _keyed(node: Node, word: str) -> Node:
    value = BARE[word]
    child = Node(value if isinstance(value, bool | dict) else None, node.place, node.key, node.text)
    return Node({word: child}, node.place, node.key, node.text)


def reached(steps: Sequence[Step], start: int = 0) -> set[int]:
    """The numbers of the steps that a walk from `start` can come to; those of other flows are not followed."""
    found: set[int] = set()
    ahead = [start]
    while ahead:
        number = ahead.pop()
        if number in found or number >= len(steps):
            continue
        found.add(number)
        match steps[number].act:
            case Branch(otherwise=otherwise):
                ahead += [number + 1, otherwise]
            case Jump(number=target, flow=None):
                ahead.append(target)
            case Jump() | Generate() | Refuse() | Stop():
                pass
            case _:
                ahead.append(number + 1)
    return found
