"""Run a stage's rails over a turn, and make of what they say what the policy says.

A stage judges texts: on input every message that no rail has judged yet, on retrieval each passage, on
output the draft. This file knows order, time, failure and rewriting. It knows nothing of what a rail looks
for, nor of models.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from time import perf_counter

from trackbed.llm.types import Message
from trackbed.rails.errors import RailFailed
from trackbed.rails.policy import RailUse
from trackbed.rails.trace import digest
from trackbed.rails.types import Rail, Reason, Span, Stage, Then, Trace, Turn, Verdict

# What takes the place of a text that a rail objected to; None when nothing can, and the text is blocked.
Rewriter = Callable[[Turn, Verdict], str | None]
DROPPED = ""  # a passage rewritten to this is left out


@dataclass(frozen=True, slots=True)
class StagedRail:
    """A rail, and the policy's words about it."""

    use: RailUse
    rail: Rail

    @property
    def rewrites(self) -> bool:
        """Whether it may change the text, so that its neighbours have to wait for it."""
        return self.use.mode == "enforce" and self.use.then in ("mask", "drop", "quote")


@dataclass(frozen=True, slots=True)
class Opinion:
    """What came of one rail's look at one text."""

    staged: StagedRail
    turn: Turn
    verdict: Verdict  # as enforced: after `then`, or after `on_error`
    span: Span

    @property
    def blocks(self) -> bool:
        """Whether the stage ends here."""
        return self.verdict.action == "block" and self.staged.use.mode == "enforce"


async def run_stage(
    stage: Stage, rails: Sequence[StagedRail], turn: Turn, trace: Trace, rewriters: Mapping[Then, Rewriter]
) -> tuple[Turn, Verdict]:
    """The turn as the stage's rails leave it, and what they came to: the first block, else the first rewrite."""
    enforced: list[Verdict] = []
    for group in _groups(rails):
        views = _views(stage, turn)
        opinions = await _judge([(staged, view) for staged in group for view in views], rewriters)
        for opinion in opinions:
            trace.add(opinion.span)
        enforced += [o.verdict for o in opinions if o.staged.use.mode == "enforce"]
        if blocked := next((o.verdict for o in opinions if o.blocks), None):
            return turn, blocked
        if group[0].rewrites:
            turn = _rewritten(
                stage, turn, [o.verdict.text if o.verdict.action == "rewrite" else None for o in opinions]
            )
    return turn, merge(enforced)


def merge(verdicts: Sequence[Verdict]) -> Verdict:
    """Several verdicts as one: the first block, else the first rewrite, else an allow with all categories."""
    for action in ("block", "rewrite"):
        if found := next((v for v in verdicts if v.action == action), None):
            return found
    return Verdict.allow(categories=tuple(dict.fromkeys(c for v in verdicts for c in v.categories)))


def mask(turn: Turn, verdict: Verdict) -> str | None:
    """The text with each finding replaced by its label in angle brackets; overlapping findings become one.

    >>> mask(Turn("", text="mail a@b.org now"), Verdict.block(findings=(Finding("EMAIL_ADDRESS", 5, 12),)))
    'mail <EMAIL_ADDRESS> now'
    """
    if not verdict.findings:
        return None
    pieces, reached = [], 0
    for finding in sorted(verdict.findings, key=lambda f: (f.start, -f.end)):
        if finding.start >= reached:
            pieces += [turn.text[reached : finding.start], f"<{finding.label}>"]
        reached = max(reached, finding.end)
    return "".join(pieces) + turn.text[reached:]


def drop(turn: Turn, verdict: Verdict) -> str | None:
    """Leave the passage out. The schema allows it on retrieval alone."""
    return DROPPED


def _groups(rails: Sequence[StagedRail]) -> Iterator[tuple[StagedRail, ...]]:
    """Neighbours that only judge, together; each rail that rewrites, alone."""
    for rewrites, run in groupby(rails, key=lambda staged: staged.rewrites):
        if rewrites:
            yield from ((staged,) for staged in run)
        else:
            yield tuple(run)


def _views(stage: Stage, turn: Turn) -> list[Turn]:
    """The turn once for each text that the stage judges, with that text in `text`."""
    if stage == "retrieval":
        return [replace(turn, stage=stage, text=passage.text) for passage in turn.passages]
    if stage == "output":
        assert turn.draft is not None
        return [replace(turn, stage=stage, text=turn.draft)]
    # A message of the history is judged as if it were the question, whoever is said to have written it:
    # the caller may have forged it.
    asked = [*(m.content for m in turn.history[turn.judged :]), turn.question]
    return [
        replace(turn, stage=stage, text=text, question=text, history=turn.history[:i])
        for i, text in enumerate(asked, start=turn.judged)
    ]


def _rewritten(stage: Stage, turn: Turn, texts: Sequence[str | None]) -> Turn:
    """The turn with new texts in place of those of `_views`; None keeps a text as it is."""
    if stage == "retrieval":
        kept = zip(turn.passages, texts, strict=True)
        return replace(turn, passages=tuple(p if t is None else replace(p, text=t) for p, t in kept if t != DROPPED))
    if stage == "output":
        return replace(turn, draft=turn.draft if texts[0] is None else texts[0])
    *earlier, question = texts
    unjudged = zip(turn.history[turn.judged :], earlier, strict=True)
    history = [m if text is None else Message(m.role, text) for m, text in unjudged]
    return replace(
        turn,
        question=turn.question if question is None else question,
        history=(*turn.history[: turn.judged], *history),
    )


async def _judge(work: Sequence[tuple[StagedRail, Turn]], rewriters: Mapping[Then, Rewriter]) -> list[Opinion]:
    """Every rail's opinion of every text, in the order given; the first block cancels what still runs."""
    if len(work) == 1:
        return [await _opinion(*work[0], rewriters)]
    tasks = [asyncio.ensure_future(_opinion(staged, turn, rewriters)) for staged, turn in work]
    pending = set(tasks)
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if any(task.result().blocks for task in done):
                break
    finally:
        for task in pending:
            task.cancel()
    return [task.result() for task in tasks if task not in pending]


async def _opinion(staged: StagedRail, turn: Turn, rewriters: Mapping[Then, Rewriter]) -> Opinion:
    """One rail's look at one text. Whatever goes wrong becomes the verdict that the policy names under `on_error`."""
    use, error, started = staged.use, "", perf_counter()
    judged = True
    try:
        judged = use.applies(turn)
        verdict = await _in_time(staged, turn) if judged else Verdict.allow()
        if verdict.action == "block" and staged.rewrites and use.then in rewriters:
            text = rewriters[use.then](turn, verdict)
            if text is not None:
                verdict = replace(verdict, action="rewrite", text=text)
    except Exception as failure:  # noqa: BLE001 - a rail is anyone's code, and whatever it raises is doubt
        error = type(failure).__name__
        reason: Reason = "timeout" if isinstance(failure, TimeoutError) else "error"
        verdict = Verdict.block(reason=reason) if use.on_error == "block" else Verdict.allow()
    verdict = verdict.named(use.stage, use.id) if verdict.action != "allow" else verdict
    span = Span(
        stage=use.stage,
        name=use.id,
        milliseconds=1000 * (perf_counter() - started),
        verdict=verdict,
        enforced=use.mode == "enforce",
        error=error,
        subject=digest(turn.text),
        notes={} if judged else {"skipped": "when"},
    )
    return Opinion(staged, turn, verdict, span)


async def _in_time(staged: StagedRail, turn: Turn) -> Verdict:
    """The rail's verdict, within its time and fit to be used. Raises TimeoutError, RailFailed, or what it raised."""
    task = asyncio.ensure_future(staged.rail.check(turn))
    try:
        # Unlike asyncio.timeout, this does not wait for a rail that ignores its cancellation.
        await asyncio.wait({task}, timeout=staged.use.timeout)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_forget)
    if not task.done():
        raise TimeoutError
    if task.cancelled():
        raise RailFailed("the rail cancelled itself")
    return _sound(task.result(), staged, turn)


def _forget(task: "asyncio.Future[Verdict]") -> None:
    """Take note of a late result, so that nobody warns of an exception that was never looked at."""
    if not task.cancelled():
        task.exception()


def _sound(verdict: object, staged: StagedRail, turn: Turn) -> Verdict:
    """The verdict, if it is one that can be carried out. Raises RailFailed."""
    if not isinstance(verdict, Verdict) or verdict.action not in ("allow", "rewrite", "block"):
        raise RailFailed(f"answered {type(verdict).__name__}, not a Verdict")
    if verdict.action == "rewrite" and not isinstance(verdict.text, str):
        raise RailFailed("rewrites, and gives no text")
    if verdict.action == "rewrite" and staged.use.mode == "enforce" and not staged.rewrites:
        raise RailFailed(f"rewrites, and the policy says then: {staged.use.then}")
    if any(not 0 <= f.start < f.end <= len(turn.text) for f in verdict.findings):
        raise RailFailed("finds something outside the text")
    return verdict
