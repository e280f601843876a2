"""The rails benchmark: what a row says, how the rival's process is asked, and that every case of ours still runs."""

import ast
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from trackbed.apps.bench.accuracy import divergence
from trackbed.apps.bench.ours import Ours
from trackbed.apps.bench.rails import Case, Contender, Measure, cases, compare
from trackbed.apps.bench.report import Comparison, Row
from trackbed.apps.bench.rival import NEMO, RivalFailed, open_rival
from trackbed.apps.bench.work import Work, leaked
from trackbed.apps.cli import app

COUNTS = {Ours.turn: 2, Ours.crowd: 60, Ours.growth: 25, Ours.judges: 1, Ours.load: 1}
COUNTS |= {Ours.self_check: 2, Ours.dialog: 2, Ours.dialog_calls: 1, Ours.first_token: 1, Ours.leak: 1}
# A Python as the benchmark sees it: it has the rival's program answer, and times an import.
FAKE = f"""#!{sys.executable}
import json, sys
if "-c" in sys.argv:
    sys.exit(print("noise\\n0.5 0.25"))
print(json.dumps({{"nemoguardrails": "0.24.1"}}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["case"] == "dies":
        sys.exit("the last words")
    answer = {{"error": "it has none"}} if asked["case"] == "unknown" else {{"values": [8.0] * asked["count"]}}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    file = tmp_path / "python"
    file.write_text(FAKE)
    file.chmod(0o755)
    return file


def quiet(step: str, done: int, total: int) -> None:
    """Report to nobody."""


@pytest.mark.parametrize("measure", COUNTS)
async def test_every_case_of_ours_measures_itself(measure: Measure, tmp_path: Path) -> None:
    figures = await measure(Ours(Work(wait=0.001, pace=0.0001), tmp_path), COUNTS[measure])
    assert figures
    assert all(math.isfinite(figure) and figure >= 0 for figure in figures)


def test_every_contender_has_its_case_in_the_rivals_program() -> None:
    written = {node.name for node in ast.walk(ast.parse(NEMO.program.read_text())) if hasattr(node, "name")}
    wanted = {f"{c.engine.lower()}_{c.case}" for case in cases(quick=True) for c in case.contenders}
    assert wanted - written == set()


def test_a_ratio_says_how_many_times_better_ours_is_pair_by_pair() -> None:
    times = Row("a turn, ms", [1, 2, 4], [2, 8, 4]).as_json()
    rates = Row("turns/s", [1, 2, 4], [2, 8, 4], more=True).as_json()
    assert (times["ratio"], times["lowest"], times["highest"]) == (2, 1, 4)
    assert (rates["ratio"], rates["lowest"], rates["highest"]) == (0.5, 0.25, 1)


@pytest.mark.parametrize(
    ("ours", "more", "met"), [(0.5, False, True), (0.6, False, False), (0.5, True, True), (0.4, True, False)]
)
def test_a_row_says_whether_ours_keeps_to_its_bar(ours: float, more: bool, met: bool) -> None:
    assert Row("turns", [ours], more=more, bar=0.5).met is met


def test_a_row_without_a_rival_or_a_figure_claims_nothing() -> None:
    row = Row("a turn, ms", [], bar=0.5)
    assert (row.met, row.ratios, row.as_json()["ours"]) == (None, [], None)


@pytest.mark.parametrize(
    ("released", "characters"),
    [("safe bad tail", 3), ("safe ba", 2), ("safe ", 0), ("safe {error: bad}", 0), ("", 0), ("safe bXd", 1)],
)
def test_a_leak_is_counted_in_characters_of_the_stretch_that_may_not_leave(released: str, characters: int) -> None:
    assert leaked(released, "safe bad tail", "bad") == characters


def test_a_rival_is_asked_in_turns_with_ours(python: Path) -> None:
    case = Case(
        "judges, ms", Ours.judges, 1, 1000, (Contender("one", "E", "x", 2), Contender("two", "E", "y", 2, "new"))
    )
    found = compare(python, [case], 2, quiet).as_json()
    rows = found["rows"]
    assert [(row["rival"], row["theirs"], row["note"]) for row in rows[:2]] == [("one", 8, ""), ("two", 8, "new")]
    assert all(row["lowest"] <= row["ratio"] <= row["highest"] and row["met"] for row in rows[:2])
    assert [(row["name"], row["theirs"]) for row in rows[2:]] == [
        ("import, s", 0.5),
        ("import and a first policy, s", 0.75),
    ]
    assert found["versions"]["nemoguardrails"] == "0.24.1"


def test_without_the_rival_its_column_is_empty_and_how_to_get_it_is_said() -> None:
    found = compare(None, [case for case in cases(quick=True) if case.measure == Ours.load], 1, quiet).as_json()
    assert [(row["theirs"], row["ours"] > 0) for row in found["rows"]] == [(None, True)] * 3
    assert "pip install nemoguardrails==0.24.1" in found["remarks"][0]


def test_what_the_rival_cannot_do_is_told_in_its_words(python: Path) -> None:
    with open_rival(python, NEMO.program, Work().as_json()) as rival:
        with pytest.raises(RivalFailed, match="it has none"):
            rival.figures(engine="LLMRails", case="unknown", count=1)
        assert rival.figures(engine="LLMRails", case="turn", count=2) == [8, 8]
        with pytest.raises(RivalFailed, match="the last words"):
            rival.figures(engine="LLMRails", case="dies", count=1)


def test_a_python_that_is_none_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "rails", "--rival-python", str(tmp_path / "none")])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "No such file" in result.stderr


def test_a_run_is_written_as_markdown_or_json(tmp_path: Path) -> None:
    run = Comparison("Speed", {"trackbed": "1"}, [Row("a turn, ms", [1.0], [4.0], "theirs", bar=2)], ["once"])
    run.write(tmp_path / "run.md")
    run.write(tmp_path / "run.json")
    assert "| a turn, ms | 1 | ≤ 2, met | theirs | 4 | 4 (4 to 4) |" in (tmp_path / "run.md").read_text()
    assert json.loads((tmp_path / "run.json").read_text()) == run.as_json()


def test_divergence_is_none_from_oneself_and_known_from_another() -> None:
    exact = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], np.float32))
    other = np.log(np.array([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]], np.float32))
    assert divergence(exact, exact + 3) == (pytest.approx(0, abs=1e-7), 100)
    # 0.5 log 2 - 0.25 log 2 for the first of two rows.
    assert divergence(exact, other) == (pytest.approx(0.25 * np.log(2) / 2, rel=1e-5), 50)
