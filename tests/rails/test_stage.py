"""Order, time, failure and rewriting: what a stage makes of its rails."""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import ScriptedGenerator, staged
from trackbed.llm.types import Message, SamplingParams
from trackbed.rails.budget import METER, Meter, Metered
from trackbed.rails.config import RailConfig
from trackbed.rails.errors import RailFailed
from trackbed.rails.stage import StagedRail, drop, mask, run_stage, waits
from trackbed.rails.trace import digest
from trackbed.rails.types import Finding, Stage, State, Then, Trace, Turn, Verdict
from trackbed.retrieval.types import Passage

REWRITERS = {"mask": mask, "drop": drop}
SECRET = "swordfish"


class Scripted:
    """A rail that does what a test tells it, and remembers what it saw."""

    Config: ClassVar[type[RailConfig]] = RailConfig
    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "retrieval", "output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask", "drop"})

    def __init__(self, judge: Callable[[str], Any], delay: float = 0.0) -> None:
        self.judge = judge
        self.delay = delay
        self.seen: list[str] = []
        self.finished: list[str] = []

    async def check(self, turn: Turn) -> Any:
        self.seen.append(turn.text)
        await asyncio.sleep(self.delay)
        self.finished.append(turn.text)
        return self.judge(turn.text)


def passes(_: str) -> Verdict:
    return Verdict.allow()


def blocks(_: str) -> Verdict:
    return Verdict.block(detail="forbidden")


def finds(word: str, label: str = "WORD") -> Callable[[str], Verdict]:
    def judge(text: str) -> Verdict:
        at = text.find(word)
        return Verdict.block(findings=(Finding(label, at, at + len(word)),)) if at >= 0 else Verdict.allow()

    return judge


def raises(error: BaseException) -> Callable[[str], Verdict]:
    def judge(_: str) -> Verdict:
        raise error

    return judge


async def run(turn: Turn, *rails: StagedRail, stage: Stage = "input") -> tuple[Turn, Verdict, Trace]:
    trace = Trace()
    turn, verdict = await run_stage(stage, rails, turn, trace, REWRITERS)
    return turn, verdict, trace


async def test_a_stage_without_rails_allows() -> None:
    _, verdict, trace = await run(Turn("hello"))
    assert (verdict.action, trace.spans) == ("allow", [])


async def test_the_verdict_names_the_rail_that_blocked() -> None:
    _, verdict, _ = await run(Turn("hello"), staged(Scripted(passes)), staged(Scripted(blocks), id="second"))
    assert (verdict.action, verdict.by, verdict.reason) == ("block", "input/second", "policy")


async def test_a_rail_that_raises_blocks_and_its_words_stay_inside() -> None:
    _, verdict, trace = await run(Turn("hello"), staged(Scripted(raises(ValueError(SECRET)))))
    assert (verdict.action, verdict.reason, trace.spans[0].error) == ("block", "error", "ValueError")
    assert SECRET not in repr(verdict) + repr(trace)


async def test_a_rail_that_times_out_blocks() -> None:
    _, verdict, trace = await run(Turn("hello"), staged(Scripted(passes, delay=30), timeout=0.01))
    assert (verdict.action, verdict.reason, trace.spans[0].error) == ("block", "timeout", "TimeoutError")


async def test_a_rail_that_ignores_its_cancellation_does_not_hold_the_turn() -> None:
    release = asyncio.Event()

    class Stubborn(Scripted):
        async def check(self, turn: Turn) -> Any:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            return Verdict.allow()

    _, verdict, _ = await asyncio.wait_for(run(Turn("hi"), staged(Stubborn(passes), timeout=0.01)), timeout=5)
    release.set()
    assert verdict.reason == "timeout"


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        True,
        "allow",
        {"action": "allow"},
        Verdict("rewrite"),
        Verdict("permit"),  # type: ignore[arg-type]
        Verdict.rewrite("changed"),
        Verdict.block(findings=(Finding("WORD", 3, 99),)),
        Verdict.block(findings=(Finding("WORD", 2, 1),)),
    ],
)
async def test_a_rail_that_answers_nonsense_blocks(nonsense: object) -> None:
    _, verdict, trace = await run(Turn("hello"), staged(Scripted(lambda _: nonsense)))
    assert (verdict.action, verdict.reason, trace.spans[0].error) == ("block", "error", "RailFailed")


@pytest.mark.parametrize("failure", [RailFailed("no"), TimeoutError(), asyncio.CancelledError(), ZeroDivisionError()])
async def test_on_error_allow_lets_the_text_pass_and_leaves_a_span(failure: BaseException) -> None:
    _, verdict, trace = await run(Turn("hello"), staged(Scripted(raises(failure)), on_error="allow"))
    assert verdict.action == "allow"
    assert trace.spans[0].error


async def test_neighbours_that_judge_run_together_and_the_first_block_cancels_the_rest() -> None:
    slow, quick = Scripted(passes, delay=30), Scripted(blocks, delay=0.01)
    _, verdict, _ = await asyncio.wait_for(run(Turn("hello"), staged(slow), staged(quick, id="quick")), timeout=5)
    assert verdict.by == "input/quick"
    assert (slow.seen, slow.finished) == (["hello"], [])


async def test_a_rail_that_rewrites_runs_alone_and_later_rails_see_what_it_left() -> None:
    before, after = Scripted(passes), Scripted(passes)
    masking = staged(Scripted(finds("bond", "NAME")), then="mask")
    turn, verdict, _ = await run(Turn("my name is bond"), staged(before), masking, staged(after))
    assert (before.seen, after.seen) == (["my name is bond"], ["my name is <NAME>"])
    assert (turn.question, verdict.action) == ("my name is <NAME>", "rewrite")


async def test_what_cannot_be_masked_is_blocked() -> None:
    _, verdict, _ = await run(Turn("hello"), staged(Scripted(blocks), then="mask"))
    assert verdict.action == "block"


async def test_an_observing_rail_is_traced_and_never_enforced() -> None:
    turn, verdict, trace = await run(Turn("hello"), staged(Scripted(finds("hello")), mode="observe", then="mask"))
    assert (turn.question, verdict.action) == ("hello", "allow")
    assert trace.spans[0].verdict is not None
    assert (trace.spans[0].verdict.action, trace.spans[0].enforced) == ("block", False)


async def test_a_rail_runs_only_where_its_condition_holds() -> None:
    rail = Scripted(blocks)
    use = staged(rail, when="vars.tier != 'staff'")
    assert (await run(Turn("hi", vars={"tier": "staff"}), use))[1].action == "allow"
    assert (await run(Turn("hi", vars={"tier": "guest"}), use))[1].action == "block"
    assert rail.seen == ["hi"]


async def test_a_condition_that_cannot_be_evaluated_blocks() -> None:
    _, verdict, _ = await run(Turn("hi"), staged(Scripted(passes), when="vars.tier > 3"))
    assert (verdict.action, verdict.reason) == ("block", "error")


async def test_every_unjudged_message_of_the_history_is_judged_whoever_is_said_to_have_written_it() -> None:
    rail = Scripted(passes)
    history = (Message("user", "old"), Message("user", "first"), Message("assistant", "forged"))
    await run(Turn("second", history, judged=1), staged(rail))
    assert rail.seen == ["first", "forged", "second"]


async def test_a_message_of_the_history_is_masked_in_its_place() -> None:
    turn, verdict, _ = await run(
        Turn("hello", (Message("user", "I am bond"),)), staged(Scripted(finds("bond")), then="mask")
    )
    assert (turn.history[0].content, turn.question, verdict.action) == ("I am <WORD>", "hello", "rewrite")


async def test_a_dropped_passage_leaves_the_others() -> None:
    passages = tuple(Passage(text, "page.md", 0, len(text)) for text in ("good", "bad", "fine"))
    turn, verdict, _ = await run(
        Turn("q", passages=passages), staged(Scripted(finds("bad")), stage="retrieval", then="drop"), stage="retrieval"
    )
    assert [p.text for p in turn.passages] == ["good", "fine"]
    assert verdict.action == "rewrite"


async def test_the_trace_is_in_the_policys_order_whatever_the_timing() -> None:
    rails = [staged(Scripted(passes, delay=d), id=f"rail{i}") for i, d in enumerate((0.03, 0.0, 0.01))]
    _, _, trace = await run(Turn("hello"), *rails)
    assert [span.name for span in trace.spans] == ["rail0", "rail1", "rail2"]


async def test_cancelling_a_turn_cancels_its_rails() -> None:
    rails = [Scripted(passes, delay=30), Scripted(passes, delay=30)]
    task = asyncio.ensure_future(run(Turn("hello"), *(staged(r, id=str(i)) for i, r in enumerate(rails))))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert [r.finished for r in rails] == [[], []]


@given(st.text(min_size=1), st.data())
def test_masking_leaves_no_character_of_a_finding_and_all_the_others(text: str, data: st.DataObject) -> None:
    spans = data.draw(st.lists(st.tuples(st.integers(0, len(text)), st.integers(0, len(text))), max_size=5))
    findings = tuple(Finding("L", min(s), max(s)) for s in spans if s[0] != s[1])
    masked = mask(Turn("", text=text), Verdict.block(findings=findings))
    covered = {i for f in findings for i in range(f.start, f.end)}
    kept = "".join(c for i, c in enumerate(text) if i not in covered)
    if not findings:
        assert masked is None
    else:
        assert masked is not None
        assert _without_labels(masked, len(masked) - len(kept)) == kept


def _without_labels(masked: str, surplus: int) -> str:
    """The masked text with as many labels removed as account for the surplus characters."""
    assert surplus % len("<L>") == 0
    return masked.replace("<L>", "", surplus // len("<L>"))


async def test_a_rail_that_never_waits_runs_without_a_task_and_may_spare_the_slow_ones() -> None:
    class Quick(Scripted):
        async def check(self, turn: Turn) -> Any:
            self.seen.append(turn.text)
            return self.judge(turn.text)

    assert (waits(Scripted.check), waits(Quick.check), waits(len)) == (True, False, True)
    slow = Scripted(passes, delay=30)
    _, verdict, _ = await run(Turn("hello"), staged(slow), staged(Quick(blocks), id="quick"))
    assert (verdict.by, slow.seen) == ("input/quick", [])


@pytest.mark.parametrize("kind", ["async with", "async for", "await"])
def test_whatever_can_make_a_check_wait_is_seen(kind: str) -> None:
    async def enters(self: object, turn: Turn) -> Verdict:
        async with asyncio.Lock():
            return Verdict.allow()

    async def iterates(self: object, turn: Turn) -> Verdict:
        async for _ in turn:  # type: ignore[attr-defined]
            pass
        return Verdict.allow()

    async def awaits(self: object, turn: Turn) -> Verdict:
        return await asyncio.sleep(0, Verdict.allow())

    assert waits({"async with": enters, "async for": iterates, "await": awaits}[kind])


class Direct(Scripted):
    """A rail that never waits."""

    async def check(self, turn: Turn) -> Any:
        return self.judge(turn.text)


class Odd(BaseException):
    """What no `except Exception` sees."""


@pytest.mark.parametrize("rail", [Scripted, Direct])
@pytest.mark.parametrize("failure", [Odd(), GeneratorExit(), StopAsyncIteration(), asyncio.CancelledError()])
async def test_whatever_a_rail_raises_blocks(rail: type[Scripted], failure: BaseException) -> None:
    _, verdict, trace = await run(Turn("hello"), staged(rail(raises(failure))))
    assert (verdict.action, verdict.reason) == ("block", "error")
    assert trace.spans[0].error


async def test_a_rail_that_holds_the_event_loop_beyond_its_time_blocks() -> None:
    def hold(_: str) -> Verdict:
        end = perf_counter() + 0.02
        while perf_counter() < end:
            pass
        return Verdict.allow()

    for rail in (Direct(hold), Scripted(hold)):
        _, verdict, _ = await run(Turn("hello"), staged(rail, timeout=0.01))
        assert (verdict.action, verdict.reason) == ("block", "timeout")


async def test_each_rail_has_its_own_time() -> None:
    rails = [
        staged(Scripted(passes, delay=30), id=str(i), timeout=t, on_error="allow") for i, t in enumerate((0.02, 0.01))
    ]
    _, verdict, trace = await run(Turn("hello"), *rails, staged(Scripted(passes, delay=0.03), id="slow"))
    assert verdict.action == "allow"
    assert [span.error for span in trace.spans] == ["TimeoutError", "TimeoutError", ""]


async def test_a_rail_that_answers_after_its_cancellation_changes_nothing() -> None:
    answered = asyncio.Event()

    class Late(Scripted):
        async def check(self, turn: Turn) -> Any:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                answered.set()
            return Verdict.allow()

    _, verdict, trace = await run(Turn("hello"), staged(Late(passes), timeout=0.01))
    await asyncio.wait_for(answered.wait(), timeout=5)
    assert (verdict.reason, len(trace.spans)) == ("timeout", 1)


async def test_model_calls_are_counted_to_the_rail_that_makes_them() -> None:
    model = Metered(ScriptedGenerator("safe and sound"))

    class Asks(Scripted):
        async def check(self, turn: Turn) -> Any:
            await model.generate([Message("user", turn.text)], SamplingParams())
            return Verdict.allow()

    METER.set(turn := Meter())
    _, _, trace = await run(Turn("hello"), staged(Asks(passes), id="a"), staged(Scripted(passes), id="b"))
    assert [span.calls for span in trace.spans] == [1, 0]
    assert (turn.calls, trace.usage.completion_tokens) == (1, 3)


async def test_a_spent_budget_blocks_even_where_errors_may_pass() -> None:
    model = Metered(ScriptedGenerator("safe"))

    class Asks(Scripted):
        async def check(self, turn: Turn) -> Any:
            await model.score([Message("user", turn.text)], [])
            return Verdict.allow()

    METER.set(Meter(limit=1))
    rails = [staged(Asks(passes), id="a"), staged(Asks(passes), id="b", on_error="allow")]
    _, verdict, trace = await run(Turn("hello"), *rails)
    assert (verdict.action, verdict.by, verdict.reason) == ("block", "input/b", "error")
    assert trace.spans[1].error == "BudgetSpent"


class Meddles(Scripted):
    """Changes whatever it is given, by fair means or foul."""

    async def check(self, turn: Turn) -> Any:
        object.__setattr__(turn, "text", "harmless")
        object.__setattr__(turn, "question", "harmless")
        object.__setattr__(turn, "passages", ())
        return Verdict.allow()


@pytest.mark.parametrize("waits", [False, True])
async def test_what_a_rail_does_to_its_turn_nobody_else_sees(waits: bool) -> None:
    class Slow(Meddles):
        async def check(self, turn: Turn) -> Any:
            await asyncio.sleep(0)
            return await super().check(turn)

    after = Scripted(finds("bad"))
    given = Turn("bad", passages=(Passage("p", "a.md", 0, 1),))
    turn, verdict, trace = await run(given, staged((Slow if waits else Meddles)(passes)), staged(after, id="after"))
    assert (turn, given.question, verdict.action) == (given, "bad", "block")
    assert (verdict.by, after.seen) == (("input/after", ["bad"]) if waits else ("input/rail", []))
    assert trace.spans[0].subject == digest("bad")


async def test_a_rail_that_only_observes_changes_nothing_for_the_others() -> None:
    after = Scripted(finds("bad"))
    _, verdict, _ = await run(Turn("bad"), staged(Meddles(passes), mode="observe"), staged(after, id="after"))
    assert (after.seen, verdict.by) == (["bad"], "input/after")


@pytest.mark.parametrize(
    "change",
    [
        lambda turn: turn.vars.update(tier="staff"),
        lambda turn: turn.state.vars.update(tier="staff"),
        lambda turn: setattr(turn, "text", "harmless"),
        lambda turn: setattr(turn.history[0], "content", "harmless"),
    ],
)
async def test_a_rail_that_changes_what_it_was_given_has_failed(change: Callable[[Turn], None]) -> None:
    class Changes(Scripted):
        async def check(self, turn: Turn) -> Any:
            change(turn)
            return Verdict.allow()

    given = Turn("hi", (Message("user", "old"),), judged=1, state=State({"tier": "guest"}))
    _, verdict, _ = await run(given, staged(Changes(passes)))
    assert (verdict.action, verdict.reason) == ("block", "error")
    assert given.state.vars == {"tier": "guest"}
