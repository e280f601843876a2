"""Rate: how many turns one user may have in a while.

A turn counts when its question is judged; earlier messages of its conversation do not. Counts live in this process:
several processes count apart, and a restart forgets. Of too many users, those who were quiet longest are forgotten.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Annotated, ClassVar

from pydantic import Field

from trackbed.rails.config import RailConfig
from trackbed.rails.types import Models, Stage, Then, Turn, Verdict

KEPT = 100_000  # users


class Rate:
    """Blocks a user's turns beyond so many in a sliding window."""

    stages: ClassVar[frozenset[Stage]] = frozenset({"input"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block"})

    class Config(RailConfig):
        """Who is counted, and how much is allowed."""

        turns: int = Field(20, ge=1, le=100_000, description="The most turns of a user in a window.")
        seconds: Annotated[float, Field(gt=0, le=86_400)] = Field(60.0, description="How long a window is, in seconds.")
        by: str = Field(
            "user",
            pattern=r"^[A-Za-z_]\w{0,99}$",
            description="The variable of the policy that names the user; turns without one are counted together.",
        )

    now: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, config: Config, models: Models) -> None:
        self.config = config
        self.lock = threading.Lock()
        self.seen: OrderedDict[str, deque[float]] = OrderedDict()

    async def check(self, turn: Turn) -> Verdict:
        """Count the turn, and block it where the window is full. A turn that is blocked does not count."""
        if turn.text != turn.question:
            return Verdict.allow()
        user, now = str(turn.vars.get(self.config.by, "")), self.now()
        with self.lock:
            times = self.seen.setdefault(user, deque())
            self.seen.move_to_end(user)
            while times and times[0] <= now - self.config.seconds:
                times.popleft()
            if len(times) >= self.config.turns:
                return Verdict.block(detail="too many messages in a short time", categories=("rate",))
            times.append(now)
            if len(self.seen) > KEPT:
                self.seen.popitem(last=False)
        return Verdict.allow()
