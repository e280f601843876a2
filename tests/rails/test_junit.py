"""The results of a policy's tests, as CI servers read them."""

from pathlib import Path
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from trackbed.llm.types import Message
from trackbed.rails.compare import Difference
from trackbed.rails.errors import Place
from trackbed.rails.junit import junit_xml
from trackbed.rails.policy import Expectation, PolicyTest, load_policy
from trackbed.rails.testing import Outcome, Report, run_tests

POLICY = """policy: 1
name: acme
input: [{rail: regex, patterns: [rude]}]
vars: {tier: {type: string}}
tests:
  - {user: hello, expect: {action: allow}}
  - {user: rude, expect: {action: allow, reason: timeout}}
  - {user: hello, vars: {tier: 3}, expect: {action: allow}}
"""


async def test_each_test_is_a_case_with_its_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "acme.yaml"
    file.write_text(POLICY)
    root = ElementTree.fromstring(junit_xml(await run_tests(load_policy(file))))
    (suite,) = root
    assert (root.tag, suite.tag) == ("testsuites", "testsuite")
    assert [suite.get(key) for key in ("name", "tests", "failures", "errors")] == ["acme", "3", "1", "1"]
    assert [case.get("line") for case in suite] == ["6", "7", "8"]
    assert {case.get("file") for case in suite} == {str(file)}
    assert len({case.get("name") for case in suite}) == 3
    assert [[child.tag for child in case] for case in suite] == [[], ["failure"], ["error"]]
    failure = suite[1][0]
    assert failure.get("message") == "action: expected 'allow', found 'block'"
    assert (failure.text or "").splitlines()[1:] == [
        "action: expected 'allow', found 'block'",
        "reason: expected 'timeout', found 'policy'",
    ]


@given(st.text(), st.text(alphabet=st.characters()))
def test_any_text_gives_xml_that_can_be_read(said: str, found: str) -> None:
    test = PolicyTest((Message("user", said),), Expectation(), Place("a.yaml", 1, 1))
    report = Report("p", (Outcome(test, (Difference("text", said, [found]),), 1.0),), ())
    root = ElementTree.fromstring(junit_xml(report).encode())
    assert len(list(root.iter("failure"))) == 1
