"""Conditions that are the same whatever their variables are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackbed.rails.constant import constant
from trackbed.rails.errors import Place
from trackbed.rails.policy import Variable
from trackbed.rails.template import Condition, Shape, compile_condition

VARS = {
    "tier": Variable("string"),
    "plan": Variable("string", "[a-z]+"),
    "n": Variable("integer"),
    "x": Variable("number"),
    "on": Variable("boolean"),
}
TEXTS, NUMBERS = st.sampled_from(["", "a", "ab", "b", "zz"]), st.integers(-3, 3)
VALUES = st.fixed_dictionaries(
    {"tier": TEXTS, "plan": st.sampled_from(["a", "ab", "b", "zz"]), "n": NUMBERS, "x": st.floats(-4, 4)}
    | {"on": st.booleans()}
)
OPERATORS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
CLAUSES = st.one_of(
    st.builds("vars.{} {} '{}'".format, st.sampled_from(["tier", "plan"]), OPERATORS, TEXTS),
    st.builds("vars.{} {} {}".format, st.sampled_from(["n", "x"]), OPERATORS, NUMBERS),
    st.builds("vars.tier in ['{}', '{}']".format, TEXTS, TEXTS),
    st.builds("'{}' in vars.tier".format, TEXTS),
    st.sampled_from(["vars.on", "vars.tier", "vars.n", "vars.tier == vars.plan", "vars.n < vars.x"]),
)
CONDITIONS = st.recursive(
    CLAUSES,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("(not {})".format, inner),
    ),
    max_leaves=5,
)


def condition(source: str) -> Condition:
    return compile_condition(source, Place("p"), {"vars": Shape(frozenset(VARS)), "question": Shape(), "text": Shape()})


@given(CONDITIONS, VALUES)
def test_a_condition_that_is_called_constant_is_the_same_for_any_values(source: str, values: dict[str, object]) -> None:
    found = constant(condition(source), VARS)
    if found is not None:
        assert condition(source).holds(vars=values) == (found == "always")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("vars.tier == 'a' and vars.tier == 'b'", "never"),
        ("vars.tier != 'a' or vars.tier != 'b'", "always"),
        ("vars.n > 2 and vars.n < 3", "never"),
        ("1 == 2", "never"),
        ("vars.x > 2 and vars.x < 3", None),
        ("vars.tier in ['a', 'b'] and vars.tier == 'c'", "never"),
        ("'a' in vars.tier and 'b' in vars.tier", None),
        ("vars.tier == vars.plan and vars.tier != vars.plan", None),
        ("vars.plan == 'A'", "never"),  # its pattern has none
        ("question == 'a' and question == 'b'", None),  # not decided
        ("vars.tier | length > 99", None),
    ],
)
def test_what_comparisons_decide_is_decided(source: str, expected: str | None) -> None:
    assert constant(condition(source), VARS) == expected
