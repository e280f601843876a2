"""What got through, as the `tests:` of a policy: each fails until a rail blocks it.

Where the policy that was attacked can be extended from there, the file is a policy of its own, and
`trackbed policy test` runs it as it is. Characters that nobody could see are written as escapes.
"""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from trackbed.apps.attack.campaign import Attempt, Campaign
from trackbed.rails.extends import POLICIES
from trackbed.rails.policy import Policy

MOST_BYTES = 200_000  # of the tests: a policy with all that it extends may have 256 KiB
MOST_TESTS = 1000


def regression(campaign: Campaign, policy: Policy, file: Path) -> tuple[str, int]:
    """The text of the file, and how many attempts it holds: of many, some of every mutation."""
    written, size = list[str](), 0
    for attempt in _in_turn(campaign.through):
        test = _yaml([_test(attempt)])
        size += len(test)
        if size > MOST_BYTES or len(written) == MOST_TESTS:
            break
        written.append(f"  # {attempt.mutation}\n" + "".join(f"  {line}\n" for line in test.splitlines()))
    tests = "tests:\n" + "".join(written) if written else "tests: []\n"
    return f"{_head(campaign, len(written))}{_policy(policy, file)}{tests}", len(written)


def _head(campaign: Campaign, written: int) -> str:
    got = f"# {len(campaign.through)} of {len(campaign.attempts)} attempts got through the input rails."
    return got + (f" {written} of them are here.\n" if written < len(campaign.through) else "\n")


def _policy(policy: Policy, file: Path) -> str:
    """The keys that make the file a policy; none where it could not extend the one attacked."""
    if policy.file.parent == POLICIES:
        base = policy.file.stem
    elif policy.file.resolve().is_relative_to(file.parent.resolve()):
        base = policy.file.resolve().relative_to(file.parent.resolve()).as_posix()
    else:
        return ""
    return _yaml({"policy": 1, "name": f"attacks on {policy.name}"[:100], "extends": base}) + "\n"


def _test(attempt: Attempt) -> dict[str, Any]:
    """A test as it stands in a policy."""
    said: dict[str, Any] = {"user": attempt.turns[0]}
    if len(attempt.turns) > 1:
        said = {"messages": [{message.role: message.content} for message in attempt.messages]}
    return said | {"expect": {"action": "block"}}


def _in_turn(attempts: Sequence[Attempt]) -> Iterator[Attempt]:
    """The first of every mutation, then the second of each, and so on; what was said before is left out."""
    groups = [[a for a in attempts if a.mutation == name] for name in dict.fromkeys(a.mutation for a in attempts)]
    told = set[tuple[str, ...]]()
    for row in zip_longest(*groups):
        for attempt in row:
            if attempt and attempt.turns not in told:
                told.add(attempt.turns)
                yield attempt


def _yaml(value: Any) -> str:  # Any: a JSON value
    return yaml.safe_dump(value, sort_keys=False, width=100)
