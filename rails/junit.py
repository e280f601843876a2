r"""The report of a policy's tests as JUnit XML, which CI servers such as Jenkins and GitLab read.

This file knows a report and the XML. It runs nothing, and writes no file.
"""

import re
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from trackbed.rails.testing import Outcome, Report

# What XML 1.0 cannot hold, not even escaped.
UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MAX_NAME = 200  # characters of what a test's user says


def junit_xml(report: Report) -> str:
    """The report as an XML document: a suite for the policy, and a case for each test."""
    errors = sum(_is_error(outcome) for outcome in report.outcomes)
    totals = {
        "name": _writable(report.policy),
        "tests": str(len(report.outcomes)),
        "failures": str(sum(not outcome.passed for outcome in report.outcomes) - errors),
        "errors": str(errors),
        "time": _seconds(sum(outcome.milliseconds for outcome in report.outcomes)),
    }
    root = Element("testsuites", totals)
    suite = SubElement(root, "testsuite", totals | {"skipped": "0"})
    for outcome in report.outcomes:
        _add_case(suite, report.policy, outcome)
    indent(root)
    return "<?xml version='1.0' encoding='UTF-8'?>\n" + tostring(root, encoding="unicode") + "\n"


def _add_case(suite: Element, policy: str, outcome: Outcome) -> None:
    place = outcome.test.place
    asked = " ".join(outcome.test.messages[-1].content.split())[:MAX_NAME]
    case = SubElement(
        suite,
        "testcase",
        {
            # Two tests may ask the same, and a server tells them apart by their names.
            "name": _writable(f"line {place.line}: {asked}"),
            "classname": _writable(policy),
            "file": _writable(place.file),
            "line": str(place.line),
            "time": _seconds(outcome.milliseconds),
        },
    )
    if outcome.passed:
        return
    told = [f"{key}: expected {expected!r}, found {found!r}" for key, expected, found in outcome.differences]
    kind = "error" if _is_error(outcome) else "failure"
    told_why = SubElement(case, kind, {"message": _writable(told[0]), "type": outcome.differences[0].key})
    told_why.text = _writable("\n".join([f"{place}", *told]))


def _is_error(outcome: Outcome) -> bool:
    """Whether the turn could not be run."""
    return any(difference.key == "error" for difference in outcome.differences)


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.3f}"


def _writable(text: str) -> str:
    r"""The text with a visible escape in place of what XML cannot hold.

    >>> _writable("a\x1b[2J")
    'a\\x1b[2J'
    """
    return UNWRITABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
