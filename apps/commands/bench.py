"""`trackbed bench`: how fast the parts are beside named rivals, each measured in turns with ours."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trackbed.apps.settings import Settings, SettingsError
from trackbed.apps.terminal import err, out, print_json, progress_bar, say

if TYPE_CHECKING:
    from trackbed.apps.bench.report import Comparison

commands = typer.Typer(no_args_is_help=True, help="Measure the parts beside named rivals, in turns.")
MODEL = "smollm2-135m-instruct"
QUICK_ROUNDS, QUICK_SECONDS = 3, 20  # after so many seconds a row gets one round more, and no other
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Write = Annotated[Path | None, typer.Option(help="Also write the table here: Markdown, or JSON for .json.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="bench")


@commands.command()
def runtime(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(help="Measure this model of the Llama architecture instead of the usual ones.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads for both.")] = os.cpu_count() or 1,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 5,
    rows: Annotated[
        str, typer.Option(metavar="PATTERN", help="Only the rows in whose name this is: '8B*decode'.")
    ] = "",
    quick: Annotated[bool, typer.Option("--quick", help="The small models alone: under a minute.")] = False,
    rival_python: Annotated[
        Path | None,
        typer.Option(help="The Python that has llama-cpp-python, instead of the setting `bench_python`."),
    ] = None,
    as_json: AsJson = False,
    write: Write = None,
) -> None:
    """Measure the runtime beside llama.cpp and transformers, in turns, and beside what the machine can do at most.

    Files that are made for it are kept under the cache, 9 GB in all; --rows leaves some out.

    Example: [bold]trackbed bench runtime --threads 2 --rows "8B*"[/]
    """
    from trackbed.apps.bench.case import cases, cases_of
    from trackbed.apps.bench.checkpoints import NoRoom
    from trackbed.apps.bench.rival import LLAMA_CPP, RivalFailed, find_python
    from trackbed.apps.bench.runtime import Setting, compare
    from trackbed.llm.catalogue import locate

    settings: Settings = context.obj
    python = find_python(rival_python or settings.bench_python, LLAMA_CPP)
    path = locate(model or MODEL, settings.models)
    try:
        chosen = cases_of(model, path, rows) if model else cases(quick=quick, pattern=rows)
    except ValueError as error:
        raise SettingsError(f"--rows: {error}") from None
    setting = Setting(
        threads,
        min(rounds, QUICK_ROUNDS) if quick else rounds,
        path,
        settings.cache / "bench",
        python,
        quick,
        QUICK_SECONDS if quick else math.inf,
    )
    with progress_bar(hidden=as_json) as report:
        try:
            found = compare(chosen, setting, report, lambda words: say(words, err))
        except RivalFailed as error:
            raise SettingsError(f"{python} does not run the rival: {error}") from None
        except NoRoom as error:
            raise SettingsError(str(error)) from None
    _tell(found, as_json, write)


@commands.command()
def accuracy(
    context: typer.Context,
    rival_python: Annotated[
        Path | None,
        typer.Option(help="The Python that has llama-cpp-python, instead of the setting `bench_python`."),
    ] = None,
    as_json: AsJson = False,
    write: Write = None,
) -> None:
    """Measure how far quantised logits are from float32 ones of the same weights, and llama.cpp's on the same files.

    Example: [bold]trackbed bench accuracy[/]
    """
    from trackbed.apps.bench.accuracy import compare
    from trackbed.apps.bench.checkpoints import NoRoom
    from trackbed.apps.bench.rival import LLAMA_CPP, RivalFailed, find_python
    from trackbed.llm.catalogue import locate

    settings: Settings = context.obj
    python = find_python(rival_python or settings.bench_python, LLAMA_CPP)
    path = locate(MODEL, settings.models)
    with progress_bar(hidden=as_json) as report:
        try:
            found = compare(path, settings.cache / "bench", python, report, lambda words: say(words, err))
        except RivalFailed as error:
            raise SettingsError(f"{python} does not run the rival: {error}") from None
        except NoRoom as error:
            raise SettingsError(str(error)) from None
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


@commands.command()
def retrieval(
    context: typer.Context,
    sizes: Annotated[list[int] | None, typer.Option("--size", min=100, help="Passages; once for each size.")] = None,
    as_json: AsJson = False,
    write: Write = None,
    plot: Annotated[Path | None, typer.Option(help="Also write a picture here; needs matplotlib.")] = None,
) -> None:
    """Measure what an index costs from 1,000 to 1,000,000 passages: time, memory, recall and disk, on one thread.

    A million passages take 4 GB under the cache while they are measured, and some minutes.

    Example: [bold]trackbed bench retrieval --size 1000 --size 100000[/]
    """
    from trackbed.apps.bench.retrieval import SIZES, compare, measure
    from trackbed.apps.bench.retrieval import plot as draw

    settings: Settings = context.obj
    with progress_bar(hidden=as_json) as report:
        costs = measure(sizes or SIZES, settings.cache / "bench" / "retrieval", report)
    if plot:
        try:
            draw(costs, plot)
        except ImportError:
            raise SettingsError("--plot needs matplotlib: pip install 'trackbed[eval]'") from None
    _tell(compare(costs), as_json, write)


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
