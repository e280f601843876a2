"""`trackbed ingest`: documents become an index that policies can name."""

from pathlib import Path
from typing import Annotated

import typer

from trackbed.apps.settings import Settings
from trackbed.apps.terminal import err, print_json, progress_bar, say


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(ingest)


def ingest(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="Files and folders: Markdown, text, HTML, PDF, CSV, JSON.")],
    to: Annotated[str, typer.Option(help="The index: a name, which policies use, or a path such as ./index.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Make an index of documents. It takes the place of the one of that name when all has gone well.

    Files that cannot be read are named and left out. Exit status: 0 the index is made; 2 it is not, because
    nothing could be read or something failed.

    Example: [bold]trackbed ingest docs/ handbook.pdf --to handbook[/]
    """
    from trackbed.apps.build import SHIPPED, index_path, open_embedder
    from trackbed.retrieval import ingest as retrieval

    if to == SHIPPED:
        raise typer.BadParameter(f"{SHIPPED} is the index of trackbed's own pages; choose another name")
    settings: Settings = context.obj
    index = index_path(settings, to)
    with progress_bar(hidden=as_json) as report:
        made = retrieval.ingest(paths, index, open_embedder(settings), report)
    for sentence in made.skipped:
        say(f"left out: {sentence}", err)
    if as_json:
        counts = {"documents": made.documents, "passages": made.passages, "skipped": list(made.skipped)}
        print_json({"index": str(index), **counts})
    else:
        say(f"{made.passages} passages of {made.documents} documents are in {index}")
