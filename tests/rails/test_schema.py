"""The JSON Schema that editors complete from."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from trackbed.rails import RAILS
from trackbed.rails.extends import POLICIES, shipped
from trackbed.rails.schema import policy_schema
from trackbed.rails.source import read_source

EXAMPLES = Path(__file__).parents[2] / "examples" / "policies"
WRITTEN = [*(POLICIES / f"{name}.yaml" for name in shipped()), *sorted(EXAMPLES.glob("*.yaml"))]


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema.Draft202012Validator.check_schema(policy_schema())
    return jsonschema.Draft202012Validator(policy_schema())


@pytest.mark.parametrize("file", WRITTEN, ids=lambda file: file.stem)
def test_a_written_policy_fits(validator: Any, file: Path) -> None:
    validator.validate(read_source(file).plain())


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "input: [{rail: length, max_chars: 3, then: block, timeout: 2s, when: vars.x, on_error: allow, mode: observe}]",
        "input: [{rail: 'acme.rails:Competitors', names: [Initech], threshold: 0.5}]",
        "output: {rails: [{rail: length, max_chars: 3}]}",
        "output: [{rail: length, max_chars: 3}]",
        "vars: {a: {type: string, default: b}}",
        "tests: [{user: a, model: {chat: [a, b]}, expect: {leaked: [a]}}]",
        "tests: [{user: a, model: {chat: a}, expect: {by: x}}]",
        "tests: [{call: {name: a, args: {x: [1]}, confirmed: true}, expect: {action: allow}}]",
        "tests: [{result: {name: a, text: b}, expect: {action: allow}}]",
        "tools: {allow: [a], confirm: [a], results: [{rail: injection}]}",
        "tools: {allow: [a], calls: [{rail: pii, then: mask}, {rail: rule, tool: a, require: x <= 3}]}",
        "tools: {allow: [a], calls: [{rail: schema, schemas: {a: {type: object, properties: {x: {}}}}}]}",
        "dialog: {intents: {a: {examples: [b]}}, classify: {model: none}, flows: [{intent: a, do: [stop]}]}",
        "dialog: {flows: [{id: a, do: [generate, {generate: {prompt: x}}, {generate: }, {stop: }, {stop: true}]}]}",
        "dialog: {flows: [{id: a, do: [{if: vars.x, then: [{say: a}], else: [{if: vars.y, then: [stop]}]}]}]}",
        "dialog: {flows: [{id: a, do: [{call: {action: 'a.b:c', args: {x: 1}, save: y, timeout: 2s}}]}]}",
        "dialog: {flows: [{id: a, do: [{ask: {var: a, say: b, times: 2, again: c, otherwise: d}}, {goto: l}]}]}",
    ],
)
def test_what_the_loader_reads_fits(validator: Any, text: str) -> None:
    validator.validate({"policy": 1} | yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "inptu: []",
        "policy: 2",
        "input: []",
        "input: length",
        "input: [{rail: lenght}]",
        "input: [{rail: length, max_char: 3}]",
        "input: [{rail: length, max_chars: a}]",
        "input: [{rail: length, max_chars: 3, then: mask}]",
        "input: [{rail: pii, then: drop}]",
        "input: [{rail: length, max_chars: 3, timeout: 2}]",
        "input: [{max_chars: 3}]",
        "output: {}",
        "output: {rails: []}",
        "output: {stream: {hold_back: 0}, rails: [{rail: length, max_chars: 3}]}",
        "dialog: {}",
        "dialog: {flows: []}",
        "dialog: {flows: [{do: [stop]}]}",
        "dialog: {flows: [{id: a, intent: a, do: [stop]}]}",
        "dialog: {flows: [{id: a, do: []}]}",
        "dialog: {flows: [{id: a, do: [halt]}]}",
        "dialog: {flows: [{id: a, do: [{sya: x}]}]}",
        "dialog: {flows: [{id: a, do: [{say: x, stop: true}]}]}",
        "dialog: {flows: [{id: a, do: [{if: vars.x, then: [{sya: x}]}]}]}",
        "dialog: {flows: [{id: a, do: [{ask: {var: a}}]}]}",
        "dialog: {flows: [{id: a, do: [{call: {action: x}}]}]}",
        "dialog: {flows: [{id: a, do: [{set: {}}]}]}",
        "dialog: {flows: [{id: a, do: [{stop: false}]}]}",
        "dialog: {intents: {a: {examples: []}}, flows: [{intent: a, do: [stop]}]}",
        "knowledge: {passages: 3}",
        "knowledge:",
        "generation: {sampling: {temperature: -1}}",
        "models: {big: {openai: x}}",
        "tests: [{user: a}]",
        "tests: [{user: a, call: {name: a}, expect: {action: allow}}]",
        "tests: [{call: {args: {}}, expect: {action: allow}}]",
        "tools: {calls: [{rail: pii}]}",
        "tools: {allow: []}",
        "tools: {allow: [a b]}",
        "tools: {allow: [a], calls: []}",
        "tools: {allow: [a], calls: [{rail: grounding}]}",
        "tools: {allow: [a], calls: [{rail: schema}]}",
        "tools: {allow: [a], calls: [{rail: rule, tool: a}]}",
        "input: [{rail: rule, tool: a, require: x}]",
        "tests: [{user: a, messages: [{user: a}], expect: {action: allow}}]",
        "tests: [{expect: {action: allow}}]",
        "tests: [{user: a, expect: {}}]",
        "tests: [{messages: [{user: a, system: b}], expect: {action: allow}}]",
        "budget: {}",
        "budget: {max_wait: 2s}",
        "input: [{rail: length}]",
        "knowledge: {index: kb, retriever: bm26}",
        "generation: {sampling: {stop: []}}",
        "input: [{rail: llama_guard, block: []}]",
        "tests: [{user: a, expect: {actoin: block}}]",
    ],
)
def test_what_the_loader_refuses_does_not_fit(validator: Any, text: str) -> None:
    assert not validator.is_valid({"policy": 1} | yaml.safe_load(text))


def test_each_rail_brings_its_own_keys_and_says_what_they_are() -> None:
    definitions = policy_schema()["$defs"]
    for name in RAILS:
        stages = [words for key, words in definitions.items() if key.partition(".")[2] == name]
        assert stages
        assert all(words["description"] and words["properties"]["rail"]["const"] == name for words in stages)


def test_it_is_the_same_each_time(tmp_path: Path) -> None:
    assert policy_schema() == policy_schema()
