"""What one turn may cost at worst: how often it asks models, and how long its rails may take.

The figures follow from the policy alone; nothing is run. Time counts the rails that may wait, each at its timeout:
neighbours that only judge run together, so the slowest of them counts. How long models take to answer, and the index
to search, no policy says.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from math import ceil

from trackbed.rails.policy import Policy, RailUse
from trackbed.rails.remark import Remark
from trackbed.rails.source import Node
from trackbed.rails.stage import may_wait
from trackbed.rails.stream import streams
from trackbed.rails.use import named_models


@dataclass(frozen=True, slots=True)
class Cost:
    """The worst case of one turn."""

    model_calls: int  # where one question is new
    per_message: int  # more, for each earlier message that no rail has judged yet
    streamed: int  # more, where the answer is streamed and judged while it is written
    seconds: float  # of rails

    def words(self) -> str:
        """The worst case in a sentence."""
        more = [
            f"{self.per_message} more for each earlier message not judged yet" if self.per_message else "",
            f"{self.streamed} more when streamed" if self.streamed else "",
        ]
        added = f" ({', and '.join(filter(None, more))})" if any(more) else ""
        return f"a turn asks models {self.model_calls} times at most{added}, and its rails may take {self.seconds:g} s"

    def as_json(self) -> dict[str, float]:
        """The figures as JSON values."""
        return asdict(self)


def worst_case(policy: Policy) -> Cost:
    """What one turn may cost at worst."""
    # What tools are called with is judged on its own, not in a turn.
    stages = {stage: uses for stage, uses in policy.rails.items() if stage != "tools"}
    calls = {stage: sum(map(calls_per_text, uses)) for stage, uses in stages.items()}
    seconds = {stage: _seconds(uses) for stage, uses in stages.items()}
    again = policy.generation.redraft or any(_regenerates(use) for use in policy.rails.get("output", ()))
    drafts = 2 if again else 1
    times: Mapping[str, int] = {"retrieval": policy.knowledge.passages if policy.knowledge else 0, "output": drafts}
    return Cost(
        model_calls=bool(policy.dialog and policy.dialog.model)
        + bool(policy.knowledge and policy.knowledge.asks)
        + drafts
        + sum(times.get(stage, 1) * count for stage, count in calls.items()),
        per_message=calls.get("input", 0),
        streamed=_streamed(policy) * drafts,
        seconds=round(sum(seconds[stage] * (2 if stage == "output" and drafts > 1 else 1) for stage in seconds), 3),
    )


def cost_remarks(policy: Policy, root: Node) -> Iterator[Remark]:
    """Where the worst case is more than the policy's budget."""
    cost, budget = worst_case(policy), policy.budget
    if budget.model_calls is not None and cost.model_calls > budget.model_calls:
        yield Remark(
            f"a turn may have to ask models {cost.model_calls} times, and 'model_calls' lets it ask "
            f"{budget.model_calls}; a turn that needs more is refused: raise it, or ask fewer models",
            root.at(["budget", "model_calls"]).key,
        )
    if budget.wall is not None and cost.seconds > budget.wall:
        yield Remark(
            f"the rails of a turn may take {cost.seconds:g} s, and 'wall' gives the turn {budget.wall:g} s; "
            "raise it, or shorten the rails' timeouts",
            root.at(["budget", "wall"]).key,
        )
    needed = _second_draft(policy)
    if budget.model_calls is not None and needed > budget.model_calls:
        asking = [(f"rail {u.name!r}", "block", u.place) for u in policy.rails.get("output", ()) if _regenerates(u)]
        if policy.generation.redraft:
            asking.append(("'cite'", "drop", root.at(["generation", "cite", "then"]).key))
        for who, instead, place in asking:
            yield Remark(
                f"{who} cannot have a second draft made: that takes {needed} model calls, and 'budget' "
                f"allows {budget.model_calls}; raise 'model_calls', or say 'then: {instead}'",
                place,
            )


def calls_per_text(use: RailUse) -> int:
    """How often a rail asks models about one text at most: what its config or its class says, else once for each that
    it names.
    """
    said = getattr(use.config, "calls", getattr(use.rail_class, "calls", None))
    return said if isinstance(said, int) else len(list(named_models(use.config)))


def _second_draft(policy: Policy) -> int:
    """The fewest model calls with which a turn has two drafts judged; rails with a condition may be spared."""
    fewest = {
        stage: sum(use.when is None and calls_per_text(use) > 0 for use in uses) for stage, uses in policy.rails.items()
    }
    return fewest.get("input", 0) + 2 * (1 + fewest.get("output", 0))


def _regenerates(use: RailUse) -> bool:
    return use.mode == "enforce" and use.then == "regenerate"


def _streamed(policy: Policy) -> int:
    """How often models are asked about beginnings of the draft, as `hold_back` has it."""
    if policy.stream is None:
        return 0
    judges = [use for use in policy.rails.get("output", ()) if use.mode == "enforce" and streams(use) == "prefix"]
    looks = ceil(policy.generation.sampling.max_tokens / policy.stream.hold_back)
    return looks * sum(map(calls_per_text, judges))


def _seconds(uses: Sequence[RailUse]) -> float:
    """How long the rails of a stage may take."""
    total = 0.0
    for rewrites, run in groupby(uses, key=_rewrites):
        times = [use.timeout for use in run if may_wait(use.rail_class, use.config)]
        total += sum(times) if rewrites else max(times, default=0.0)
    return total


def _rewrites(use: RailUse) -> bool:
    return use.mode == "enforce" and use.then in ("mask", "drop", "quote")
