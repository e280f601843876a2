"""`trackbed index`, and what `trackbed ingest` says: on indexes that were made without a model."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.fakes import WordEmbedder
from trackbed.apps.cli import app
from trackbed.retrieval.ingest import ingest


@pytest.fixture
def index(tmp_path: Path) -> Path:
    (tmp_path / "docs" / "drafts").mkdir(parents=True)
    for name in ("a.md", "drafts/b.md", "drafts/c.md"):
        (tmp_path / "docs" / name).write_text("Trains run on rails.")
    ingest([tmp_path / "docs"], tmp_path / "index", WordEmbedder())
    return tmp_path / "index"


def trackbed(*words: object) -> Result:
    return CliRunner().invoke(app, ["index", *map(str, words)])


def test_info_says_what_an_index_holds(index: Path, tmp_path: Path) -> None:
    found = json.loads(trackbed("info", index, "--json").stdout)
    assert (found["documents"], found["passages"], found["generation"]) == (3, 3, 1)
    assert found["embedder"]["name"] == "words"
    assert found["roots"] == {str(tmp_path / "docs"): 3}
    assert [segment["vectors"] for segment in found["segments"]] == [{"kind": "Flat"}]
    assert "3 passages of 3 documents" in trackbed("info", index).stdout


def test_verify_finds_damage_and_its_status_says_so(index: Path) -> None:
    assert trackbed("verify", index).exit_code == 0
    [file] = index.glob("*/vectors.f32")
    file.write_bytes(bytes(file.stat().st_size))
    result = trackbed("verify", index, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["wrong"] == [f"{file}: its bytes are not those that were written"]
    (index / "manifest.json").write_text("{")
    assert trackbed("verify", index).exit_code == 2


def test_delete_takes_out_documents_by_source_and_by_pattern(index: Path) -> None:
    result = trackbed("delete", "drafts/*", "--from", index, "--json")
    assert json.loads(result.stdout)["deleted"] == ["drafts/b.md", "drafts/c.md"]
    assert json.loads(trackbed("info", index, "--json").stdout)["documents"] == 1


def test_delete_of_what_is_not_there_deletes_nothing(index: Path) -> None:
    result = trackbed("delete", "a.md", "drafts/bb.md", "--from", index)
    assert result.exit_code == 2
    assert "no document 'drafts/bb.md'; did you mean 'drafts/b.md'?" in result.stderr
    assert json.loads(trackbed("info", index, "--json").stdout)["documents"] == 3


def test_compact_leaves_one_segment_without_deleted_passages(index: Path) -> None:
    trackbed("delete", "a.md", "--from", index)
    assert json.loads(trackbed("info", index, "--json").stdout)["deleted"] == 1
    assert trackbed("compact", index).exit_code == 0
    found = json.loads(trackbed("info", index, "--json").stdout)
    assert (found["documents"], found["deleted"], len(found["segments"])) == (2, 0, 1)


@pytest.mark.parametrize("words", [["info"], ["verify"], ["compact"]])
def test_an_index_that_is_not_there_is_status_2_with_the_command_that_makes_it(
    words: list[str], tmp_path: Path
) -> None:
    result = trackbed(*words, tmp_path / "none")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "`trackbed ingest PATHS --to" in result.stderr


def test_the_shipped_index_is_not_for_changing() -> None:
    assert trackbed("delete", "a.md", "--from", "kb").exit_code == 2
