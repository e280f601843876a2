"""`trackbed models`: what the catalogue knows, and where the files are."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from trackbed.apps.settings import Settings
from trackbed.apps.terminal import out, print_json, progress_bar, say


class Bits(StrEnum):
    """What weights become."""

    int8 = "int8"
    int4 = "int4"
    int8_rows = "int8_rows"
    int4_rows = "int4_rows"


commands = typer.Typer(no_args_is_help=True, help="The models that trackbed knows, and their files.")
Name = Annotated[str, typer.Argument(help="A name of the list, hf:org/repository, or a path.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="models")


@commands.command("list")
def list_models(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False
) -> None:
    """List the known models: licence, memory, and whether they are on this disk.

    Example: [bold]trackbed models list[/]
    """
    from trackbed.llm.catalogue import listed

    settings: Settings = context.obj
    rows = listed(settings.models)
    if as_json:
        print_json([row._asdict() for row in rows])
        return
    table = Table("name", "for", "licence", "memory", "here", box=None, header_style="bold")
    for row in rows:
        table.add_row(row.name, row.kind, row.licence, f"{row.memory_gb:g} GB", "yes" if row.present else "no")
    out.print(table, highlight=False)


@commands.command()
def get(context: typer.Context, name: Name) -> None:
    """Download a model, verify it, and print where it is; quick when it is there already.

    Example: [bold]trackbed models get smollm2-135m-instruct[/]
    """
    from trackbed.llm.catalogue import get

    settings: Settings = context.obj
    with progress_bar() as report:
        path = get(name, settings.models, report)
    say(str(path))


@commands.command()
def path(context: typer.Context, name: Name) -> None:
    """Verify a model's files, and print where they are.

    Example: [bold]trackbed models path all-minilm-l6-v2[/]
    """
    from trackbed.llm.catalogue import locate

    settings: Settings = context.obj
    say(str(locate(name, settings.models)))


@commands.command()
def quantise(
    source: Annotated[Path, typer.Argument(help="A folder with config.json and safetensors files.")],
    target: Annotated[Path, typer.Argument(help="The folder to write; it must not be there.")],
    to: Annotated[Bits, typer.Option(help="Bits, with a scale for each 32 weights or each row.")] = Bits.int8,
) -> None:
    """Write a checkpoint once more with its matrices in 8 or 4 bits.

    Example: [bold]trackbed models quantise llama-3.1-8b llama-3.1-8b-int4 --to int4[/]
    """
    from trackbed.llm.quantise import quantise_checkpoint

    quantise_checkpoint(source, target, to.value)
    say(f"{target}: {sum(file.stat().st_size for file in target.iterdir()) / 1e9:.2f} GB")
