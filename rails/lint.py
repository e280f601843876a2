"""What a policy may say and hardly means: the things that a schema cannot see.

A remark is no error; the policy runs as it stands. Nothing is run and no model is loaded.
"""

from collections.abc import Iterator, Sequence

from trackbed.rails.constant import constant
from trackbed.rails.cost import cost_remarks
from trackbed.rails.dialog import colliding, unreachable
from trackbed.rails.errors import Place
from trackbed.rails.extends import STAGES, read_policy
from trackbed.rails.policy import Policy, RailUse
from trackbed.rails.remark import Remark
from trackbed.rails.source import Node
from trackbed.rails.stage import may_wait
from trackbed.rails.stream import waits_for_the_end
from trackbed.rails.tools import schemaless
from trackbed.rails.unused import unused


def lint(policy: Policy) -> list[Remark]:
    """What a reviewer would ask about, in the order of the file."""
    root = read_policy(policy.file)
    found = [*_stages(policy, root), *_rails(policy), *_dialog(policy, root)]
    found += [*_citing(policy, root), *cost_remarks(policy, root), *unused(policy, root)]
    if not policy.tests:
        found.append(Remark("no tests; a 'tests' section shows what the policy does", _top(policy)))
    return sorted(found, key=lambda r: (r.place.file != str(policy.file), r.place.line, r.place.column))


def _stages(policy: Policy, root: Node) -> Iterator[Remark]:
    """Stages whose texts nobody judges, or that are never reached."""
    for stage in STAGES:
        place = root.keys[stage].key if stage in root.keys else _top(policy)
        uses = policy.rails[stage]
        if stage == "tools":
            told = schemaless(policy.tools, uses) if policy.tools else ()
            yield from (Remark(words, at) for words, at in told)
            continue
        if stage == "retrieval" and policy.knowledge is None:
            if uses:
                yield Remark(
                    "rails on retrieval never run: the policy names no 'knowledge'; name it, or leave them out", place
                )
        elif not uses:
            yield Remark(f"nothing judges {stage}: no rail stands there; add one", place)
        elif all(use.mode == "observe" for use in uses):
            yield Remark(f"nothing is enforced on {stage}: every rail there only observes; enforce one", place)


def _dialog(policy: Policy, root: Node) -> Iterator[Remark]:
    """Flows and steps that no turn comes to, and examples that stand under two intents."""
    if policy.dialog:
        if policy.generation.ahead:
            words = "'ahead' drafts nothing beside a dialog, whose flows may ask no model; leave one of them out"
            yield Remark(words, root.at(["generation", "ahead"]).key)
        for message, place in (*unreachable(policy.dialog), *colliding(policy.dialog)):
            yield Remark(message, place)


def _citing(policy: Policy, root: Node) -> Iterator[Remark]:
    """What the policy says of citations and does not hold with the rest of it."""
    generation, node = policy.generation, root.at(["generation", "cite"])
    if policy.knowledge is None and generation.cite == "required":
        yield Remark(
            "'cite: required' lets no answer pass: the policy names no 'knowledge', so that nothing can be cited; name "
            "it, or leave 'cite' out",
            node.key,
        )
    if policy.knowledge is None and generation.cite == "none" and node.key.key.endswith("cite"):
        yield Remark("'cite: none' leaves out nothing: without 'knowledge' nothing is cited; leave it out", node.key)
    if generation.redraft and policy.stream:
        yield Remark("'cite' makes a stream wait: a draft that may be made again cannot be shown; change one", node.key)
    if generation.redraft and generation.sampling.temperature == 0:
        yield Remark(
            "the second draft of 'cite' is mostly the first again, at 'temperature: 0'; raise it, or say 'then: drop'",
            node.key,
        )


def _rails(policy: Policy) -> Iterator[Remark]:
    for stage, uses in policy.rails.items():
        for i, use in enumerate(uses):
            told = [*_rail(policy, use), *_fires(policy, use, uses[:i])]
            slow = [before.name for before in uses[:i] if may_wait(before.rail_class, before.config)]
            if stage == "input" and policy.generation.ahead and use.then == "mask" and slow:
                told.append(f"nothing is drafted ahead before rail {use.name!r} has masked; put it above {slow[0]!r}")
            if stage == "output" and policy.stream and (why := waits_for_the_end(use, policy.stream)):
                told.append(
                    f"rail {use.name!r} makes a stream wait for the whole answer: {why}; change it, or 'stream'"
                )
            yield from (Remark(words, use.place) for words in told)


def _rail(policy: Policy, use: RailUse) -> Iterator[str]:
    """What a rail says of itself that may not be meant."""
    if use.mode == "enforce" and use.on_error == "allow":
        yield f"rail {use.name!r} lets through what it cannot judge (on_error: allow); 'block' is safe"
    needy = use.rail == "grounding" and use.config.model_dump()["require_passages"]
    if needy and use.mode == "enforce" and policy.knowledge is None:
        yield f"rail {use.name!r} supports no answer: the policy names no 'knowledge'; name it, or leave the rail out"
    if use.mode == "observe" and use.then != "block":
        yield f"rail {use.name!r} only observes, so 'then: {use.then}' does nothing; leave one of them out"


def _fires(policy: Policy, use: RailUse, before: Sequence[RailUse]) -> Iterator[str]:
    """Why a rail can never change anything."""
    if use.when is not None:
        match constant(use.when, policy.vars):
            case "never":
                yield f"rail {use.name!r} never fires: no value makes its 'when' true; correct it, or leave it out"
            case "always":
                yield f"the 'when' of rail {use.name!r} is always true; correct it, or leave it out"
    for other in before:
        same = (other.rail_class, other.config) == (use.rail_class, use.config)
        as_often = other.when is None or (use.when is not None and other.when.source == use.when.source)
        if same and as_often and other.mode == "enforce" and other.on_error == "block":
            yield f"rail {use.name!r} never fires: {other.name!r} before it finds the same; leave one of them out"
            return


def _top(policy: Policy) -> Place:
    return Place(str(policy.file), 1, 1)
