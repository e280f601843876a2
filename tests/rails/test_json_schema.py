"""The part of JSON Schema that tools' arguments are checked with, beside a whole validator and hostile schemas."""

import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackbed.rails.json_schema import WORDS, compile_schema


def of(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": schema}}


NUMBERS = st.integers(-4, 9) | st.sampled_from([0.5, 1.0, 2.0, 2.5, -1.5, 1e300])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text("ab1\u00e9 ", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
SIZES = st.integers(0, 3)
TYPES = st.sampled_from(["string", "boolean", "null", "number", "integer", "array", "object"])
PLAIN = st.fixed_dictionaries(
    {},
    optional={
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "const": VALUES,
        **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), NUMBERS),
        "multipleOf": st.integers(1, 4),
        **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), SIZES),
        "pattern": st.sampled_from(["a+", "^b", "^[a-c]{1,2}", "1|^ "]),
        "uniqueItems": st.booleans(),
        "$ref": st.sampled_from(["#/$defs/short", "#/$defs/list"]),
    },
)
DEFINITIONS = {"short": {"maxLength": 1}, "list": {"items": {"$ref": "#/$defs/short"}}}


def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    part = inner | st.booleans()
    several = st.lists(part, min_size=1, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from("abc"), part, max_size=3),
            "additionalProperties": part,
            "propertyNames": part,
            "items": part,
            "not": part,
            **dict.fromkeys(("allOf", "anyOf", "oneOf"), several),
        },
    ) | st.fixed_dictionaries({"required": st.lists(st.sampled_from("abc"), max_size=2, unique=True)})


SCHEMAS = st.recursive(PLAIN, larger, max_leaves=6)


@given(SCHEMAS, VALUES)
def test_it_says_what_a_whole_validator_says(schema: dict[str, Any], value: Any) -> None:
    whole = of(schema) | {"$defs": DEFINITIONS}
    expected = jsonschema.Draft202012Validator(whole).is_valid({"x": value})
    assert (compile_schema(whole)({"x": value}) == "") == expected


@pytest.mark.parametrize(
    ("schema", "value", "mistake"),
    [
        ({"type": "integer"}, 1.5, "x: is no integer"),
        ({"type": ["string", "null"]}, 1, "x: is no string or null"),
        ({"maximum": 100}, 101, "x: is above 100"),
        ({"properties": {"y": {"minLength": 2}}}, {"y": "a"}, "x.y: has fewer than 2 characters"),
        ({"items": {"enum": ["a"]}}, ["a", "b"], "x.1: is none of the allowed values"),
        ({"additionalProperties": False}, {"secret": 1}, "x: has a key that it does not take"),
        ({"propertyNames": {"pattern": "^a"}}, {"secret": 1}, "x: has a key that is not allowed"),
        ({"required": ["y"]}, {}, "x: 'y' is missing"),
        ({"multipleOf": 0.01}, 0.3, ""),
        ({"multipleOf": 0.01}, 0.305, "x: is no multiple of 0.01"),
        ({"const": 1}, True, "x: is none of the allowed values"),
        ({"pattern": "^a$"}, "a\n", "x: does not have the form that it takes"),
        ({"pattern": "a"}, "\ud800a", ""),
    ],
)
def test_a_mistake_is_told_with_its_place_and_without_its_value(schema: Any, value: Any, mistake: str) -> None:
    assert compile_schema(of(schema))({"x": value}) == mistake


@pytest.mark.parametrize(
    ("format", "right", "wrong"),
    [
        ("date", "2026-02-28", "2026-02-30"),
        ("date", "2024-02-29", "20240229"),
        ("date-time", "2026-02-28T10:00:00Z", "2026-02-28T10:00:00"),
        ("date-time", "2026-02-28t10:00:00.5+01:00", "2026-02-28 10:00"),
        ("email", "a@b.org", "a@b@c"),
        ("ipv4", "10.0.0.1", "10.0.0.256"),
        ("ipv6", "::1", "::1%eth0"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567e89b12d3a456426614174000"),
    ],
)
def test_a_format_is_checked(format: str, right: str, wrong: str) -> None:
    check = compile_schema(of({"format": format}))
    assert (check({"x": right}), check({"x": wrong}), check({"x": 1})) == ("", f"x: is no {format}", "")


LAUGHS = {f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(30)} | {"a30": {}}
DEEP: dict[str, Any] = {}
for _ in range(200):
    DEEP = {"not": DEEP}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, "begins with type: object"),
        ([], "begins with type: object"),
        ({"type": "array"}, "begins with type: object"),
        (of({"maxmum": 3}), "'properties.x.maxmum' is not a key of a tool's schema; did you mean 'maximum'?"),
        (of({"patternProperties": {"(a+)+$": {}}}), "'properties.x.patternProperties' is not a key"),
        (of({"$ref": "http://localhost/schema"}), "'properties.x.$ref' is not of the form #/$defs/name; nothing else"),
        (of({"$ref": "file:///etc/passwd"}), "nothing else is looked up"),
        (of({"$ref": "#"}), "nothing else is looked up"),
        (of({"$ref": "#/properties/x"}), "nothing else is looked up"),
        (of({"$ref": ["#/$defs/a"]}), "nothing else is looked up"),
        (of({"$ref": "#/$defs/a"}), "leads to nothing"),
        (of({"$id": "http://a"}), "'properties.x.$id' is not a key"),
        (of({"$ref": "#/$defs/a"}) | {"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, "leads back to itself"),
        (of({"$ref": "#/$defs/a0"}) | {"$defs": LAUGHS}, "more than 2000 parts"),
        (of(DEEP), "nests too deep"),
        (of({"pattern": "(?=a)"}), "has no look-around"),
        (of({"pattern": "(a{1000}){1000}"}), "'properties.x.pattern' pattern"),
        (of({"pattern": 3}), "takes a regular expression"),
        (of({"type": "strin"}), "is 'strin', which is no type; did you mean 'string'?"),
        (of({"type": [[]]}), "which is no type"),
        (of({"enum": []}), "takes a list that is not empty"),
        (of({"anyOf": {}}), "takes a list that is not empty"),
        (of({"maximum": "3"}), "takes a number"),
        (of({"multipleOf": 0}), "takes a number above 0"),
        (of({"maxLength": -1}), "takes a whole number"),
        (of({"maxLength": True}), "takes a whole number"),
        (of({"uniqueItems": 1}), "takes true or false"),
        (of({"format": "hostname"}), "is 'hostname', which is not checked"),
        (of({"format": []}), "which is not checked"),
        (of({"items": [{}]}), "is no schema"),
        (of({"properties": []}), "takes names with schemas"),
        (of({"required": "x"}), "takes a list of names"),
        (of({}) | {"required": ["y"]}, "names 'y', which is none of the properties"),
        ({"type": "object", "$defs": {"a": {"maxmum": 3}}}, "'$defs.a.maxmum' is not a key"),
        ({"type": "object", "$defs": 3}, "takes names with schemas"),
    ],
)  # fmt: skip
def test_a_schema_that_cannot_be_checked_is_refused_at_once(schema: Any, expected: str) -> None:
    started = time.process_time()
    with pytest.raises(ValueError) as caught:
        compile_schema(schema)
    assert expected in str(caught.value)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("value", [None, 3, -1, "a", [], [1], {}, {"a": 1}, {"a": []}, True], ids=repr)
def test_any_value_of_a_word_is_read_or_refused(word: str, value: Any) -> None:
    try:
        check = compile_schema(of({word: value}))
    except ValueError:
        return
    assert isinstance(check({"x": "a"}) + check({"x": {"a": [1]}}) + check({"x": [1, "a"]}), str)


def test_a_long_list_of_different_things_is_checked_in_linear_time() -> None:
    check = compile_schema(of({"uniqueItems": True, "items": {"anyOf": [{"pattern": "(a*)*b$"}, {"type": "integer"}]}}))
    started = time.process_time()
    mixed = [value for i in range(10_000) for value in (i, str(i), [i])]
    assert check({"x": mixed}) == "x: has an item twice" or "x.1" in check({"x": mixed})
    assert check({"x": ["a" * 30_000]}) != ""
    assert time.process_time() - started < 2
