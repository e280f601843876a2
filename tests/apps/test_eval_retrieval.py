"""How well retrievers find, on a collection in BEIR's layout."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.fakes import ListRetriever
from trackbed.apps.cli import app
from trackbed.apps.evals.measures import Figure
from trackbed.apps.evals.plot import draw_retrieved
from trackbed.apps.evals.retrieval import Collection, ranked, read_beir, retrieve, scored
from trackbed.retrieval.types import Passage, Query

DOCUMENTS = {
    "1": ("Cats", "A cat sleeps all day in the sun."),
    "2": ("Dogs", "A dog barks at the door when a guest comes."),
    "3": ("", "Trains run on rails of steel."),
}
QUESTIONS = {"q1": "which animal barks at the door?", "q2": "what do trains run on?", "q3": "nobody says"}
JUDGED = "query-id\tcorpus-id\tscore\nq1\t2\t2\nq1\t1\t0\nq2\t3\t1\nq3\t1\t0\n"


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    def lines(rows: list[dict[str, str]]) -> str:
        return "".join(json.dumps(row) + "\n" for row in rows)

    folder = tmp_path / "beir"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text(
        lines([{"_id": key, "title": title, "text": text} for key, (title, text) in DOCUMENTS.items()])
    )
    (folder / "queries.jsonl").write_text(lines([{"_id": key, "text": text} for key, text in QUESTIONS.items()]))
    (folder / "qrels.tsv").write_text(JUDGED)
    return folder


def test_a_collection_is_read_and_questions_without_an_answer_are_left_out(beir: Path) -> None:
    found = read_beir(beir)
    assert [(document.source, document.title) for document in found.documents] == [
        ("1", "Cats"),
        ("2", "Dogs"),
        ("3", ""),
    ]
    assert found.questions == {"q1": QUESTIONS["q1"], "q2": QUESTIONS["q2"]}
    assert found.judged == {"q1": {"2": 2, "1": 0}, "q2": {"3": 1}}


def test_judgements_may_lie_in_a_folder_of_their_own(beir: Path) -> None:
    (beir / "qrels").mkdir()
    (beir / "qrels.tsv").rename(beir / "qrels" / "test.tsv")
    assert len(read_beir(beir).judged) == 2


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("corpus.jsonl", '{"_id": "1", "text": "a"}\n{"_id": "2"}\n', r"corpus.jsonl:2: a row needs _id and text"),
        ("corpus.jsonl", '{"_id": "1", "text": "a"}\n{"_id": "1", "text": "b"}\n', "two documents have the same _id"),
        ("queries.jsonl", "{\n", r"queries.jsonl:1: a row needs"),
        ("queries.jsonl", '{"_id": "q1", "text": "a"}\n', "question 'q2' is not in queries.jsonl"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq1 2 1\n", r"qrels.tsv:2: a line is question, document and score"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq1\t2\t0\n", "says of no question what answers it"),
    ],
)
def test_what_is_wrong_with_a_collection_is_said(beir: Path, file: str, text: str, words: str) -> None:
    (beir / file).write_text(text)
    with pytest.raises(ValueError, match=words):
        read_beir(beir)


def test_a_folder_without_judgements_or_documents_is_named(beir: Path) -> None:
    (beir / "qrels.tsv").unlink()
    with pytest.raises(ValueError, match=r"has neither qrels\.tsv nor qrels/test\.tsv"):
        read_beir(beir)
    (beir / "corpus.jsonl").unlink()
    with pytest.raises(ValueError, match=r"corpus\.jsonl cannot be read"):
        read_beir(beir)


def test_a_document_counts_as_high_as_its_best_passage() -> None:
    assert list(ranked([("a", 0.9), ("b", 0.9), ("a", 0.8), ("c", 0.1)])) == ["a", "b", "c"]
    assert sorted(ranked([("z", 0.5), ("a", 0.5)]).items(), key=lambda pair: -pair[1])[0][0] == "z"


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 9), unique=True, max_size=10),
    st.dictionaries(st.integers(0, 9).map(str), st.integers(0, 3), min_size=1).filter(lambda told: any(told.values())),
)
def test_figures_are_those_of_their_definitions(order: list[int], told: dict[str, int]) -> None:
    found = scored({"q": told}, {"q": ranked((str(n), 0.5) for n in order)})
    gains = [told.get(str(n), 0) for n in order]
    relevant = sum(gain > 0 for gain in told.values())

    def dcg(of: list[int]) -> float:
        return sum(gain / math.log2(place + 2) for place, gain in enumerate(of[:10]))

    assert found["nDCG@10"][0] == pytest.approx(dcg(gains) / dcg(sorted(told.values(), reverse=True)))
    assert found["recall@5"][0] == pytest.approx(sum(gain > 0 for gain in gains[:5]) / relevant)
    assert found["recall@100"][0] == pytest.approx(sum(gain > 0 for gain in gains) / relevant)
    assert found["MRR"][0] == pytest.approx(next((1 / place for place, gain in enumerate(gains, 1) if gain), 0.0))


def test_a_question_for_which_nothing_is_found_counts_as_nothing() -> None:
    class Half(ListRetriever):
        async def search(self, query: Query, k: int) -> tuple[Passage, ...]:
            return (Passage("", "1", 0, 0, 0.5),) if query.text == "found" else ()

    collection = Collection((), {"a": "found", "b": "lost"}, {"a": {"1": 1}, "b": {"1": 1}})
    found = retrieve(Half(), collection, lambda step, done, total: None)
    assert {name: figure.value for name, figure in found.figures.items()} == dict.fromkeys(found.figures, 0.5)


@pytest.mark.models
def test_the_command_measures_each_retriever(beir: Path, model_cache: Path) -> None:
    names = ["--retriever", "bm25", "--retriever", "hybrid"]
    done = CliRunner().invoke(app, ["eval", "retrieval", "--beir", str(beir), *names, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["questions"] == 2
    assert told["index"]["documents"] == told["index"]["embedded"] == 3
    assert list(told["retrievers"]) == ["bm25", "hybrid"]
    assert told["retrievers"]["hybrid"]["nDCG@10"]["value"] == 1
    assert told["retrievers"]["hybrid"]["milliseconds"]["median"] > 0


def test_figures_are_drawn(tmp_path: Path) -> None:
    figure = Figure(0.5, 0.4, 0.6)
    draw_retrieved(
        {"bm25": {"MRR": figure, "R": figure}, "hybrid": {"MRR": figure, "R": figure}}, "t", tmp_path / "p.png"
    )
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
