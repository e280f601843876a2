"""What a policy may say and hardly means: the things that a schema cannot see.

A remark is no error; the policy runs as it stands.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from trackbed.rails.errors import Place
from trackbed.rails.extends import STAGES, read_policy
from trackbed.rails.policy import Policy
from trackbed.rails.use import named_models


@dataclass(frozen=True, slots=True)
class Remark:
    """Something in a policy that may not be meant."""

    message: str
    place: Place

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


def lint(policy: Policy) -> list[Remark]:
    """What a reviewer would ask about, in the order of the file."""
    found = [*_stages(policy), *_rails(policy), *_models(policy)]
    if not policy.tests:
        found.append(Remark("no tests; a 'tests' section shows what the policy does", Place(str(policy.file))))
    return sorted(found, key=lambda remark: (remark.place.file != str(policy.file), remark.place.line))


def _stages(policy: Policy) -> Iterator[Remark]:
    """Stages whose texts nobody judges, or that are never reached."""
    root = read_policy(policy.file)
    for stage in STAGES:
        place = root.keys[stage].key if stage in root.keys else Place(str(policy.file))
        uses = policy.rails[stage]
        if stage == "retrieval" and policy.knowledge is None:
            if uses:
                yield Remark("rails on retrieval never run: the policy names no 'knowledge'", place)
        elif not uses:
            yield Remark(f"nothing judges {stage}: no rail stands there", place)
        elif all(use.mode == "observe" for use in uses):
            yield Remark(f"nothing is enforced on {stage}: every rail there only observes", place)


def _rails(policy: Policy) -> Iterator[Remark]:
    for uses in policy.rails.values():
        for use in uses:
            if use.mode == "enforce" and use.on_error == "allow":
                yield Remark(f"rail {use.name!r} lets through what it cannot judge (on_error: allow)", use.place)
            needy = use.rail == "grounding" and use.config.model_dump()["require_passages"]
            if needy and use.mode == "enforce" and policy.knowledge is None:
                yield Remark(f"rail {use.name!r} supports no answer: the policy names no 'knowledge'", use.place)
            if use.mode == "observe" and use.then != "block":
                yield Remark(f"rail {use.name!r} only observes, so 'then: {use.then}' does nothing", use.place)


def _models(policy: Policy) -> Iterator[Remark]:
    """Models that are named and never asked."""
    uses = [use for uses in policy.rails.values() for use in uses]
    asked = {policy.generation.model, *(model for use in uses for _, model in named_models(use.config))}
    written = read_policy(policy.file).at(["models"]).keys
    for name, node in written.items():
        if name in policy.models and name not in asked:
            yield Remark(f"model {name!r} is named and never asked", node.key)
