"""`trackbed bench`: how fast the parts are beside named rivals, each measured in turns with ours."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trackbed.apps.settings import Settings, SettingsError
from trackbed.apps.terminal import out, print_json, progress_bar, say

if TYPE_CHECKING:
    from trackbed.apps.bench.report import Comparison

commands = typer.Typer(no_args_is_help=True, help="Measure the parts beside named rivals, in turns.")
MODEL = "smollm2-135m-instruct"
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Write = Annotated[Path | None, typer.Option(help="Also write the table here: Markdown, or JSON for .json.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="bench")


@commands.command()
def runtime(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="A model of the Llama architecture.")] = MODEL,
    threads: Annotated[int, typer.Option(min=1, help="Threads for both.")] = os.cpu_count() or 1,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 5,
    as_json: AsJson = False,
    write: Write = None,
) -> None:
    """Measure the runtime beside transformers: tokens a second, and the ratio of each pair of rounds.

    Example: [bold]trackbed bench runtime --threads 2[/]
    """
    from trackbed.apps.bench.runtime import compare
    from trackbed.llm.catalogue import locate

    settings: Settings = context.obj
    path = locate(model, settings.models)
    with progress_bar(hidden=as_json) as report:
        found = compare(model, path, threads, rounds, report)
    _tell(found, as_json, write)


@commands.command()
def rails(
    context: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds: under a minute.")] = False,
    rival_python: Annotated[
        Path | None,
        typer.Option(help="The Python that has nemoguardrails, instead of the setting `bench_python`."),
    ] = None,
    as_json: AsJson = False,
    write: Write = None,
) -> None:
    """Measure the rail engine beside NeMo Guardrails, with a model that answers at once.

    Each row says what ours is held to and whether it keeps to it; the ratio is how many times better ours is.

    Example: [bold]trackbed bench rails --quick[/]
    """
    from trackbed.apps.bench.rails import cases, compare
    from trackbed.apps.bench.rival import NEMO, RivalFailed, find_python

    settings: Settings = context.obj
    python = find_python(rival_python or settings.bench_python, NEMO)
    with progress_bar(hidden=as_json) as report:
        try:
            found = compare(python, cases(quick=quick), 3 if quick else 7, report)
        except RivalFailed as error:
            raise SettingsError(f"{python} does not run the rival: {error}") from None
    _tell(found, as_json, write)


def _tell(found: "Comparison", as_json: bool, write: Path | None) -> None:
    if write:
        found.write(write)
    if as_json:
        print_json(found.as_json())
        return
    say(found.heading)
    out.print(found.table(), highlight=False, soft_wrap=True)
    for remark in found.remarks:
        say(remark)
