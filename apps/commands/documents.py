"""`trackbed ingest`: documents become an index that policies can name."""

from pathlib import Path
from typing import Annotated

import typer

from trackbed.apps.settings import Settings
from trackbed.apps.terminal import err, print_json, progress_bar, say

SOME_LEFT_OUT = 1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(ingest)


def ingest(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="Files and folders: text, PDF, office, e-books, tables, code.")],
    to: Annotated[
        str, typer.Option(help="The index: a name, which policies use, a path such as ./index, or postgres:NAME.")
    ],
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make the index of these paths alone, whatever it was before.")
    ] = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="Read and embed in many processes, with Ray: on this machine or a cluster.")
    ] = False,
    ray_address: Annotated[
        str, typer.Option(help="The cluster for --ray, such as auto or ray://host:10001; without it, this machine.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Bring an index up to date with documents, or make it. What has not changed is not embedded again.

    Documents that were ingested from the same paths and are there no more are taken out; those of other paths stay.
    Who is searching goes on meanwhile. Files that cannot be read are named and left out, and what the index had of
    them stays, unless it is not certain any more who may read it. Exit status: 0 all is in the index; 1 some files
    were left out; 2 the index is as it was before, because nothing could be read or something failed.

    Example: [bold]trackbed ingest docs/ handbook.pdf --to handbook[/]
    """
    from dataclasses import asdict

    from trackbed.apps.ingestion import ingest_to, place_of
    from trackbed.apps.knowledge import SHIPPED

    if to == SHIPPED:
        raise typer.BadParameter(f"{SHIPPED} is the index of trackbed's own pages; choose another name")
    if ray_address and not ray:
        raise typer.BadParameter("--ray-address goes with --ray")
    settings: Settings = context.obj
    index = place_of(settings, to)
    with progress_bar(hidden=as_json) as report:
        made = ingest_to(settings, index, paths, report, anew=rebuild, ray=ray_address if ray else None)
    for sentence in made.skipped:
        say(f"left out: {sentence}", err)
    if as_json:
        print_json({"index": str(index), **asdict(made)})
    else:
        changes = f"{made.added} added, {made.updated} updated, {made.unchanged} unchanged, {made.deleted} deleted"
        say(f"{changes}; {made.passages} passages of {made.documents} documents are in {index}")
    if made.skipped:
        raise typer.Exit(SOME_LEFT_OUT)
