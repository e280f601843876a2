"""One turn of a policy's dialog: `run_flow` resumes the flow that waits, or begins the one that the question asks for.

It knows steps, variables and the state of a conversation. It knows nothing of retrieval, prompts or the words that
a model makes: it says when it is their turn.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from time import perf_counter
from types import MappingProxyType
from typing import Any, Literal

from trackbed.rails.budget import METER, Meter
from trackbed.rails.dialog import Dialog, Flow
from trackbed.rails.errors import RailFailed
from trackbed.rails.filling import Filled, fill
from trackbed.rails.intents import Guess, Intents
from trackbed.rails.state import MAX_FLOWS
from trackbed.rails.steps import Ask, Branch, Call, Generate, Jump, Refuse, Say, Set, Stop
from trackbed.rails.template import Template
from trackbed.rails.types import Cursor, Reason, Scripted, Span, State, Trace, Turn, Value, Verdict

MAX_RUN = 100  # steps that one turn runs, whatever its flows say
MAX_KEPT = 4096  # characters of all variables that flows set, so that a state stays small

# What an action returned, as the rails leave it, and what they came to.
JudgeResult = Callable[[Turn, str], Awaitable[tuple[str, Verdict]]]


async def run_flow(dialog: Dialog, intents: Intents, judge: JudgeResult, turn: Turn, trace: Trace) -> Scripted:
    """What the dialog makes of a turn that the input rails have passed. Whatever goes wrong refuses the turn."""
    started = perf_counter()
    run = _Run(dialog, judge, turn)
    error = ""
    meter = Meter(turn=METER.get())
    counting = METER.set(meter)
    try:
        scripted = await run.turned(intents)
    except Exception as failure:  # noqa: BLE001 - actions and models are anyone's, and whatever they raise is doubt
        error = type(failure).__name__
        reason: Reason = "timeout" if isinstance(failure, TimeoutError) else "error"
        verdict = Verdict.block(reason=reason).named("dialog", run.name)
        scripted = Scripted(replace(turn, state=run.failed()), "refuse", verdict)
    finally:
        METER.reset(counting)
    notes: dict[str, Any] = {"steps": run.paths}
    if run.guess:
        notes |= asdict(run.guess)
    if run.forgotten:
        notes["forgotten"] = run.forgotten
    spent = 1000 * (perf_counter() - started)
    trace.add(
        Span(
            stage="dialog",
            name=run.name,
            milliseconds=spent,
            verdict=scripted.verdict,
            error=error,
            usage=meter.usage,
            calls=meter.calls,
            notes=notes,
            ended=perf_counter(),
        )
    )
    return scripted


class _Run:
    """A walk through the flows of a dialog, for one turn."""

    def __init__(self, dialog: Dialog, judge: JudgeResult, turn: Turn) -> None:
        self.dialog = dialog
        self.judge = judge
        self.asked = turn
        self.vars: dict[str, Any] = dict(turn.vars)  # Any: JSON values, which the policy has looked at
        self.kept = dialog.kept(turn.state.vars)
        self.waiting = [cursor for cursor in turn.state.flows if dialog.waits(cursor)]
        # A question that the policy no longer asks has no answer: its flow is over.
        self.forgotten = [f"{c.flow}/{c.ask}" for c in turn.state.flows if not dialog.waits(c)]
        self.resumed: Cursor | None = None
        self.guess: Guess | None = None
        self.name = "classify"  # or the flow's, once there is one
        self.said: list[str] = []
        self.paths: list[str] = []  # of the steps that were run
        self.count = 0

    async def turned(self, intents: Intents) -> Scripted:
        """The turn, from the question to what is made of it."""
        question, cursor = self.asked.question, self.waiting[-1] if self.waiting else None
        value: Value | None = None
        if cursor:
            number, ask = self._ask(cursor)
            value = ask.variable.read(question)
            if value is not None and not ask.variable.open:
                return await self._resume(cursor, number + 1, ask, value)
        self.guess = await intents.classify(question)
        intent = self.guess.intent
        if intent is not None and (cursor is None or intent != cursor.flow):
            # An intent without a flow is a question for the model, asked in the middle of something else.
            flow = self.dialog.flows.get(intent)
            return await self._begin(flow) if flow else self._end("answer")
        if cursor is None:
            return self._end("answer")
        if value is not None and intent is None:
            return await self._resume(cursor, number + 1, ask, value)
        return self._again(cursor, ask)

    def failed(self) -> State:
        """The state after a failure: as it was, so that the answer can be given again, but not for ever."""
        before = self.asked.state
        if self.resumed is None:
            return before
        _, ask = self._ask(self.resumed)
        others = tuple(cursor for cursor in before.flows if cursor != self.resumed)
        again = replace(self.resumed, asked=self.resumed.asked + 1)
        return replace(before, flows=(*others, again) if again.asked <= ask.times else others)

    async def _begin(self, flow: Flow) -> Scripted:
        """The first steps of a flow; one that waits already asks its question again."""
        self.name = flow.name
        if cursor := next((c for c in self.waiting if c.flow == flow.name), None):
            self.waiting.remove(cursor)
            self.waiting.append(cursor)
            return self._remind()
        return await self._walk(flow, 0)

    async def _resume(self, cursor: Cursor, number: int, ask: Ask, value: Value) -> Scripted:
        self.name, self.resumed = cursor.flow, cursor
        self.waiting.remove(cursor)
        self._store(ask.var, value)
        return await self._walk(self.dialog.flows[cursor.flow], number)

    def _again(self, cursor: Cursor, ask: Ask) -> Scripted:
        """Ask once more, or end the flow when that was often enough."""
        self.name = cursor.flow
        self.waiting.remove(cursor)
        if cursor.asked < ask.times:
            self.waiting.append(replace(cursor, asked=cursor.asked + 1))
            self._say(ask.again)
            return self._end("reply")
        self._say(ask.otherwise)
        return self._remind()

    async def _walk(self, flow: Flow, number: int) -> Scripted:
        """Run the steps from a number on, until one ends the turn or the flow."""
        while number < len(flow.steps):
            step = flow.steps[number]
            self.count += 1
            if self.count > MAX_RUN:
                raise RailFailed(f"more than {MAX_RUN} steps in one turn")
            if step.path:
                self.paths.append(step.path)
            number += 1
            match step.act:
                case Say(words):
                    self._say(words)
                case Set(values):
                    for name, written in values.items():
                        self._store(name, self._fill(written))
                case Call() as call:
                    verdict = await self._call(call)
                    if verdict.action == "block":
                        self.said.clear()  # what a rail refuses, the policy's words of refusal answer
                        return self._end("refuse", verdict)
                case Branch(condition, otherwise):
                    if not condition.holds(**self._names()):
                        number = otherwise
                case Jump(target, None):
                    number = target
                case Jump(target, str(name)):
                    flow, number, self.name = self.dialog.flows[name], target, name
                case Ask() as ask:
                    self._wait(Cursor(flow.name, ask.key))
                    self._say(ask.words)
                    return self._end("reply")
                case Generate():
                    return self._end("answer", step=step.path)
                case Refuse(words):
                    self._say(words)
                    return self._end("refuse", Verdict.block().named("dialog", self.name))
                case Stop():
                    break
        return self._remind() if self.said else self._end("answer")

    async def _call(self, call: Call) -> Verdict:
        """Run an action, and keep what it returns once the rails have seen it."""
        arguments = {name: self._fill(written) for name, written in call.arguments.items()}
        result = await call.action.run(arguments, call.timeout)
        if call.save is None:
            return Verdict.allow()
        if isinstance(result, str):
            result, verdict = await self.judge(self.asked, result)
            if verdict.action == "block":
                return verdict
        self._store(call.save, result)
        return Verdict.allow()

    def _remind(self) -> Scripted:
        """Say again what a flow waits for, so that the user knows where they were."""
        if self.waiting:
            self._say(self._ask(self.waiting[-1])[1].words)
        return self._end("reply")

    def _wait(self, cursor: Cursor) -> None:
        self.waiting = [*[c for c in self.waiting if c.flow != cursor.flow][1 - MAX_FLOWS :], cursor]

    def _ask(self, cursor: Cursor) -> tuple[int, Ask]:
        found = self.dialog.waits(cursor)
        assert found is not None
        return found

    def _names(self) -> Mapping[str, object]:
        return {"vars": self.vars, "question": self.asked.question}

    def _say(self, words: Template) -> None:
        if said := words.render(**self._names()).strip():
            self.said.append(said)

    def _fill(self, written: Filled) -> Value:
        """A value, filled in. Raises TemplateFailed where a variable is missing."""
        return fill(written, **self._names())

    def _store(self, name: str, value: object) -> None:
        """Give a variable its value; words become what its type says. Raises RailFailed where they do not."""
        variable = self.dialog.vars.get(name)
        if variable and variable.type != "string" and isinstance(value, str):
            read = variable.read(value)
            value = value if read is None else read
        if not isinstance(value, str | int | float | bool) or not self.dialog.fits(name, value):
            raise RailFailed(f"a value does not fit variable {name!r}")
        self.vars[name] = self.kept[name] = value
        if sum(len(key) + len(str(one)) for key, one in self.kept.items()) > MAX_KEPT:
            raise RailFailed(f"variables of more than {MAX_KEPT} characters")

    def _end(
        self, then: Literal["answer", "reply", "refuse"], verdict: Verdict | None = None, step: str = ""
    ) -> Scripted:
        state = replace(self.asked.state, vars=self.kept, flows=tuple(self.waiting))
        turn = replace(
            self.asked, said="\n\n".join(self.said), step=step, vars=MappingProxyType(self.vars), state=state
        )
        return Scripted(turn, then, verdict or Verdict.allow())
