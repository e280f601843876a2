"""Who may read what, and what a filter lets through: the rule that every retriever keeps, in its plain form."""

from collections.abc import Collection, Mapping

from trackbed.retrieval.types import ALLOW, AnyOf, Condition, Passage, Query, Value


def allowed(passage: Passage, query: Query) -> bool:
    """Whether a passage may be found: its readers are asked first, then the filter."""
    said = {**passage.metadata, "source": passage.source}
    return readable(passage.metadata, query.principals) and all(
        meets(said.get(key), condition) for key, condition in query.filter.items()
    )


def readable(metadata: Mapping[str, Value], principals: Collection[str]) -> bool:
    """Whether one of these groups may read a document; where it names nobody, nobody may."""
    if ALLOW not in metadata:
        return True
    groups = metadata[ALLOW]
    return any(group in principals for group in (groups if isinstance(groups, tuple) else (str(groups),)))


def meets(value: Value | None, condition: Condition) -> bool:
    """Whether what metadata say of a key meets a condition. What they do not say meets none.

    Numbers are compared with numbers and texts with texts; what is true is no number.
    """
    if value is None:
        return False
    said = value if isinstance(value, tuple) else (value,)
    if isinstance(condition, AnyOf):
        return any(_kind(one) is _kind(other) and one == other for one in said for other in condition.values)
    low, high = condition
    return any(
        (low is None or (_kind(one) is _kind(low) and low <= one))  # type: ignore[operator]  # of one kind
        and (high is None or (_kind(one) is _kind(high) and one <= high))  # type: ignore[operator]
        and isinstance(one, (int, float, str))
        and not isinstance(one, bool)
        for one in said
    )


def _kind(value: object) -> type:
    return float if type(value) is int else type(value)
