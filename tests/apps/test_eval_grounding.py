"""A command that measures any rail that judges answers by their passages, on rows of one's own."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score
from typer.testing import CliRunner

from trackbed.apps.cli import app
from trackbed.apps.commands.evaluate_grounding import WORDS
from trackbed.apps.evals.grounding import Answered, ground, read_answered
from trackbed.apps.evals.judging import Judged
from trackbed.apps.evals.measures import balanced_accuracy

CONTEXT = "The library opens at nine on weekdays. Members may borrow up to five books."
ROWS = [
    {"context": CONTEXT, "answer": "The library opens at nine.", "label": "grounded", "source": "a-one"},
    {"context": CONTEXT, "answer": "Members may borrow 12 books.", "label": "hallucinated", "source": "a-two"},
    {"context": CONTEXT, "question": "How many?", "answer": "five books", "label": "grounded", "source": "b"},
    {"context": CONTEXT, "answer": "Bananas are yellow.", "label": "hallucinated", "source": "b"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["eval", "grounding", *words])


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60).filter(
        lambda rows: len({truth for truth, _ in rows}) == 2
    )
)
def test_balanced_accuracy_is_that_of_scikit_learn(rows: list[tuple[bool, bool]]) -> None:
    truth, blocked = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found = balanced_accuracy(truth, blocked.astype(float), blocked)
    assert found == pytest.approx(balanced_accuracy_score(truth, blocked))


def test_a_source_of_one_label_has_no_balanced_accuracy_and_no_part_in_the_mean() -> None:
    rows = [
        Answered("", "", "", hallucinated, source) for hallucinated, source in [(True, "a"), (False, "b"), (True, "b")]
    ]
    judged = [Judged(score, score > 0.5, failed=False, milliseconds=1, calls=0) for score in (0.1, 0.2, 0.9)]
    found = ground(rows, judged)
    assert math.isnan(found.sources["a"]["balanced_accuracy"].value)
    assert found.means["balanced_accuracy"] == 1.0
    assert found.overall["balanced_accuracy"].value == 0.75
    assert found.as_json()["sources"]["a"]["auroc"]["value"] is None


def test_the_rail_is_measured_on_answers_with_their_passages(tmp_path: Path) -> None:
    done = run("--data", write(tmp_path / "rows.jsonl", ROWS), "--join", "a-", "--rail", f"{{{WORDS}}}", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["rows"], set(told["sources"]), told["failed"]) == (4, {"a-", "b"}, 0)
    assert told["overall"]["balanced_accuracy"]["value"] == 1.0
    assert told["overall"]["f1"]["value"] == 1.0
    assert told["mean_over_sources"]["auroc"] == 1.0


def test_another_configuration_is_measured_as_it_is_named(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", ROWS)
    done = run("--data", data, "--rail", "{rail: grounding, minimum: 1, support: 0, relevance: 0}", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["overall"]["balanced_accuracy"]["value"] == 0.5  # nothing is found


def test_a_table_is_for_people_and_a_picture_is_drawn(tmp_path: Path) -> None:
    plot = tmp_path / "out.png"
    data = write(tmp_path / "rows.jsonl", ROWS)
    done = run("--data", data, "--join", "a-", "--rail", f"{{{WORDS}}}", "--plot", str(plot))
    assert done.exit_code == 0, done.output
    assert "by source" in done.stdout
    assert "means over sources with both labels: balanced accuracy 1.000" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("rows", "words", "said"),
    [
        ([{**ROWS[0], "label": "fine"}], (), "rows.jsonl:1"),
        ([{"answer": "x"}], (), "rows.jsonl:1"),
        ([], (), "no rows"),
        (ROWS, ("--policy", "p.yaml"), "no rails on output"),
    ],
)
def test_what_cannot_be_measured_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "p.yaml").write_text("policy: 1\nname: p\ninput: [{rail: jailbreak}]\n")
    monkeypatch.chdir(tmp_path)
    done = run("--data", write(tmp_path / "rows.jsonl", rows), *words)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split()).replace("│ ", "")


def test_sources_that_begin_alike_are_one_where_that_is_asked(tmp_path: Path) -> None:
    file = Path(write(tmp_path / "rows.jsonl", ROWS))
    assert [row.source for row in read_answered(file, ["a-"])] == ["a-", "a-", "b", "b"]
    assert [row.source for row in read_answered(file)] == ["a-one", "a-two", "b", "b"]


@pytest.mark.models
def test_by_itself_it_measures_the_rail_with_the_shipped_judge(
    tmp_path: Path, model_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "models").symlink_to(model_cache)
    monkeypatch.setenv("TRACKBED_CACHE", str(tmp_path / "cache"))
    done = run("--data", write(tmp_path / "rows.jsonl", ROWS), "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["failed"] == 0
    assert told["model_calls"] > 0
    assert told["overall"]["balanced_accuracy"]["value"] == 1.0
