"""Patterns of a policy: what they match, and where, in characters."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trackbed.rails.errors import RailFailed
from trackbed.rails.library.regex import MOST_MATCHES, Regex
from trackbed.rails.types import Finding, Models, Turn, Verdict

ANY_TEXT = st.text(st.characters(categories=None))  # half surrogate pairs too


async def judge(text: str, **config: Any) -> Verdict:
    return await Regex(Regex.Config(**config), Models()).check(Turn("", text=text))


@pytest.mark.parametrize(
    ("config", "passes", "blocks"),
    [
        ({"patterns": ["initech"]}, "Initech", "ask initech"),
        ({"patterns": ["initech"], "ignore_case": True}, "in tech", "Ask INITECH"),
        ({"patterns": [r"\bproject \d{4}\b"]}, "project 12345", "project 1234"),
        ({"patterns": ["^abc$"]}, "xabc", "abc"),
        ({"patterns": ["(?m)^abc$"]}, "x\nxabc", "x\nabc\ny"),
        ({"patterns": [r"stra(ss|ß)e"]}, "strae", "die straße"),
        ({"patterns": [r"\p{Greek}"]}, "alpha", "α"),
        ({"patterns": ["x*"]}, "no such letter", "an x"),
        ({"patterns": ["a", "b"]}, "c", "b"),
        ({"patterns": {"ONE": "1", "TWO": "2"}}, "3", "2"),
    ],
)
async def test_what_matches_is_blocked_and_the_rest_passes(config: dict[str, Any], passes: str, blocks: str) -> None:
    assert (await judge(passes, **config)).action == "allow"
    assert (await judge(blocks, **config)).action == "block"


async def test_names_label_what_they_match() -> None:
    verdict = await judge("ask Initech or 1234", patterns={"ORDER": r"\d+", "RIVAL": "Initech"})
    assert verdict.findings == (Finding("RIVAL", 4, 11), Finding("ORDER", 15, 19))
    assert (verdict.categories, verdict.detail) == (("RIVAL", "ORDER"), "RIVAL, ORDER")


async def test_patterns_without_names_share_the_label() -> None:
    assert (await judge("ab", patterns=["b"], label="B")).findings == (Finding("B", 1, 2),)


@pytest.mark.parametrize(
    "before", ["\U0001f600", "\u00e9", "e\u0301", "\U0001f469\u200d\U0001f467", "日本", "\ud800", "\0"]
)
async def test_offsets_count_characters_whatever_stands_before(before: str) -> None:
    assert (await judge(before + "key" + before, patterns=["key"])).findings == (
        Finding("MATCH", len(before), len(before) + 3),
    )


async def test_where_patterns_overlap_every_character_stays_covered_once() -> None:
    verdict = await judge("abcdef", patterns={"LEFT": "abcd", "RIGHT": "cdef"})
    assert verdict.findings == (Finding("LEFT", 0, 4), Finding("RIGHT", 4, 6))


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(?=a)b", r"'(?=a)b': invalid perl operator: (?=. "),
        (r"(a)\1", r"'(a)\\1': invalid escape sequence: \1. "),
        ("[a", "'[a': missing ]: [a. "),
        ("(a{1000}){1000}", "invalid repetition size"),
    ],
)
def test_a_pattern_that_re2_refuses_is_named_with_the_reason(pattern: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(reason) + "(?s:.*)linear time.*no look-around"):
        Regex.Config(patterns={"NAME": pattern})


@pytest.mark.parametrize("patterns", [[], {}, "abc", 5])
def test_patterns_that_are_none_are_refused(patterns: object) -> None:
    with pytest.raises(ValidationError):
        Regex.Config(patterns=patterns)  # type: ignore[arg-type]


async def test_more_matches_than_can_be_judged_in_time_are_a_failure_and_no_verdict() -> None:
    assert len((await judge("x" * MOST_MATCHES, patterns=["x.*y|x"])).findings) == MOST_MATCHES
    with pytest.raises(RailFailed, match="more than 10000 matches"):
        await judge("x" * (MOST_MATCHES + 1), patterns=["x"])


@given(ANY_TEXT, st.sampled_from([r"\w+", ".", r"\s*", "[^a]+", "(?s).*", r"\d|x"]))
async def test_findings_are_sorted_apart_and_inside_and_as_pythons_own(text: str, pattern: str) -> None:
    findings = (await judge(text, patterns=[pattern])).findings
    ends = [0, *(end for f in findings for end in (f.start, f.end))]
    assert ends == sorted(ends)
    assert ends[-1] <= len(text)
    # RE2's \s, as Perl's of old, leaves out the vertical tab.
    same = text.encode("utf-8", "replace").decode().replace("\v", "x" if pattern == r"\s*" else "\v")
    expected = [m.span() for m in re.finditer(pattern, same, re.ASCII) if m[0]]
    assert [(f.start, f.end) for f in findings] == expected
