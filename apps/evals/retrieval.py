"""How well retrievers find, on a collection in BEIR's layout (Thakur et al. 2021, arXiv:2104.08663): `trackbed eval
retrieval`.

A collection is documents, questions, and which documents answer which. Documents are ingested like any others, and one
counts as high as its best passage. The figures are those of ir-measures, averaged over the questions. This file knows
files, rankings and figures; what a retriever does is its own business.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from trackbed.apps.evals.measures import Figure, Floats, measured, spread
from trackbed.retrieval.types import Document, Query, Retriever

Report = Callable[[str, int, int], None]
NOBODY = frozenset[str]()
DEPTH = 100  # documents of a ranking that are looked at
PASSAGES = 3 * DEPTH  # that are searched for, since some are of one document
SHOWN = 10  # passages of a search whose time is taken
TIMED = 200  # questions that are searched once more for it
# By the names that are shown: ir-measures' own.
MEASURES = {"nDCG@10": "nDCG@10", "recall@5": "R@5", "recall@100": "R@100", "MRR": "RR"}


class NoMeasures(Exception):
    """There is nothing to measure with."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents, questions that some of them answer, and how well: above 0 counts, more is better."""

    documents: tuple[Document, ...]
    questions: Mapping[str, str]
    judged: Mapping[str, Mapping[str, int]]  # question -> document -> how well


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What one retriever came to."""

    figures: Mapping[str, Figure]
    milliseconds: Mapping[str, float]
    values: Mapping[str, Floats]  # by measure, question by question

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **{name: figure.as_json() for name, figure in self.figures.items()},
            "milliseconds": dict(self.milliseconds),
        }


def read_beir(folder: Path) -> Collection:
    """The collection of a folder: corpus.jsonl, queries.jsonl, and qrels.tsv or qrels/test.tsv.

    Questions that nothing is said to answer are left out. Raises ValueError, which names the file and the line.
    """
    documents = tuple(_document(row) for row in _rows(folder / "corpus.jsonl", ("_id", "text")))
    if len({document.source for document in documents}) < len(documents):
        raise ValueError(f"{folder / 'corpus.jsonl'}: two documents have the same _id")
    texts = {str(row["_id"]): str(row["text"]) for row in _rows(folder / "queries.jsonl", ("_id", "text"))}
    file = next((path for path in (folder / "qrels.tsv", folder / "qrels" / "test.tsv") if path.is_file()), None)
    if file is None:
        raise ValueError(f"{folder} has neither qrels.tsv nor qrels/test.tsv")
    judged: dict[str, dict[str, int]] = {}
    for question, document, score in _judgements(file):
        judged.setdefault(question, {})[document] = score
    answered = {question: told for question, told in judged.items() if any(score > 0 for score in told.values())}
    if missing := sorted(answered.keys() - texts.keys()):
        raise ValueError(f"{file}: question {missing[0]!r} is not in queries.jsonl")
    if not answered:
        raise ValueError(f"{file} says of no question what answers it")
    return Collection(documents, {question: texts[question] for question in answered}, answered)


def retrieve(retriever: Retriever, collection: Collection, report: Report, seed: int = 0) -> Retrieved:
    """The figures of a retriever. Raises what it raises, and NoMeasures."""
    return asyncio.run(_retrieve(retriever, collection, report, seed))


async def _retrieve(retriever: Retriever, collection: Collection, report: Report, seed: int) -> Retrieved:
    runs: dict[str, dict[str, float]] = {}
    for number, (question, text) in enumerate(collection.questions.items()):
        report("searching", number, len(collection.questions))
        runs[question] = ranked(
            (passage.source, passage.score) for passage in await retriever.search(Query(text, NOBODY), PASSAGES)
        )
    values = scored(collection.judged, runs)
    milliseconds = []
    for number, text in enumerate(list(collection.questions.values())[:TIMED]):
        report("timing", number, min(TIMED, len(collection.questions)))
        started = perf_counter()
        await retriever.search(Query(text, NOBODY), SHOWN)
        milliseconds.append(1000 * (perf_counter() - started))
    return Retrieved({name: _mean(found, seed) for name, found in values.items()}, spread(milliseconds), values)


def ranked(found: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The documents of passages that come best first, with scores that fall: as many as are looked at."""
    order = list(dict.fromkeys(source for source, _ in found))[:DEPTH]
    # By place: ir-measures sorts by score, and would settle ties by name.
    return {source: float(len(order) - place) for place, source in enumerate(order)}


def scored(judged: Mapping[str, Mapping[str, int]], runs: Mapping[str, Mapping[str, float]]) -> dict[str, Floats]:
    """Each measure, question by question; one for which nothing was found has 0."""
    try:
        import ir_measures
    except ImportError as error:
        raise NoMeasures("measuring needs ir-measures: pip install 'trackbed[eval]'") from error
    measures = {name: ir_measures.parse_measure(theirs) for name, theirs in MEASURES.items()}
    places = {question: place for place, question in enumerate(judged)}
    values = {name: np.zeros(len(places)) for name in measures}
    named = {str(measure): name for name, measure in measures.items()}
    given = {question: dict(told) for question, told in judged.items()}
    for metric in ir_measures.iter_calc(
        list(measures.values()), given, {question: dict(run) for question, run in runs.items()}
    ):
        if metric.query_id in places:
            values[named[str(metric.measure)]][places[metric.query_id]] = metric.value
    return values


def _mean(values: Floats, seed: int) -> Figure:
    nothing = np.zeros(len(values), dtype=bool)
    return measured(lambda truth, score, blocked: float(score.mean()), nothing, values, nothing, seed)


def _document(row: Mapping[str, Any]) -> Document:
    title, text = str(row.get("title") or ""), str(row["text"])
    return Document(str(row["_id"]), text if text.strip() else title, title=title)


def _rows(file: Path, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                    _ = [row[key] for key in keys]
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"{file}:{number}: a row needs {' and '.join(keys)}: {error!r}") from error
                yield row
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error


def _judgements(file: Path) -> Iterator[tuple[str, str, int]]:
    """Question, document and score of each line but the first, which names them."""
    with file.open(encoding="utf-8") as lines:
        next(lines, None)
        for number, line in enumerate(lines, 2):
            if not line.strip():
                continue
            try:
                question, document, score = line.rstrip("\r\n").split("\t")
                yield question, document, int(score)
            except ValueError as error:
                raise ValueError(f"{file}:{number}: a line is question, document and score, parted by tabs") from error
