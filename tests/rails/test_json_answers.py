"""JSON answers: what fits its schema passes, and whatever parsers read in different ways does not."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.fakes import ScriptedGenerator
from trackbed.rails.errors import PolicyError
from trackbed.rails.library.json_schema import JsonSchema
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import load_policy
from trackbed.rails.types import Models, Turn, Verdict

ORDER = {
    "type": "object",
    "properties": {"id": {"type": "integer", "minimum": 1}, "items": {"type": "array", "items": {"type": "string"}}},
    "required": ["id"],
    "additionalProperties": False,
}


def judge(text: str, schema: Any = ORDER, **config: Any) -> Verdict:
    rail = JsonSchema(JsonSchema.Config.model_validate({"schema": schema, **config}), Models())
    return asyncio.run(rail.check(Turn("", text=text, stage="output")))


@pytest.mark.parametrize(
    "text",
    [
        '{"id": 7}',
        '{"id": 7, "items": []}',
        '{"id": 7, "items": ["a", "b"]}',
        ' \n{"id": 7}\n ',
        '```json\n{"id": 7}\n```',
        '```\n{"id": 7}\n```',
        '```JSON\n\n{"id":\n7}\n\n```\n',
        '{"items": ["NaN", "```"], "id": 1}',
        '{"id": 1, "items": ["é\\n\\u00e9"]}',
        '{"id": 12345678901234567890}',
        '{"items": ["<b>", "{"], "id": 2}',
        '{"id": 1.0}',
    ],
)
def test_an_answer_that_fits_passes(text: str) -> None:
    assert judge(text).action == "allow"


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "the answer is not JSON: line 1, column 1"),
        ("Sure! Here it is.", "the answer is not JSON: line 1, column 1"),
        ('Here: {"id": 7}', "the answer is not JSON: line 1, column 1"),
        ('{"id": 7} I hope that helps.', "the answer is not JSON: line 1, column 11"),
        ('{"id": 7}{"id": 8}', "the answer is not JSON: line 1, column 10"),
        ('{"id": 7,}', "the answer is not JSON"),
        ("{'id': 7}", "the answer is not JSON: line 1, column 2"),
        ('{"id": 7, "id": 8}', "the answer has a key twice in one object"),
        ('{"id": NaN}', "the answer holds NaN or Infinity, which JSON has not"),
        ('{"id": -Infinity}', "the answer holds NaN or Infinity, which JSON has not"),
        ("7", "the answer is no object"),
        ("[]", "the answer is no object"),
        ("{}", "the answer: 'id' is missing"),
        ('{"id": "7"}', "the answer: id: is no integer"),
        ('{"id": 0}', "the answer: id: is below 1"),
        ('{"id": 7, "items": ["a", 2]}', "the answer: items.1: is no string"),
        ('{"id": 7, "more": 1}', "the answer has a key that it does not take"),
        ('```json\n{"id": 7}\n```\nThat is all.', "the answer is not JSON: line 1, column 1"),
        ('```json\n{"id": 7}', "the answer is not JSON: line 1, column 1"),
        ('```python\n{"id": 7}\n```', "the answer is not JSON: line 1, column 1"),
        ("[" * 100_000, "the answer nests too deep"),
        ('{"id": ' + "9" * 10_000 + "}", "the answer holds a number that is too long"),
        (" " + "1" * 1_000_001, "the answer has more than 1000000 characters"),
        ('{"id": 7, "items": ["\ud800"', "the answer is not JSON"),
    ],
)
def test_an_answer_that_does_not_fit_is_told_by_its_place(text: str, detail: str) -> None:
    verdict = judge(text)
    assert (verdict.action, verdict.categories) == ("block", ("json",))
    assert verdict.detail.startswith(detail)


def test_a_mistake_quotes_nothing_of_the_answer() -> None:
    assert "hunter2" not in judge('{"id": "hunter2"}').detail
    assert "hunter2" not in judge('{"id": 1, "hunter2": 2}').detail


def test_a_fence_may_be_refused() -> None:
    assert judge('```json\n{"id": 7}\n```', fenced=False).action == "block"
    assert judge('{"id": 7}', fenced=False).action == "allow"


def test_an_answer_need_be_no_object() -> None:
    colours = {"type": "array", "items": {"enum": ["red", "blue"]}, "minItems": 1}
    assert judge('["red", "blue"]', colours).action == "allow"
    assert judge('["green"]', colours).action == "block"
    assert judge("[]", colours).action == "block"


@pytest.mark.parametrize("schema", [{}, [], "object", {"maxmum": 3}, {"$ref": "https://example.org"}, {"type": "int"}])
def test_a_schema_that_is_none_is_refused(schema: object) -> None:
    with pytest.raises(ValidationError):
        JsonSchema.Config.model_validate({"schema": schema})


def test_in_a_policy_the_key_is_schema_and_its_mistakes_have_their_place(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("policy: 1\noutput:\n  - rail: json_schema\n    schema: {type: object, maxmum: 3}\n")
    with pytest.raises(PolicyError, match=r"p\.yaml:4:\d+: .*'maxmum' is not a key"):
        load_policy(file)
    file.write_text("policy: 1\noutput:\n  - rail: json_schema\n    schem: {type: object}\n")
    with pytest.raises(PolicyError, match=r"p\.yaml:\d+:\d+: .*schema"):
        load_policy(file)
    file.write_text("policy: 1\noutput:\n  - rail: json_schema\n    schema_: {type: object}\n")
    with pytest.raises(PolicyError):
        load_policy(file)


async def test_a_second_draft_may_fit(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text(json.dumps(ORDER))
    file = tmp_path / "p.yaml"
    file.write_text(
        "policy: 1\nmodels: {chat: smollm2-135m-instruct}\n"
        "output: [{rail: json_schema, schema: !include order.json, then: regenerate}]\n"
    )
    model = ScriptedGenerator("Sure!", '{"id": 3}')
    reply = await Pipeline(load_policy(file), Models({"chat": model})).respond(Turn("order three"))
    assert reply.text == '{"id": 3}'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.booleans())
def test_every_json_value_is_one_with_and_without_a_fence(value: object, fenced: bool) -> None:
    text = json.dumps(value)
    anything = {"description": "anything"}
    assert judge(f"```json\n{text}\n```" if fenced else text, anything).action == "allow"
    assert judge(text[:-1] + " x", anything).action == "block"
