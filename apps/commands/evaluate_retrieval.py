"""`trackbed eval retrieval`: how well retrievers find, on questions of which it is known what answers them."""

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from trackbed.apps.commands.answer import AsJson
from trackbed.apps.settings import Settings
from trackbed.apps.terminal import out, print_json, progress_bar, say

if TYPE_CHECKING:
    from trackbed.apps.evals.measures import Figure
    from trackbed.apps.evals.retrieval import Retrieved
    from trackbed.retrieval.types import Embedder, Retriever

RETRIEVED = ("bm25", "faiss", "hybrid")


def retrieval(
    context: typer.Context,
    beir: Annotated[
        Path,
        typer.Option(
            exists=True, file_okay=False, help="A folder of corpus.jsonl, queries.jsonl, qrels.tsv or qrels/test.tsv."
        ),
    ],
    retriever: Annotated[
        list[str] | None, typer.Option(help="As in a policy; bm25, faiss and hybrid unless named. Once for each.")
    ] = None,
    rerank: Annotated[
        str | None, typer.Option(help="A cross-encoder that puts the first passages in order: measured beside each.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="Keep the index there, to measure again; else it is made for this once.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask at most so many questions, the first.")] = None,
    seed: Annotated[int, typer.Option(help="What draws intervals.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Write a picture there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how well retrievers find the documents that answer questions, on a collection in BEIR's layout.

    Example: [bold]trackbed eval retrieval --beir collection/ --retriever bm25 --retriever hybrid[/]
    """
    from trackbed.apps.build import open_embedder
    from trackbed.apps.evals.plot import draw_retrieved
    from trackbed.apps.evals.retrieval import read_beir, retrieve
    from trackbed.retrieval.ingest import ingest_documents

    settings: Settings = context.obj
    try:
        collection = read_beir(beir)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if limit is not None:
        collection = replace(collection, questions=dict(list(collection.questions.items())[:limit]))
        collection = replace(collection, judged={asked: collection.judged[asked] for asked in collection.questions})
    with ExitStack() as stack:
        report = stack.enter_context(progress_bar(hidden=as_json))
        path = index or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "index"
        embedder = open_embedder(settings)
        report(f"loading {settings.embedder}", 0, 0)
        embedder.embed([""])
        started = perf_counter()
        ingested = ingest_documents(collection.documents, path, embedder, report)
        seconds = perf_counter() - started
        found: dict[str, Retrieved] = {}
        for name, opened in _opened(settings, retriever or list(RETRIEVED), rerank, path, embedder).items():
            found[name] = retrieve(opened, collection, report, seed)
    if plot:
        draw_retrieved({name: one.figures for name, one in found.items()}, beir.name, plot)
    if as_json:
        made = {"documents": ingested.documents, "passages": ingested.passages, "seconds": round(seconds, 2)}
        made |= {"embedded": ingested.added + ingested.updated}
        told = {"task": "retrieval", "data": beir.name, "questions": len(collection.questions), "index": made}
        print_json({**told, "retrievers": {name: one.as_json() for name, one in found.items()}})
        return
    _show(found)
    say(
        f"{len(collection.questions)} questions; {ingested.documents} documents in {ingested.passages} passages; "
        f"{ingested.added + ingested.updated} documents were embedded and indexed in {seconds:.1f} s"
    )


def _opened(
    settings: Settings, names: list[str], rerank: str | None, path: Path, embedder: "Embedder"
) -> "dict[str, Retriever]":
    """Each retriever by its name, and beside it the same with its first passages put in order."""
    from trackbed.apps.knowledge import open_index
    from trackbed.llm.cross_encoder import CrossEncoder
    from trackbed.retrieval import RETRIEVERS
    from trackbed.retrieval.refine import Refined

    scorer = CrossEncoder(rerank, settings.models) if rerank else None
    opened: dict[str, Retriever] = {}
    for name in names:
        try:
            opened[name] = open_index(settings, name, str(path.resolve()), embedder, lambda step, done, total: None)
        except (ImportError, AttributeError, ValueError) as error:
            known = ", ".join(RETRIEVERS)
            raise typer.BadParameter(
                f"{name!r} is no retriever; known are {known}, and any package.module:Class ({error})"
            ) from error
        if scorer:
            opened[f"{name}, reranked"] = Refined(opened[name], scorer=scorer, seconds=None)
    return opened


def _show(found: "Mapping[str, Retrieved]") -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    measures = list(next(iter(found.values())).figures)
    table = Table("", *measures, "ms", "p95", box=SIMPLE, title="milliseconds for 10 passages", title_justify="left")
    for name, one in found.items():
        times = (f"{one.milliseconds[key]:.1f}" for key in ("median", "p95"))
        table.add_row(name, *(_figure(one.figures[measure]) for measure in measures), *times)
    out.print(table)


def _figure(figure: "Figure") -> str:
    return f"{figure.value:.4f}\n{figure.low:.2f}–{figure.high:.2f}"
