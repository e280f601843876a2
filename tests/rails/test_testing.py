"""The tests of a policy: what they find, and what they never load."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from trackbed.llm.types import Message, Part, RawPrompt, SamplingParams
from trackbed.rails.config import ModelName, RailConfig
from trackbed.rails.errors import RailFailed
from trackbed.rails.policy import Policy, load_policy
from trackbed.rails.scripted import Scripted
from trackbed.rails.testing import Report, run_tests
from trackbed.rails.types import Finding, Models, Stage, Streams, Then, Turn, Verdict

Load = Callable[[str], Policy]


class Words:
    """Objects to words."""

    class Config(RailConfig):
        words: tuple[str, ...]

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "output", "retrieval"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask", "drop"})

    def __init__(self, config: Config, models: Models) -> None:
        self.words = config.words

    async def check(self, turn: Turn) -> Verdict:
        found = [(turn.text.find(word), word) for word in self.words if word in turn.text]
        findings = tuple(Finding("WORD", start, start + len(word)) for start, word in found)
        return Verdict.block(findings=findings) if found else Verdict.allow()


class Guard:
    """Asks a model for the probability of `unsafe`, as classifiers do."""

    class Config(RailConfig):
        model: ModelName

    stages: ClassVar[frozenset[Stage]] = frozenset({"input"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block"})

    def __init__(self, config: Config, models: Models) -> None:
        self.model = models.generators[config.model]

    async def check(self, turn: Turn) -> Verdict:
        prompt = RawPrompt((Part(turn.text),))
        safe, unsafe = await self.model.score(prompt, ["safe", "\n\nunsafe"])
        answer = await self.model.generate(prompt, SamplingParams())
        if safe == unsafe:
            raise RailFailed(f"answered {answer.text!r}")
        return Verdict.block(detail=answer.text) if unsafe > safe else Verdict.allow()


class Hasty(Words):
    """Says of a text that is still being written that all of it is settled."""

    streams: ClassVar[Streams] = "spans"

    def held(self, turn: Turn) -> int:
        return len(turn.text)


class Fussy(Words):
    """Objects to every beginning of a text that it would let pass when it is whole."""

    streams: ClassVar[Streams] = "prefix"

    async def check(self, turn: Turn) -> Verdict:
        return Verdict.allow() if turn.text.endswith(".") else Verdict.block()


POLICY = f"""policy: 1
models: {{guard: llama-guard-3-1b}}
knowledge: {{index: kb}}
generation: {{unknown: no idea}}
vars: {{tier: {{type: string, default: guest}}}}
input:
  - {{rail: '{__name__}:Words', id: rude, words: [rude], when: vars.tier != 'staff'}}
  - {{rail: '{__name__}:Words', id: card, words: ['4111', '4222'], then: mask}}
  - {{rail: '{__name__}:Guard', id: guard, model: guard}}
  - {{rail: '{__name__}:Words', id: seen, words: [odd], mode: observe}}
retrieval:
  - {{rail: '{__name__}:Words', id: orders, words: [obey], then: drop}}
output:
  - {{rail: '{__name__}:Words', id: leak, words: [secret], then: mask}}
refuse: {{default: no, timeout: late}}
tests:
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(tests: str) -> Policy:
        file = tmp_path / "acme.yaml"
        file.write_text(POLICY + tests)
        return load_policy(file)

    return load


@pytest.mark.parametrize(
    "test",
    [
        "{user: hello, expect: {action: allow, model_calls: 3}}",
        "{user: rude, expect: {action: block, by: input/rude, reason: policy, text: no, model_calls: 0}}",
        "{user: rude, vars: {tier: staff}, expect: {action: allow}}",
        "{user: is 4111 mine, expect: {action: rewrite, by: input/card, text: is <WORD> mine}}",
        "{messages: [{user: is 4111 mine}, {user: hello}], expect: {action: rewrite, by: input/card}}",
        '{user: hello, model: {guard: "unsafe\\nS1"}, expect: {action: block, by: input/guard}}',
        '{messages: [{user: a}, {user: b}], model: {guard: [safe, "unsafe\nS1"]}, expect: {by: input/guard}}',
        "{user: hello, model: {guard: [safe, unsafe]}, expect: {action: allow}}",
        "{user: hello, model: {guard: perhaps}, expect: {action: block, by: input/guard, reason: error}}",
        "{user: hello, model: {chat: the secret}, expect: {by: output/leak, text: the <WORD>, leaked: [secret]}}",
        "{user: a, passages: [fine, you obey], expect: {action: rewrite, by: retrieval/orders, leaked: [obey]}}",
        "{user: a, passages: [fine], model: {chat: 'Fine. [1]'}, expect: {action: allow}}",
        "{user: a, passages: [], expect: {text: no idea, model_calls: 2}}",
        "{user: a, fail: {input/rude: timeout}, expect: {action: block, by: input/rude, reason: timeout, text: late}}",
        "{user: a, fail: {input/rude: error}, expect: {action: block, reason: error, text: no}}",
        "{user: a, fail: {output/leak: nonsense}, expect: {action: block, by: output/leak, reason: error}}",
        "{user: rude, expect: {stage: input}}",
        "{user: is 4111 mine, model: {chat: it is}, expect: {leaked: ['4111']}}",
        "{user: is odd mine, model: {chat: it is}, expect: {leaked: [odd]}}",
        "{user: ru, repeat: 2, expect: {action: allow}}",
        "{user: 'ude r', repeat: 2, expect: {action: block, by: input/rude}}",
        "{user: a, passages: [Rails judge each text.], model: {chat: Rails judge each text.}, expect: {citations: 1}}",
        "{user: a, passages: [fine], model: {chat: Grass is green.}, expect: {citations: 0}}",
        "{user: 4111, model: {chat: secret}, expect: {action: rewrite, by: output/leak}}".replace("4111", "'4111'"),
    ],
)
async def test_a_test_that_is_right_passes(load: Load, test: str) -> None:
    (outcome,) = (await run_tests(load(f"  - {test}"))).outcomes
    assert outcome.differences == ()


@pytest.mark.parametrize(
    ("cite", "test"),
    [
        ("required", "{chat: Rails judge. Bananas.}, expect: {citations: 1, by: output/cite, leaked: [Bananas]}"),
        ("required", "{chat: 'Bananas. [1]'}, expect: {citations: 0, stage: output, text: no idea}"),
        ("required", "{chat: Rails judge.}, expect: {citations: 1, action: allow}"),
        ("when_possible", "{chat: Rails judge. No.}, expect: {citations: 1, text: 'Rails judge. [1] No.'}"),
        ("none", "{chat: 'Rails judge. [1]'}, expect: {citations: 0, text: Rails judge.}"),
    ],
)
async def test_what_is_cited_can_be_tested(tmp_path: Path, cite: str, test: str) -> None:
    file = tmp_path / "acme.yaml"
    text = POLICY.replace("unknown: no idea", f"unknown: no idea, cite: {cite}")
    file.write_text(f"{text}  - {{user: a, passages: [Rails judge each text.], model: {test}}}")
    assert (await run_tests(load_policy(file))).outcomes[0].differences == ()


@pytest.mark.parametrize(
    ("test", "key", "found"),
    [
        ("{user: hello, expect: {action: block}}", "action", "allow"),
        ("{user: rude, expect: {by: input/card}}", "by", "input/rude"),
        ("{user: odd, expect: {by: input/seen}}", "by", ""),
        ("{user: rude, expect: {reason: timeout}}", "reason", "policy"),
        ("{user: rude, expect: {text: yes}}", "text", ["no"]),
        ("{user: hello, model: {chat: a b}, expect: {leaked: [b, c]}}", "leaked", ["'b' in the reply"]),
        ("{user: is 4111 x4222, expect: {leaked: [x]}}", "leaked", ["'x' in what the model was shown"]),
        ("{user: rude, expect: {stage: output}}", "stage", "input"),
        ("{user: hello, expect: {citations: 2}}", "citations", 0),
        ("{user: hello, expect: {model_calls: 1}}", "model_calls", 3),
        ("{user: hello, vars: {tier: 3}, expect: {action: allow}}", "error", None),
    ],
)
async def test_a_test_that_is_wrong_says_what_was_found(load: Load, test: str, key: str, found: object) -> None:
    report = await run_tests(load(f"  - {test}"))
    (difference,) = report.outcomes[0].differences
    assert difference.key == key
    assert key == "error" or difference.found == found
    assert not report.passed


@pytest.mark.parametrize(
    ("rail", "test", "found"),
    [
        ("Hasty", "{user: a, model: {chat: the secret}, expect: {leaked: [secr]}}", ["shows 'the secr'"]),
        ("Words", "{user: a, model: {chat: the secret}, expect: {leaked: [secr]}}", []),
        (
            "Fussy",
            "{user: a, model: {chat: All is well.}, expect: {text: All is well.}}",
            ["shows 'no'", "text 'no'", "action 'block'", "by 'output/leak'", "reason 'policy'"],
        ),
        ("Words", "{user: a, model: {chat: All is well.}, expect: {text: All is well.}}", []),
    ],
)
async def test_a_stream_that_comes_to_something_else_fails_the_test(
    tmp_path: Path, rail: str, test: str, found: list[str]
) -> None:
    then = "block" if rail == "Fussy" else "mask"
    (tmp_path / "p.yaml").write_text(
        f"policy: 1\noutput: [{{rail: '{__name__}:{rail}', id: leak, words: [secret], then: {then}}}]\n"
        f"refuse: {{default: no}}\ntests: [{test}]\n"
    )
    (outcome,) = (await run_tests(load_policy(tmp_path / "p.yaml"))).outcomes
    assert [difference.key for difference in outcome.differences] == ["streamed"] * len(found)
    assert [difference.found for difference in outcome.differences] == found


async def test_a_scripted_judge_says_of_a_beginning_what_it_says_of_the_whole() -> None:
    async def answers(model: Scripted, *asked: str) -> list[str]:
        return [(await model.generate([Message("user", text)], SamplingParams())).text for text in asked]

    first = Scripted(["safe", "unsafe"], "")
    assert await answers(first, "question", "the draft is long") == ["safe", "unsafe"]
    again = Scripted([], "", before=first)
    assert await answers(again, "the dra", "question", "the draft is long") == ["unsafe", "safe", "unsafe"]


async def test_a_report_names_the_rails_that_objected_in_no_test(load: Load) -> None:
    report = await run_tests(
        load(
            "  - {user: rude, expect: {action: block}}\n"
            "  - {user: odd, expect: {action: allow}}\n"
            "  - {user: a, fail: {input/card: error}, expect: {action: block}}\n"
        )
    )
    assert report.unexercised == ("input/card", "input/guard", "retrieval/orders", "output/leak")


async def test_a_report_is_json(load: Load) -> None:
    report: Report = await run_tests(load("  - {user: hello, expect: {action: block}}"))
    found = json.loads(json.dumps(report.as_json()))
    assert (found["passed"], found["failed"]) == (0, 1)
    assert found["tests"][0]["place"].endswith("acme.yaml:17:5")
    assert found["tests"][0]["differences"] == [{"key": "action", "expected": "block", "found": "allow"}]
