"""What a policy writes and never uses: models, variables, words of refusal, and tests that cannot fail.

This file compares what is written with what can be asked, read or said. It runs nothing.
"""

import re
from collections.abc import Iterator, Sequence

from trackbed.rails.cost import Cost, worst_case
from trackbed.rails.policy import REASONS, Policy, PolicyTest
from trackbed.rails.remark import Remark
from trackbed.rails.source import Node
from trackbed.rails.use import RailUse, named_models

READ = re.compile(r"\bvars\s{0,9}(?:\.\s{0,9}([A-Za-z]\w{0,99})|\[\s{0,9}['\"]([A-Za-z]\w{0,99})['\"])")
ANY = re.compile(r"\bvars\s{0,9}(?:\[\s{0,9}[^'\"\s]|(?!\s{0,9}[.\[]))")  # `vars` read by a name that is not written


def unused(policy: Policy, root: Node) -> Iterator[Remark]:
    """What is written in the policy's tree and never used."""
    yield from _models(policy, root)
    yield from _vars(policy, root)
    yield from _refusals(policy, root)
    asked, cost = asked_models(policy), worst_case(policy)
    said = [text for key, node in root.keys.items() if key != "tests" for text in _texts(node)]
    for i, test in enumerate(policy.tests):
        node = root.at(["tests", i])
        yield from _scripts(test, asked, node)
        yield from _leaks(test, said, node)
        if "dialog" not in root.keys and test.call is None:
            yield from _calls(test, cost, node)


def asked_models(policy: Policy) -> set[str]:
    """The models that something in the policy asks."""
    asked = {policy.generation.model, *(model for use in _uses(policy) for _, model in named_models(use.config))}
    if policy.knowledge:
        asked |= {name for name in (policy.knowledge.asks, policy.knowledge.rerank) if name}
    return asked | {policy.dialog.model} if policy.dialog and policy.dialog.model else asked


def _models(policy: Policy, root: Node) -> Iterator[Remark]:
    asked = asked_models(policy)
    for name, node in _under(root, "models").items():
        if name not in asked:
            yield Remark(f"model {name!r} is named and never asked; have a rail ask it, or leave it out", node.key)


def _vars(policy: Policy, root: Node) -> Iterator[Remark]:
    if any(":" in use.rail for use in _uses(policy)):
        return  # a rail of somebody's own may read any variable
    said = [text for key, node in root.keys.items() if key not in ("vars", "tests") for text in _texts(node)]
    if any(ANY.search(text) for text in said if "{" in text or "'" in text):
        return
    read = {name for text in said for found in READ.findall(text) for name in found}
    asks = _nodes(root.keys["dialog"]) if "dialog" in root.keys else ()
    read |= {str(node.value) for node in asks if node.place.key.endswith("ask.var")}  # for the conversation's state
    for name, node in _under(root, "vars").items():
        if name not in read:
            yield Remark(
                f"variable {name!r} is never read; use it in a 'when' or a template, or leave it out", node.key
            )


def _refusals(policy: Policy, root: Node) -> Iterator[Remark]:
    """Words of refusal that no block can lead to; those of another file are its business."""
    said = _sayable(policy)
    rails = {key for use in _uses(policy) for key in (use.name, use.id)}
    for key, node in _under(root, "refuse").items():
        known = key in rails or key in REASONS
        if known and key not in said and node.place.file == str(policy.file):
            yield Remark(f"nothing leads to the words of refusal {key!r}; leave them out", node.key)


def _sayable(policy: Policy) -> set[str]:
    """The words of refusal that some block leads to, or that stand behind all others."""
    said = {"default"}
    if policy.budget.wall is not None:
        said.add("timeout")
    if policy.budget.model_calls is not None:
        said.add("error")
    if policy.dialog and (policy.dialog.intents or policy.dialog.actions):
        said |= {"timeout", "error"}
    if policy.tools:  # which block what they do not allow
        said.add("policy")
    for use in _uses(policy):
        if use.mode == "observe" or (use.stage == "retrieval" and policy.knowledge is None):
            continue
        if use.on_error == "block":
            said |= {"timeout", "error"}
        if use.then not in ("drop", "quote"):  # which always find something to put in place
            said.add(next(key for key in (use.name, use.id, "policy", "default") if key in policy.refuse))
    return said


def _scripts(test: PolicyTest, asked: set[str], node: Node) -> Iterator[Remark]:
    """Models that a test has say something, and that nobody asks."""
    for name in test.model:
        if name not in asked:
            place = node.at(["model", name]).key
            yield Remark(f"model {name!r} is never asked, so what it is to answer shows nothing; leave it out", place)


def _leaks(test: PolicyTest, said: Sequence[str], node: Node) -> Iterator[Remark]:
    """Texts that cannot leak, since nobody says them."""
    given = [*(turn.text for turn in test.before), *(message.content for message in test.messages), *said]
    given += [*(test.passages or ()), *map(str, test.actions.values())]
    given += [answer for answers in test.model.values() for answer in answers]
    for text in test.expect.leaked:
        if not any(text in words for words in given):
            yield Remark(
                f"nothing in this test says {text!r}, so it cannot leak; have the user, a passage or the model say it",
                node.at(["expect", "leaked"]).key,
            )


def _calls(test: PolicyTest, cost: Cost, node: Node) -> Iterator[Remark]:
    """A bound that no turn of this policy can exceed."""
    most, bound = cost.model_calls + cost.per_message * (len(test.messages) - 1), test.expect.model_calls
    if bound is not None and bound >= most:
        yield Remark(
            f"this turn asks models {most} times at most, so 'model_calls: {bound}' expects nothing; lower it",
            node.at(["expect", "model_calls"]).key,
        )


def _under(root: Node, key: str) -> dict[str, Node]:
    return root.keys[key].keys if key in root.keys else {}


def _uses(policy: Policy) -> list[RailUse]:
    return [use for uses in policy.rails.values() for use in uses]


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in [*node.keys.values(), *node.items]:
        yield from _nodes(child)


def _texts(node: Node) -> Iterator[str]:
    """Every text in a tree."""
    yield from (child.value for child in _nodes(node) if isinstance(child.value, str))
