"""`trackbed index`: what an index holds, whether it is whole, and taking documents out of it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from trackbed.apps.settings import Settings
from trackbed.apps.terminal import err, out, print_json, say

if TYPE_CHECKING:
    from trackbed.retrieval.postgres.connection import PostgresIndex

commands = typer.Typer(no_args_is_help=True, help="Look after the indexes that `trackbed ingest` makes.")
Name = Annotated[str, typer.Argument(help="The index: a name, a path such as ./index, or postgres:NAME.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="index")


@commands.command()
def info(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show what an index holds: documents, passages, segments, sizes, and the embedder that made it.

    Example: [bold]trackbed index info handbook[/]
    """
    from trackbed.retrieval.upkeep import describe

    path = _place(context, name)
    if not isinstance(path, Path):
        _info_of_tables(path, as_json=as_json)
        return
    found = describe(path)
    manifest = found.manifest
    deleted = sum(segment.rows - segment.live_rows for segment in manifest.segments)
    if as_json:
        shown = {
            "index": str(path),
            "documents": manifest.documents,
            "passages": manifest.passages,
            "deleted": deleted,
            "bytes": found.bytes,
            "generation": manifest.generation,
            "changed": manifest.created.isoformat(),
            "format": manifest.format,
            "embedder": manifest.embedder.model_dump(),
            "chunking": manifest.chunking,
            "roots": found.roots,
            "segments": [
                {
                    "name": segment.name,
                    "documents": segment.live_documents,
                    "passages": segment.live_rows,
                    "deleted": segment.rows - segment.live_rows,
                    "vectors": segment.lists.model_dump() if segment.lists else {"kind": "Flat"},
                }
                for segment in manifest.segments
            ],
        }
        print_json(shown)
        return
    say(f"{path}")
    say(f"{manifest.passages} passages of {manifest.documents} documents; {deleted} deleted passages take room still")
    say(f"{found.bytes / 1e6:.1f} MB; generation {manifest.generation}, of {manifest.created:%Y-%m-%d %H:%M} UTC")
    say(f"embedder {manifest.embedder}")
    say("split with " + ", ".join(f"{key} {value}" for key, value in manifest.chunking.items()))
    for root, documents in found.roots.items():
        say(f"{documents} documents from {root or 'no folder'}")
    table = Table("segment", "passages", "deleted", "vectors", box=None, header_style="bold")
    for segment in manifest.segments:
        kind = f"{segment.lists.kind}, {segment.lists.probes} lists a search" if segment.lists else "Flat, exact"
        table.add_row(segment.name, str(segment.live_rows), str(segment.rows - segment.live_rows), kind)
    out.print(table, highlight=False)


@commands.command()
def verify(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Read every file of an index, and say which are not as they were written.

    Exit status: 0 it is whole; 1 it is damaged; 2 it cannot be read at all.

    Example: [bold]trackbed index verify handbook[/]
    """
    from trackbed.retrieval.manifest import command
    from trackbed.retrieval.postgres import upkeep as tables
    from trackbed.retrieval.upkeep import verify

    path = _place(context, name)
    wrong = verify(path) if isinstance(path, Path) else tables.verify(path)
    if as_json:
        print_json({"index": str(path), "whole": not wrong, "wrong": list(wrong)})
    else:
        for sentence in wrong:
            say(sentence, err)
        remedy = command(path, anew=True) if isinstance(path, Path) else path.rebuild
        say(f"{path} is damaged; make it anew: {remedy}" if wrong else f"{path} is whole")
    if wrong:
        raise typer.Exit(1)


@commands.command()
def compact(context: typer.Context, name: Name) -> None:
    """Write an index anew as one segment, without what was deleted. Nothing is embedded again.

    This is never needed: small segments are merged as documents are ingested. It gives the room of deleted passages
    back at once.

    Example: [bold]trackbed index compact handbook[/]
    """
    from trackbed.retrieval.postgres import upkeep as tables
    from trackbed.retrieval.upkeep import compact, describe

    path = _place(context, name)
    if not isinstance(path, Path):
        tables.compact(path)
        say(f"{path}: what was deleted takes no room any more")
        return
    before = describe(path)
    compact(path)
    after = describe(path)
    say(
        f"{path}: {len(after.manifest.segments)} segment instead of {len(before.manifest.segments)}, "
        f"{after.bytes / 1e6:.1f} MB instead of {before.bytes / 1e6:.1f}"
    )


@commands.command()
def delete(
    context: typer.Context,
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Documents by their source, or patterns: 'drafts/*'.")
    ],
    index: Annotated[str, typer.Option("--from", help="The index: a name, a path such as ./index, or postgres:NAME.")],
    as_json: AsJson = False,
) -> None:
    """Take documents out of an index. Whoever is searching finds them no more.

    A file that is still in its folder comes back when that folder is ingested again.

    Example: [bold]trackbed index delete guides/old.md 'drafts/*' --from handbook[/]
    """
    from trackbed.retrieval.postgres import upkeep as tables
    from trackbed.retrieval.upkeep import delete

    path = _place(context, index)
    gone = delete(path, sources) if isinstance(path, Path) else tables.delete(path, sources)
    if as_json:
        print_json({"index": str(path), "deleted": list(gone)})
        return
    for source in gone:
        say(f"deleted: {source}")


def _info_of_tables(index: "PostgresIndex", *, as_json: bool) -> None:
    from trackbed.retrieval.postgres.upkeep import describe

    found = describe(index)
    manifest = found.manifest
    if as_json:
        print_json({"index": str(index), **asdict(manifest), "bytes": found.bytes, "roots": found.roots})
        return
    say(f"{index}")
    say(f"{manifest.passages} passages of {manifest.documents} documents; {found.bytes / 1e6:.1f} MB")
    say(f"embedder {manifest.embedder} (sha256 {manifest.sha256[:12]}, {manifest.dimension} dimensions)")
    say("split with " + ", ".join(f"{key} {value}" for key, value in manifest.chunking.items()))
    for root, documents in found.roots.items():
        say(f"{documents} documents from {root or 'no folder'}")


def _place(context: typer.Context, name: str) -> "Path | PostgresIndex":
    from trackbed.apps.ingestion import place_of
    from trackbed.apps.knowledge import SHIPPED

    if name == SHIPPED:
        raise typer.BadParameter(f"{SHIPPED} is the index of trackbed's own pages, which is made when it is needed")
    settings: Settings = context.obj
    return place_of(settings, name)
