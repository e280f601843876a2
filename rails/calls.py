"""May this tool be called like this, and may a model read what it returned?

A call passes when the policy allows its tool, the rails pass it, and the user has confirmed it where the policy wants
that. Whoever carries calls out asks here before and after; nothing is called here. What rails look for is theirs.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trackbed.rails.stage import StagedRail, mask, run_stage
from trackbed.rails.types import Span, ToolCall, ToolCheck, Trace, Turn, Verdict

if TYPE_CHECKING:
    from trackbed.rails.policy import Policy


async def check_call(policy: "Policy", rails: Sequence[StagedRail], call: ToolCall, turn: Turn) -> ToolCheck:
    """What becomes of a call. What the user is asked to confirm is what the rails have left of it."""
    trace, turn = Trace(), _bound(policy, call, None, turn)
    if policy.tools is None or call.name not in policy.tools.allow:
        return _blocked(policy, turn, _unknown(policy, call, trace), trace)
    judges = [staged for staged in rails if staged.use.part == "calls"]
    turn, verdict = await run_stage("tools", judges, turn, trace, {"mask": mask})
    assert turn.call is not None
    if verdict.action == "block":
        return _blocked(policy, turn, verdict, trace)
    if call.name in policy.tools.confirm:
        confirmed = turn.call.digest in turn.confirmed
        waits = Verdict.block(detail=call.name, categories=("confirm",)).named("tools", "confirm")
        trace.add(Span("tools", "confirm", 0.0, Verdict.allow() if confirmed else waits))
        if not confirmed:
            return _blocked(policy, turn, waits, trace)
    if verdict.action == "rewrite":
        verdict = replace(verdict, text=turn.call.text)
    return ToolCheck(turn.call, verdict, trace)


async def check_result(
    policy: "Policy", rails: Sequence[StagedRail], call: ToolCall, result: str, turn: Turn
) -> ToolCheck:
    """What becomes of a result."""
    trace, turn = Trace(), _bound(policy, call, result, turn)
    if policy.tools is None or call.name not in policy.tools.allow:
        return _blocked(policy, turn, _unknown(policy, call, trace), trace)
    judges = [staged for staged in rails if staged.use.part == "results"]
    turn, verdict = await run_stage("tools", judges, turn, trace, {"mask": mask})
    if verdict.action == "block":
        return _blocked(policy, turn, verdict, trace)
    if verdict.action == "rewrite":
        verdict = replace(verdict, text=turn.result)
    return ToolCheck(call, verdict, trace, turn.result or "")


def _bound(policy: "Policy", call: ToolCall, result: str | None, turn: Turn) -> Turn:
    """The turn with the policy's variables and what is judged now. Raises ValueError for a variable that does not fit.

    System messages that its caller claims are texts like any other.
    """
    history = tuple(replace(m, role="user") if m.role == "system" else m for m in turn.history)
    return replace(policy.bind(turn), history=history, call=call, result=result, draft=None, stage="tools")


def _unknown(policy: "Policy", call: ToolCall, trace: Trace) -> Verdict:
    """The verdict about a tool that is not allowed. The trace alone says which one may have been meant."""
    # Imported here, since what knows nearest names is loaded with the policy.
    from trackbed.rails.template import nearest

    allowed = policy.tools.allow if policy.tools else ()
    verdict = Verdict.block().named("tools", "allow")
    told = f"the tool is not allowed{nearest(call.name, allowed)}"
    trace.add(Span("tools", "allow", 0.0, replace(verdict, detail=told)))
    return verdict


def _blocked(policy: "Policy", turn: Turn, verdict: Verdict, trace: Trace) -> ToolCheck:
    assert turn.call is not None
    return ToolCheck(turn.call, verdict, trace, refusal=policy.refusal(verdict, turn))
