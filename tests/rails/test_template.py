"""Templates and conditions: what they may say, and what they may not do."""

import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trackbed.rails.errors import Place, PolicyError, TemplateFailed
from trackbed.rails.template import MAX_SOURCE, Shape, compile_condition, compile_template

PLACE = Place("acme.yaml", 3, 5)
NAMES = {
    "vars": Shape(frozenset({"tier", "items"})),
    "question": Shape(),
    "passages": Shape(items=frozenset({"n", "text"})),
}


def message(source: str) -> str:
    with pytest.raises(PolicyError) as caught:
        compile_template(source, PLACE, NAMES)
    return str(caught.value)


def test_a_template_chooses_words_and_walks_a_list() -> None:
    source = "{% for p in passages %}{{ p.n }}: {{ p.text | upper }}{% if not loop.last %}, {% endif %}{% endfor %}"
    found = [{"n": 1, "text": "a"}, {"n": 2, "text": "b"}]
    assert compile_template(source, PLACE, NAMES).render(passages=found) == "1: A, 2: B"


def test_a_variable_may_be_called_like_a_method_of_a_mapping() -> None:
    assert compile_template("{{ vars.items }}", PLACE, NAMES).render(vars={"items": 3}) == "3"


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(TemplateFailed):
        compile_template("{{ vars.tier }}", PLACE, NAMES).render(vars={})
    with pytest.raises(TemplateFailed):
        compile_condition("vars.tier", PLACE, NAMES).holds(vars={})
    assert compile_condition("vars.tier is not defined", PLACE, NAMES).holds(vars={})


@pytest.mark.parametrize(("tier", "holds"), [("staff", False), ("guest", True)])
def test_a_condition_holds_or_not(tier: str, holds: bool) -> None:
    assert compile_condition("vars.tier != 'staff'", PLACE, NAMES).holds(vars={"tier": tier}) is holds


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ qestion }}", "acme.yaml:3:5: 'qestion' is not a name of this template; did you mean 'question'? It has: "),
        (
            "a\n{{ vars.teir }}",
            "acme.yaml:4:1: 'teir' is not a part of 'vars'; did you mean 'tier'? It has: items, tier",
        ),
        ("{{ vars['teir'] }}", "'teir' is not a part of 'vars'; did you mean 'tier'?"),
        ("{% for p in passages %}{{ p.txt }}{% endfor %}", "'txt' is not a part of 'p'; did you mean 'text'?"),
        ("{{ question | uper }}", "'uper' is not a filter; did you mean 'upper'?"),
        ("{{ question is strng }}", "'strng' is not a test; did you mean 'string'?"),
        ("a\n\n{% if %}", "acme.yaml:5:1: the template cannot be read: Expected an expression"),
        ("{{ question.__class__ }}", "'__class__' is private"),
        ("{{ question.upper() }}", "a template cannot use Jinja's 'call'"),
        ("{{ range(9) }}", "a template cannot use Jinja's 'call'"),
        ("{{ 'a' * 9999999999 }}", "a template cannot use Jinja's 'mul'"),
        ("{{ 9 ** 9 ** 9 ** 9 }}", "a template cannot use Jinja's 'pow'"),
        ("{{ '%9999999999d' % 1 }}", "a template cannot use Jinja's 'mod'"),
        ("{% set a = 'a' %}", "a template cannot use Jinja's 'assign'"),
        ("{% macro a() %}{% endmacro %}", "a template cannot use Jinja's 'macro'"),
        ("{% include 'a' %}", "a template cannot use Jinja's 'include'"),
        ("{% import 'a' as b %}", "a template cannot use Jinja's 'import'"),
        ("{{ question | center(9999999999) }}", "'center' is not a filter"),
        ("{{ lipsum }}", "'lipsum' is not a name of this template"),
        ("{% for a in passages %}{% for b in passages %}{% endfor %}{% endfor %}", "a loop inside a loop"),
        ("{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}", "it nests too deep"),
        ("{{ " + "1 + " * 5000 + "1 }}", "it nests too deep"),
        ("{{ " + "1 - " * 5000 + "1 }}", "nests deeper than 40"),
        ("{{ " + "not " * 5000 + "1 }}", "it nests too deep"),
        ("{{ " + "9" * 9000 + " }}", "a number in it is too long"),
        ("a" * (MAX_SOURCE + 1), "the limit is 32768"),
    ],
)
def test_what_a_template_cannot_say_is_refused_at_once(source: str, expected: str) -> None:
    started = time.process_time()
    assert expected in message(source)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("source", ["vars.tier ==", "1 }} {{ 1", "1 %} {% if 1", "vars.teir", "range(3)", "", "x = 1"])
def test_what_is_no_condition_is_refused(source: str) -> None:
    with pytest.raises(PolicyError, match=r"^acme\.yaml:3:5: "):
        compile_condition(source, PLACE, NAMES)


def test_joined_joins_do_not_multiply() -> None:
    template = compile_template("{{ question" + " | join(question)" * 5 + " }}", PLACE, NAMES)
    with pytest.raises(TemplateFailed, match="join makes more than"):
        template.render(question="x" * 200)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(["{{", "}}", "{%", "%}", " if ", "for ", " in ", "x", "vars", ".", "|", "(", "'", "1", "end"])
    )
)
def test_any_text_compiles_or_is_refused(pieces: list[str]) -> None:
    with suppress(PolicyError):
        compile_template("".join(pieces), PLACE, NAMES)
