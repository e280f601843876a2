"""The weights of `answerable` are those that its script fits, and what it is fitted on is what it says."""

import json
from pathlib import Path

import pytest

from trackbed.apps.evals.answerable import DRAWN, figures, fitted, main, pairs
from trackbed.llm.tuning.questions import Asked

THINGS = ("library", "mill", "bridge", "harbour", "tower", "market", "school", "theatre", "garden", "prison")


def rows() -> list[Asked]:
    """Ten paragraphs of one article, with two questions each."""
    found = []
    for fold, thing in enumerate(THINGS):
        text = f"The {thing} was opened in {1900 + fold} by the mayor. People pay {fold + 2} euros there."
        for question, answer in (
            (f"When was the {thing} opened by the mayor?", str(1900 + fold)),
            (f"How many euros do people pay at the {thing}?", f"{fold + 2} euros"),
        ):
            found.append(Asked(question, text, answer, "Town", fold, "own", "CC0-1.0"))
    return found


def test_a_question_stands_beside_its_paragraph_the_most_similar_other_one_and_some_more() -> None:
    found = pairs(rows())
    assert found.signals.shape == (20 * (2 + DRAWN), 6)
    assert found.answered.sum() == found.nearest.sum() == 20
    assert not (found.answered & found.nearest).any()


def test_weights_are_fitted_and_tried_on_other_parts() -> None:
    found = pairs(rows())
    told = figures(found)
    assert told["pairs"] == len(found.answered)
    assert told["auroc"] > 0.9
    weights, bias = fitted(found.signals, found.answered)
    assert figures(found, weights, bias)["auroc"] > 0.9
    assert figures(found, [-weight for weight in weights], bias)["auroc"] < 0.1


@pytest.mark.parametrize(("line", "said"), [("", "no questions"), ("{}\n", "rows.jsonl:1")])
def test_what_cannot_be_read_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    (tmp_path / "rows.jsonl").write_text(line)
    monkeypatch.setattr("sys.argv", ["answerable", "--data", str(tmp_path / "rows.jsonl")])
    with pytest.raises(SystemExit):
        main()
    assert said in capsys.readouterr().err


def test_it_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    for row in rows():
        told = {"question": row.question, "context": row.context, "answers": [row.answer], "doc_id": "Town-1"}
        lines.append(json.dumps({**told, "fold": row.fold, "source": row.source, "licence": row.licence}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr("sys.argv", ["answerable", "--data", str(tmp_path / "rows.jsonl")])
    main()
    told = json.loads(capsys.readouterr().out)
    assert len(told["weights"]) == 6
    assert set(told["as the rail has them"]) == set(told["parts that trained nothing"])
