"""A tool between a policy's rails, for any framework whose tools are functions of named arguments.

It knows no framework. Where a call or what comes back is blocked, the words of refusal are the tool's answer.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from trackbed.rails.pipeline import Pipeline
from trackbed.rails.sync import run_sync
from trackbed.rails.types import ToolCall, ToolCheck, Turn

Confirm = Callable[[ToolCall], bool]  # asks the user whether this very call may be made; only True is a yes


class GuardedTool:
    """Calls a tool as far as the policy lets it. `confirm` is asked for the calls that the user has to confirm."""

    def __init__(
        self,
        pipeline: Pipeline,
        name: str,
        run: Callable[[dict[str, Any]], Any],  # Any: what a tool takes and returns
        arun: Callable[[dict[str, Any]], Awaitable[Any]],
        confirm: Confirm | None,
    ) -> None:
        self.pipeline = pipeline
        self.name = name
        self.run = run
        self.arun = arun
        self.confirm = confirm

    def call(self, /, **arguments: Any) -> str:
        """What the tool returns, judged. Raises ValueError for arguments that are no JSON, and what the tool raises."""
        call = ToolCall(self.name, arguments)
        check = run_sync(self.pipeline.check_call(call))
        if turn := self._confirmed(check):
            check = run_sync(self.pipeline.check_call(call, turn))
        if not check.passes:
            return check.refusal
        returned = self.run(check.call.plain())
        return _said(run_sync(self.pipeline.check_result(check.call, text_of(returned))))

    async def acall(self, /, **arguments: Any) -> str:
        """The same, where one can await."""
        call = ToolCall(self.name, arguments)
        check = await self.pipeline.check_call(call)
        if turn := self._confirmed(check):
            check = await self.pipeline.check_call(call, turn)
        if not check.passes:
            return check.refusal
        returned = await self.arun(check.call.plain())
        return _said(await self.pipeline.check_result(check.call, text_of(returned)))

    def _confirmed(self, check: ToolCheck) -> Turn | None:
        """The turn in which the user has confirmed the call, if it waits for that and the user does."""
        # Only True is a yes: an answer in words, or one that nobody has awaited, is true to Python too.
        if check.to_confirm and self.confirm and self.confirm(check.call) is True:
            return Turn("", confirmed=frozenset({check.call.digest}))
        return None


def text_of(returned: object) -> str:
    """What a tool returned as the text that a model reads: as JSON, or in Python's words where it is neither."""
    return returned if isinstance(returned, str) else json.dumps(returned, ensure_ascii=False, default=str)


def _said(check: ToolCheck) -> str:
    return check.result if check.passes else check.refusal
