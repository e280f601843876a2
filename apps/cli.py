"""The command `trackbed`: its options, its commands, and what becomes of an error.

Exit status: 0 allowed or done, 1 blocked (or a test failed), 2 could not run. A command imports what it needs when
it runs, so that help and lists are quick.
"""

import os
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from trackbed.apps.commands import answer, attack, bench, documents, evaluate, indexes, models, policy, trace
from trackbed.apps.settings import SettingsError, calm, load_settings
from trackbed.apps.terminal import err, say
from trackbed.llm.errors import LLMError
from trackbed.rails.errors import RailsError
from trackbed.retrieval.errors import RetrievalError

COULD_NOT_RUN = 2
EXPECTED = (LLMError, RailsError, RetrievalError, SettingsError)  # their words are for whoever runs the command


class Commands(TyperGroup):
    """The commands. An error of any of them is a sentence on standard error, and a traceback with --debug."""

    def invoke(self, ctx: Any) -> Any:  # Any: as typer has them, whose own names for them are private
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            say(f"trackbed: {_words(error)}", err)
            raise typer.Exit(COULD_NOT_RUN) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Programmable guardrails on grounded answers, with a Llama runtime that runs inside the process.",
    epilog="Begin with: [bold]trackbed demo[/]",
)


def _version(wanted: bool) -> None:
    if wanted:
        say(version("trackbed"))
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings, instead of trackbed.toml in this folder.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """What every command may be told, before its own name."""
    calm(os.environ, offline=context.invoked_subcommand != "models")
    context.obj = load_settings(config)


for module in (answer, attack, bench, documents, evaluate, indexes, models, policy, trace):
    module.register(app)


def _words(error: Exception) -> str:
    if isinstance(error, EXPECTED):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}, which should not happen; `trackbed --debug` and the same words show where"


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # what cannot be shown or read is no reason to stop
    app()


if __name__ == "__main__":
    main()
