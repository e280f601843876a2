"""Run a stage's rails over a turn, and make of what they say what the policy says.

A stage judges texts: on input every message that no rail has judged yet, on retrieval each passage, on tools a call
or its result, on output the draft. This file knows order, time, failure and rewriting. It knows nothing of what a
rail looks for, nor of models.
"""

import asyncio
import dis
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby
from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from trackbed.llm.types import Message
from trackbed.rails.arguments import mask_call, masked, write
from trackbed.rails.budget import METER, Meter, metered
from trackbed.rails.errors import BudgetSpent, RailFailed
from trackbed.rails.pseudonyms import hidden, named
from trackbed.rails.sentences import ITEM
from trackbed.rails.trace import digest
from trackbed.rails.types import PARTS, Rail, Reason, Span, Stage, Then, ToolCall, Trace, Turn, Verdict

if TYPE_CHECKING:
    from trackbed.rails.policy import RailUse

# What takes the place of a text that a rail objected to; None when nothing can, and the text is blocked.
Rewriter = Callable[[Turn, Verdict], str | None]
ALLOWED = Verdict.allow()
parts = attrgetter(*PARTS)  # of a turn
DROPPED = ""  # a passage rewritten to this is left out


@dataclass(frozen=True, slots=True)
class StagedRail:
    """A rail, and the policy's words about it."""

    use: "RailUse"
    rail: Rail
    immediate: bool = field(init=False)  # its check never waits, so that it needs no task and no clock
    enforced: bool = field(init=False)
    rewrites: bool = field(init=False)  # it may change the text, so that its neighbours have to wait for it
    restores: bool = field(init=False)  # what it masks is put back into the answer
    ours: bool = field(init=False)  # it ships with trackbed, and leaves alone what it is given

    def __post_init__(self) -> None:
        enforced = self.use.mode == "enforce"
        object.__setattr__(self, "immediate", not may_wait(type(self.rail), self.use.config))
        object.__setattr__(self, "enforced", enforced)
        object.__setattr__(self, "ours", type(self.rail).__module__.startswith("trackbed.rails.library."))
        object.__setattr__(self, "restores", enforced and bool(getattr(self.use.config, "restore", False)))
        object.__setattr__(self, "rewrites", enforced and self.use.then in ("mask", "drop", "quote"))


class Look(NamedTuple):
    """One rail's look at one text, that is to be taken."""

    staged: StagedRail
    turn: Turn
    subject: str  # the text's digest
    given: tuple[object, ...]  # the turn's parts, by which it is seen whether a rail has changed it


class Opinion(NamedTuple):
    """What came of a look."""

    staged: StagedRail
    verdict: Verdict  # as enforced: after `then`, or after `on_error`
    span: Span

    @property
    def blocks(self) -> bool:
        """Whether the stage ends here."""
        return self.verdict.action == "block" and self.staged.enforced


async def run_stage(
    stage: Stage, rails: Sequence[StagedRail], turn: Turn, trace: Trace, rewriters: Mapping[Then, Rewriter]
) -> tuple[Turn, Verdict]:
    """The turn as the stage's rails leave it, and what they came to: the first block, else the first rewrite."""
    if not rails:
        return turn, ALLOWED
    enforced, blocked = list[Verdict](), False
    views: list[tuple[Turn, str, tuple[object, ...]]] = []
    for group in groups(rails):
        views = views or [(view, digest(view.text), parts(view)) for view in _views(stage, turn)]
        opinions = await judge([Look(staged, *view) for staged in group for view in views], rewriters)
        if (
            group[0].restores
            and any(o.verdict.action == "rewrite" for o in opinions)
            and not any(o.blocks for o in opinions)
        ):
            turn, opinions = _pseudonymised(turn, [view for view, *_ in views], opinions)
        for opinion in opinions:
            trace.spans.append(opinion.span)
            if opinion.staged.enforced:
                enforced.append(opinion.verdict)
                blocked = blocked or opinion.verdict.action == "block"
        if blocked:
            return turn, merge(enforced)
        if group[0].rewrites and any(o.verdict.action == "rewrite" for o in opinions):
            texts = [o.verdict.text if o.verdict.action == "rewrite" else None for o in opinions]
            turn, views = hidden(_rewritten(stage, turn, texts)), []
    return turn, merge(enforced)


def groups(rails: Sequence[StagedRail]) -> Iterator[tuple[StagedRail, ...]]:
    """Neighbours that only judge, together; each rail that rewrites, alone."""
    for rewrites, run in groupby(rails, key=lambda staged: staged.rewrites):
        if rewrites:
            yield from ((staged,) for staged in run)
        else:
            yield tuple(run)


async def judge(looks: Sequence[Look], rewriters: Mapping[Then, Rewriter]) -> list[Opinion]:
    """What comes of the looks, in their order; the first block ends those that still run, and they have no opinion.

    Those that never wait come first, since one of them may spare the others.
    """
    opinions: dict[int, Opinion] = {}
    waiting: dict[int, Look] = {}
    for i, look in enumerate(looks):
        try:
            applies = look.staged.use.applies(look.turn)
        except Exception as failure:  # noqa: BLE001 - a condition that cannot be evaluated is doubt
            opinions[i] = _failed(look, failure, 0.0)
        else:
            if not applies:
                opinions[i] = _skipped(look)
            elif look.staged.immediate:
                opinions[i] = _immediate(look, rewriters)
            else:
                waiting[i] = look
                continue
        if opinions[i].blocks:
            return list(opinions.values())
    if not waiting:
        return list(opinions.values())
    opinions |= await _together(waiting, rewriters)
    return [opinions[i] for i in sorted(opinions)]


def merge(verdicts: Sequence[Verdict]) -> Verdict:
    """Several verdicts as one: the first block, else the first rewrite, else an allow with all categories."""
    if all(verdict is ALLOWED for verdict in verdicts):
        return ALLOWED
    for action in ("block", "rewrite"):
        if found := next((v for v in verdicts if v.action == action), None):
            return found
    return Verdict.allow(categories=tuple(dict.fromkeys(c for v in verdicts for c in v.categories)))


def mask(turn: Turn, verdict: Verdict) -> str | None:
    """The text with each finding replaced by its label in angle brackets; overlapping findings become one.

    Where the verdict brings a text of its own, it is that; of an answer something has to be left.
    Of a call, it is JSON in which strings alone are masked; None where something else would have to be.

    >>> mask(Turn("", text="mail a@b.org now"), Verdict.block(findings=(Finding("EMAIL_ADDRESS", 5, 12),)))
    'mail <EMAIL_ADDRESS> now'
    """
    if not verdict.findings:
        return None
    if turn.call and turn.result is None:
        call = mask_call(turn.call, verdict.findings)
        return call.text if call else None
    if verdict.text is not None:
        return verdict.text if verdict.text.strip() or turn.stage != "output" else None
    return masked(turn.text, verdict.findings, 0, len(turn.text))


def beginning(turn: Turn, verdict: Verdict) -> str | None:
    """The text before the first finding, without white space or the sign of a list item at its end.

    >>> beginning(Turn("", text="1. One.\\n2. Two."), Verdict.block(findings=(Finding("UNSUPPORTED", 11, 15),)))
    '1. One.'
    """
    if not verdict.findings:
        return None
    text = turn.text[: min(finding.start for finding in verdict.findings)].rstrip()
    line = text.rfind("\n") + 1
    return text[:line].rstrip() if ITEM.fullmatch(text[line:] + " ") else text


def drop(turn: Turn, verdict: Verdict) -> str | None:
    """Leave the passage out. The schema allows it on retrieval alone."""
    return DROPPED


def may_wait(rail_class: type[Rail], config: object) -> bool:
    """Whether a rail's check can wait, as it is configured: one that only asks a model does not where none is named."""
    key = getattr(rail_class, "asks", None)
    return not (key and getattr(config, key, None) is None) and waits(rail_class.check)


@cache
def waits(check: object) -> bool:
    """Whether an `async def` can wait: only what it awaits can make it, and each of these is a SEND in its code."""
    if not inspect.isfunction(check) or not inspect.iscoroutinefunction(check):
        return True  # not known to be one that cannot
    return any(instruction.opname == "SEND" for instruction in dis.get_instructions(check))


def _restore(look: Look) -> None:
    """Make the turn what it was before a rail changed it, by force."""
    for name, value in zip(PARTS, look.given, strict=True):
        object.__setattr__(look.turn, name, value)


def _views(stage: Stage, turn: Turn) -> list[Turn]:
    """The turn once for each text that the stage judges, with that text in `text`."""
    if stage == "retrieval":
        return [turn.having(stage=stage, text=passage.text) for passage in turn.passages]
    if stage == "output":
        assert turn.draft is not None
        return [turn.having(stage=stage, text=turn.draft)]
    if stage == "tools":
        assert turn.call is not None
        text = write(turn.call).text if turn.result is None else turn.result
        return [turn.having(stage=stage, text=text, call=replace(turn.call))]  # a copy, so that none is changed
    # A message of the history is judged as if it were the question, whoever is said to have written it:
    # the caller may have forged it.
    asked = [*(m.content for m in turn.history[turn.judged :]), turn.question]
    return [
        turn.having(stage=stage, text=text, question=text, history=turn.history[:i])
        for i, text in enumerate(asked, start=turn.judged)
    ]


def _rewritten(stage: Stage, turn: Turn, texts: Sequence[str | None]) -> Turn:
    """The turn with new texts in place of those of `_views`; None keeps a text as it is."""
    if stage == "retrieval":
        kept = zip(turn.passages, texts, strict=True)
        return replace(turn, passages=tuple(p if t is None else replace(p, text=t) for p, t in kept if t != DROPPED))
    if stage == "output":
        return replace(turn, draft=turn.draft if texts[0] is None else texts[0])
    if stage == "tools":
        assert turn.call is not None
        if texts[0] is None or turn.result is not None:
            return replace(turn, result=turn.result if texts[0] is None else texts[0])
        return replace(turn, call=ToolCall.read(turn.call.name, texts[0], turn.call.id))
    *earlier, question = texts
    unjudged = zip(turn.history[turn.judged :], earlier, strict=True)
    history = [m if text is None else Message(m.role, text) for m, text in unjudged]
    return replace(
        turn,
        question=turn.question if question is None else question,
        history=(*turn.history[: turn.judged], *history),
    )


def _pseudonymised(turn: Turn, views: Sequence[Turn], opinions: Sequence[Opinion]) -> tuple[Turn, list[Opinion]]:
    """The turn that knows by names what was found, and the opinions, one of each view, with names for mere kinds."""
    found = [
        (view.text, opinion.verdict.findings if opinion.verdict.action == "rewrite" else ())
        for view, opinion in zip(views, opinions, strict=True)
    ]
    turn, texts = named(turn, found)
    told = list[Opinion]()
    for opinion, text in zip(opinions, texts, strict=True):
        verdict = opinion.verdict
        if verdict.action == "rewrite":
            verdict = replace(verdict, text=text)
        told.append(opinion._replace(verdict=verdict, span=opinion.span._replace(verdict=verdict)))
    return turn, told


def _immediate(look: Look, rewriters: Mapping[Then, Rewriter]) -> Opinion:
    """The opinion of a rail that never waits: its check runs through in one go."""
    started = perf_counter()
    verdict: object = None
    failure: BaseException | None = None
    try:
        look.staged.rail.check(look.turn).send(None)
    except StopIteration as done:
        verdict = done.value
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as raised:  # noqa: BLE001 - a rail is anyone's code, and whatever it raises is doubt
        failure = raised
    if not look.staged.ours and parts(look.turn) != look.given:
        _restore(look)
        failure = RailFailed("changes what it is given")
    if failure:
        return _failed(look, failure, perf_counter() - started)
    return _concluded(look, verdict, perf_counter() - started, rewriters)


async def _together(looks: Mapping[int, Look], rewriters: Mapping[Then, Rewriter]) -> dict[int, Opinion]:
    """The opinions of rails that may wait, each within its time; the first block cancels the rest."""
    started, turn = perf_counter(), METER.get()
    meters = {i: Meter(turn=turn) for i in looks}
    tasks = {metered(_asked(look), meters[i]): i for i, look in looks.items()}
    opinions: dict[int, Opinion] = {}
    pending = set(tasks)
    try:
        while pending and not any(opinion.blocks for opinion in opinions.values()):
            first = min(looks[tasks[task]].staged.use.timeout for task in pending)
            # Unlike asyncio.timeout or a TaskGroup, this does not wait for a rail that ignores its cancellation.
            done, pending = await asyncio.wait(
                pending, timeout=max(0.0, started + first - perf_counter()), return_when=asyncio.FIRST_COMPLETED
            )
            passed = perf_counter() - started
            late = {task for task in pending if looks[tasks[task]].staged.use.timeout <= passed}
            pending -= late
            for task in late:
                _abandon(task)
            for task in done | late:
                i = tasks[task]
                opinions[i] = _outcome(looks[i], task, passed, rewriters)
                opinions[i] = _with_calls(opinions[i], meters[i])
    finally:
        for task in pending:
            _abandon(task)
    return opinions


async def _asked(look: Look) -> Verdict:
    turn = look.turn if look.staged.ours else replace(look.turn)  # its neighbours look at the same time
    return await look.staged.rail.check(turn)


def _outcome(look: Look, task: "asyncio.Task[Verdict]", seconds: float, rewriters: Mapping[Then, Rewriter]) -> Opinion:
    """What came of a rail's task, or of its lateness."""
    if not task.done():
        return _failed(look, TimeoutError(), seconds)
    if task.cancelled():
        return _failed(look, RailFailed("the rail cancelled itself"), seconds)
    if failure := task.exception():
        return _failed(look, failure, seconds)
    return _concluded(look, task.result(), seconds, rewriters)


def _abandon(task: "asyncio.Task[Verdict]") -> None:
    """Cancel a rail that is not waited for; a late result is taken note of, so that nobody warns of its exception."""
    task.cancel()
    task.add_done_callback(lambda late: late.cancelled() or late.exception())


def _concluded(look: Look, verdict: object, seconds: float, rewriters: Mapping[Then, Rewriter]) -> Opinion:
    """The opinion of a rail that has answered, in time or not, something that can be carried out or not."""
    use = look.staged.use
    if verdict is ALLOWED and seconds <= use.timeout:
        return Opinion(look.staged, ALLOWED, _span(look, ALLOWED, seconds))
    try:
        if seconds > use.timeout:  # it held the event loop, so that no clock could stop it
            raise TimeoutError
        sound = _sound(verdict, look.staged, look.turn)
        if sound.action == "block" and look.staged.rewrites and use.then in rewriters:
            text = rewriters[use.then](look.turn, sound)
            if text is not None:
                sound = replace(sound, action="rewrite", text=text)
        if sound.action == "block" and sound.text is not None:
            sound = replace(sound, text=None)  # it was for a mask
    except Exception as failure:  # noqa: BLE001 - nonsense comes in every form
        return _failed(look, failure, seconds)
    if sound.action != "allow":
        sound = sound.named(use.stage, use.id)
    return Opinion(look.staged, sound, _span(look, sound, seconds))


def _failed(look: Look, failure: BaseException, seconds: float) -> Opinion:
    """The opinion that the policy names under `on_error`."""
    use = look.staged.use
    reason: Reason = "timeout" if isinstance(failure, TimeoutError) else "error"
    # A spent budget is no rail's failure, and a turn that cannot be judged to its end is not let through.
    if use.on_error == "block" or isinstance(failure, BudgetSpent):
        verdict = Verdict.block(reason=reason).named(use.stage, use.id)
    else:
        verdict = Verdict.allow()
    return Opinion(look.staged, verdict, _span(look, verdict, seconds, error=type(failure).__name__))


def _skipped(look: Look) -> Opinion:
    """No opinion, since the rail's condition does not hold."""
    span = _span(look, Verdict.allow(), 0.0)
    return Opinion(look.staged, Verdict.allow(), span._replace(notes={"skipped": "when"}))


def _with_calls(opinion: Opinion, meter: Meter) -> Opinion:
    """The opinion with what it cost in model calls and tokens."""
    if not meter.calls:
        return opinion
    return opinion._replace(span=opinion.span._replace(calls=meter.calls, usage=meter.usage))


def _span(look: Look, verdict: Verdict, seconds: float, error: str = "") -> Span:
    use = look.staged.use
    return Span(
        stage=use.stage,
        name=use.id,
        milliseconds=1000 * seconds,
        verdict=verdict,
        enforced=look.staged.enforced,
        error=error,
        subject=look.subject,
        ended=perf_counter(),
    )


def _sound(verdict: object, staged: StagedRail, turn: Turn) -> Verdict:
    """The verdict, if it is one that can be carried out. Raises RailFailed."""
    if not isinstance(verdict, Verdict) or verdict.action not in ("allow", "rewrite", "block"):
        raise RailFailed(f"answered {type(verdict).__name__}, not a Verdict")
    if verdict.action == "rewrite" and not isinstance(verdict.text, str):
        raise RailFailed("rewrites, and gives no text")
    if verdict.action == "rewrite" and staged.enforced and not staged.rewrites:
        raise RailFailed(f"rewrites, and the policy says then: {staged.use.then}")
    if verdict.action == "rewrite" and turn.call and turn.result is None:
        ToolCall.read(turn.call.name, verdict.text or "")  # raises where the text is no call's
    if verdict.findings and any(not 0 <= f.start < f.end <= len(turn.text) for f in verdict.findings):
        raise RailFailed("finds something outside the text")
    return verdict
