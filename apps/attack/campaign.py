"""Attacks tried against a policy's input rails, one after the other, and what came of each.

Nothing is generated: what no rail blocks has got through, though a model might still refuse it. What a rail rewrites
counts as through as well, since the attack may be in what is left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trackbed.apps.attack.mutations import MUTATIONS, Turns, mutate
from trackbed.llm.types import Message
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.types import Action, Turn

Report = Callable[[str, int, int], None]  # what is being done, how much is done, of how much
NOTED = "Noted."  # what the model is taken to say between the user's turns


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attack in one form."""

    mutation: str
    attack: str
    turns: Turns
    action: Action
    by: str  # the rail that decided, as stage/id; empty where none objected
    failed: bool  # whether it was blocked because a rail could not judge

    @property
    def through(self) -> bool:
        """Whether a model would have been asked."""
        return self.action != "block"

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation that was judged; the user speaks last."""
        *earlier, last = self.turns
        return (*_conversation(earlier), Message("user", last))


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one mutation."""

    mutation: str
    tried: int
    blocked: int
    rewritten: int
    allowed: int
    failed: int  # of those blocked, because a rail could not judge


@dataclass(frozen=True, slots=True)
class Campaign:
    """What came of all attempts."""

    policy: str
    attempts: tuple[Attempt, ...]

    @property
    def through(self) -> tuple[Attempt, ...]:
        """The attempts that got through, in the order of the mutations."""
        return tuple(attempt for attempt in self.attempts if attempt.through)

    @property
    def share(self) -> float:
        """The share of attempts that got through, 0 to 1; 0 where none was made."""
        return len(self.through) / max(1, len(self.attempts))

    @property
    def rows(self) -> tuple[Row, ...]:
        """A row for each mutation, in their order."""
        return tuple(
            _row(name, [a for a in self.attempts if a.mutation == name])
            for name in dict.fromkeys(attempt.mutation for attempt in self.attempts)
        )

    def as_json(self) -> dict[str, Any]:
        """The campaign as JSON values."""
        return {
            "policy": self.policy,
            "attacks": len({attempt.attack for attempt in self.attempts}),
            "tried": len(self.attempts),
            "through": len(self.through),
            "share": round(self.share, 4),
            "mutations": [{name: getattr(row, name) for name in Row.__slots__} for row in self.rows],
            "got_through": [
                {
                    "mutation": attempt.mutation,
                    "attack": attempt.attack,
                    "action": attempt.action,
                    "by": attempt.by or None,
                    "messages": [{message.role: message.content} for message in attempt.messages],
                }
                for attempt in self.through
            ],
        }


async def run(pipeline: Pipeline, attacks: Sequence[str], seed: int, report: Report) -> Campaign:
    """Try every attack in every form. Raises what judging raises: a rail that fails is a verdict, and no error."""
    attempts, total = list[Attempt](), len(attacks) * len(MUTATIONS)
    for mutation in MUTATIONS:
        for attack in attacks:
            report(mutation, len(attempts), total)
            attempts.append(await _attempt(pipeline, mutation, attack, mutate(mutation, attack, seed)))
    return Campaign(pipeline.policy.name, tuple(attempts))


async def _attempt(pipeline: Pipeline, mutation: str, attack: str, turns: Turns) -> Attempt:
    *earlier, last = turns
    verdict, _ = await pipeline.check("input", last, Turn("", _conversation(earlier)))
    failed = verdict.action == "block" and verdict.reason in ("error", "timeout")
    return Attempt(mutation, attack, turns, verdict.action, verdict.by or "", failed)


def _conversation(said: Sequence[str]) -> tuple[Message, ...]:
    return tuple(message for text in said for message in (Message("user", text), Message("assistant", NOTED)))


def _row(mutation: str, attempts: Sequence[Attempt]) -> Row:
    actions = [attempt.action for attempt in attempts]
    failed = sum(attempt.failed for attempt in attempts)
    return Row(mutation, len(actions), actions.count("block"), actions.count("rewrite"), actions.count("allow"), failed)
