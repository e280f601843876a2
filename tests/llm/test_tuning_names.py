"""Training of the tagger: what it is given, that it learns, and that what is shipped is what was trained."""

import json
from pathlib import Path

import pytest

from tests.llm.test_judge import write_base
from trackbed.llm.tagger import Name, Tagger
from trackbed.llm.tuning.named import KINDS, Named, named_rows, read_named
from trackbed.llm.tuning.networks import Recipe
from trackbed.llm.tuning.tags import LABELS, fit_tags, scores, tagged, write_tagger

# peft asks transformers by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
RECIPE = Recipe(LABELS, rank=4, alpha=8, rate=0.02, epochs=15, batch=8, tokens=16, dropout=0.0)


def told(text: str, *names: tuple[str, str]) -> Named:
    spans = tuple((kind, text.index(name), text.index(name) + len(name)) for kind, name in names)
    return Named(text, spans, "s", 0)


def some_rows() -> list[Named]:
    """Whoever is good is a person, of as many words as have a capital letter; a w7 is a place."""
    rows = [told(f"is good W{n} a w7", ("PERSON", f"W{n}"), ("LOCATION", "w7")) for n in range(20, 40)]
    rows += [told(f"good W{n} Days is bad", ("PERSON", f"W{n} Days")) for n in range(20, 40)]
    return rows + [told(f"a bad w{n} night is bad w{n}") for n in range(20, 40)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_base(folder)
    return folder


def test_what_is_trained_finds_names_and_what_ships_finds_the_same(base: Path, tmp_path: Path) -> None:
    network = fit_tags(some_rows(), base, RECIPE)
    unseen = [told("is good W50 a w7", ("PERSON", "W50"), ("LOCATION", "w7")), told("a bad w50 night"), told("")]
    found = tagged(network, unseen, base)
    assert [[tuple(name) for name in names] for names in found] == [list(row.spans) for row in unseen]
    write_tagger(tmp_path / "tagger", network, RECIPE, str(base))
    tagger = Tagger(tmp_path / "tagger", tmp_path)
    rows = [*unseen, *some_rows()]
    assert [list(tagger.tag(row.text)) for row in rows] == tagged(network, rows, base)


def test_authored_rows_are_the_same_each_time_and_their_marks_stand_on_words() -> None:
    rows = named_rows(400)
    assert rows == named_rows(400)
    assert rows != named_rows(400, seed=1)
    assert {kind for row in rows for kind, _, _ in row.spans} == set(KINDS)
    for row in rows:
        ends = [0, *(end for _, _, end in row.spans)]
        assert all(
            before <= start < end <= len(row.text) for before, (_, start, end) in zip(ends, row.spans, strict=False)
        )
        assert all(row.text[start:end] == row.text[start:end].strip() for _, start, end in row.spans)
        assert "{" not in row.text.replace('{"name"', ""), "no slot is left"
    assert any(row.spans and row.text.islower() for row in rows), "people type without capitals"
    assert sum(not row.spans for row in rows) > 100, "as many texts without names as are needed"


def test_rows_are_read_with_the_kinds_that_are_known(tmp_path: Path) -> None:
    file = tmp_path / "pii.jsonl"
    spans = [{"label": "GPE", "start": 0, "end": 5}, {"label": "AGE", "start": 7, "end": 9}]
    file.write_text(json.dumps({"text": "Paris, 30", "spans": spans, "source": "s", "fold": 3}) + "\n{}\n")
    with pytest.raises(ValueError, match=r"pii.jsonl:2: a row needs text, spans, source and fold"):
        read_named(file)
    file.write_text(file.read_text().splitlines()[0])
    assert read_named(file) == [Named("Paris, 30", (("LOCATION", 0, 5),), "s", 3)]


def test_a_name_is_found_where_both_its_ends_are() -> None:
    rows = [told("Ann in Rome", ("PERSON", "Ann"), ("LOCATION", "Rome")), told("Bo", ("PERSON", "Bo"))]
    found = [[Name("PERSON", 0, 3), Name("LOCATION", 0, 3)], [Name("PERSON", 0, 1)]]
    figures = scores(rows, found)
    assert figures["PERSON"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    assert figures["LOCATION"]["f1"] == 0
    assert "ORGANIZATION" not in figures
