"""Who may read what, and what a filter lets through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackbed.retrieval.allowed import allowed, meets, readable
from trackbed.retrieval.types import AnyOf, Between, Condition, Passage, Query, Value

SCALARS = st.one_of(st.text(max_size=3), st.integers(-5, 5), st.floats(-5, 5), st.booleans())
VALUES = st.one_of(SCALARS, st.lists(st.text(max_size=3), max_size=3).map(tuple))
GROUPS = st.frozensets(st.sampled_from(["staff", "board", "sales"]))


@pytest.mark.parametrize(
    ("value", "condition", "met"),
    [
        ("a", AnyOf(("a",)), True),
        ("a", AnyOf(("b", "a")), True),
        ("a", AnyOf(("b",)), False),
        ("a", AnyOf(()), False),
        (("a", "b"), AnyOf(("b",)), True),
        (("a", "b"), AnyOf(("c",)), False),
        (None, AnyOf(("a",)), False),
        (3, AnyOf((3.0,)), True),
        (1, AnyOf((True,)), False),
        (True, AnyOf((True,)), True),
        ("3", AnyOf((3,)), False),
        (3, Between(1, 3), True),
        (3, Between(3.5, None), False),
        (3, Between(None, 2), False),
        ("2024-05-01", Between("2024-01-01", "2024-12-31"), True),
        ("2023-05-01", Between("2024-01-01", None), False),
        ("3", Between(1, 5), False),
        (True, Between(0, 5), False),
        (None, Between(None, None), False),
        (("2023", "2024"), Between("2024", None), True),
    ],
)
def test_a_condition_is_met_or_not(value: Value | None, condition: Condition, met: bool) -> None:
    assert meets(value, condition) is met


def test_without_readers_everybody_reads_and_with_them_nobody_else() -> None:
    assert readable({}, frozenset())
    assert readable({"allow": ("staff", "board")}, frozenset({"board", "sales"}))
    assert not readable({"allow": ("staff",)}, frozenset())
    assert not readable({"allow": ("staff",)}, frozenset({"sales"}))
    assert not readable({"allow": ()}, frozenset({"staff"}))
    assert readable({"allow": "staff"}, frozenset({"staff"}))


@given(st.dictionaries(st.sampled_from(["a", "b", "allow"]), VALUES), GROUPS, st.data())
def test_no_filter_shows_what_its_readers_do_not_allow(
    metadata: dict[str, Value], principals: frozenset[str], data: st.DataObject
) -> None:
    filter_ = data.draw(st.dictionaries(st.sampled_from(["a", "b", "allow"]), st.builds(AnyOf, st.tuples(SCALARS))))
    passage = Passage("text", "source.md", 0, 4, metadata=metadata)
    if allowed(passage, Query("text", principals, filter_)):
        assert readable(metadata, principals)


def test_the_source_is_a_key_too() -> None:
    passage = Passage("text", "a/b.md", 0, 4)
    assert allowed(passage, Query("text", frozenset(), {"source": AnyOf(("a/b.md",))}))
    assert not allowed(passage, Query("text", frozenset(), {"source": AnyOf(("b.md",))}))
