"""What can go wrong in the rail engine. A block is no error: it is a Verdict."""

from collections.abc import Sequence
from dataclasses import dataclass

LONGEST = 4000  # characters of one mistake's words, which may quote what a policy says


class RailsError(Exception):
    """The rail engine could not do its work; the message says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a policy something stands; lines and columns count from 1."""

    file: str
    line: int = 0
    column: int = 0
    key: str = ""  # the path of keys: "input[2].threshold"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class PolicyError(RailsError):
    """A policy does not say what a policy can say. `place` tells where; the error's words say it too.

    `others` are further mistakes of the same policy, each of which has a line of the error's words.
    """

    def __init__(self, message: str, place: Place | None = None, others: "Sequence[PolicyError]" = ()) -> None:
        if len(message) > LONGEST:
            message = f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 :]}"
        super().__init__("\n".join([f"{place}: {message}" if place else message, *map(str, others)]))
        self.message = message
        self.place = place
        self.others = tuple(others)


class UnknownRail(PolicyError):
    """A policy names a rail that there is not; the message lists the known ones."""


class RailFailed(RailsError):
    """A rail could not judge. `run_stage` turns it into the verdict that the policy names under `on_error`."""


class BudgetSpent(RailsError):
    """A turn may ask models no more often. It blocks, whatever a rail's `on_error` says."""


class TooBusy(RailsError):
    """So many turns run already that this one was turned away; the message says how long it waited."""


class TemplateFailed(RailsError):
    """A template or a condition could not be filled in: a value is missing, or what it makes is too long."""


class StateRefused(RailsError):
    """A conversation's state is not one that was handed out; the message says what is wrong with it."""
