"""The command `trackbed`: what a person or a program can ask of it from a shell.

Exit status: 0 allowed or done, 1 blocked (or a test failed), 2 could not run. Results go to standard output,
everything else to standard error. Heavy libraries are loaded by the commands that need them.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from trackbed.apps.settings import Settings, SettingsError, load_settings
from trackbed.llm.errors import LLMError
from trackbed.rails.errors import RailsError
from trackbed.retrieval.errors import RetrievalError

DONE, BLOCKED, FAILED = 0, 1, 2
EXPECTED = (LLMError, RailsError, RetrievalError, SettingsError)  # errors whose words are for the person

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Programmable guardrails on grounded answers.",
)
models_cli = typer.Typer(no_args_is_help=True, help="The models that trackbed knows, and where their files are.")
policy_cli = typer.Typer(no_args_is_help=True, help="Check, describe and test policy files.")
cli.add_typer(models_cli, name="models")
cli.add_typer(policy_cli, name="policy")
out, err = Console(), Console(stderr=True)


class JudgedStage(StrEnum):
    """The stages whose rails judge a text of their own."""

    input = "input"
    output = "output"


PolicyOption = Annotated[str | None, typer.Option("--policy", "-p", help="A shipped policy's name, or a file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@cli.callback()
def common(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings instead of ./trackbed.toml.")] = None,
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
) -> None:
    """Options that every command has."""
    context.obj = load_settings(config)
    context.call_on_close(lambda: None)
    if debug:
        os.environ["TRACKBED_DEBUG"] = "1"


@cli.command()
def demo(context: typer.Context) -> None:
    """Chat over the pages about trackbed itself.

    Example: [bold]trackbed demo[/]
    """
    _chat(context.obj, "default", None, as_json=False)


@cli.command()
def chat(
    context: typer.Context,
    policy: PolicyOption = None,
    ask: Annotated[str | None, typer.Option(help="Ask one question, and leave.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Chat under a policy, or ask one question.

    Example: [bold]trackbed chat --ask "How do I add a rail?" --json[/]
    """
    if as_json and ask is None:
        raise typer.BadParameter("--json goes with --ask")
    _chat(context.obj, policy or context.obj.policy, ask, as_json=as_json)


def _chat(settings: Settings, policy_name: str, ask: str | None, *, as_json: bool) -> NoReturn:
    from trackbed.apps.build import build
    from trackbed.apps.chat import converse, show_verdicts
    from trackbed.apps.schemas import reply_json
    from trackbed.rails.policy import load_policy
    from trackbed.rails.types import Turn

    policy = load_policy(policy_name)
    with _progress(quiet=as_json) as progress, build(settings, policy, progress) as pipeline:
        progress.close()
        if ask is None:
            converse(pipeline, out)
            raise typer.Exit(DONE)
        reply = asyncio.run(pipeline.respond(Turn(ask)))
    if as_json:
        _print_json(reply_json(reply))
    else:
        out.print(reply.text, markup=False, highlight=False)
        show_verdicts(reply, err)
    raise typer.Exit(BLOCKED if reply.verdict.action == "block" else DONE)


@cli.command()
def judge(
    context: typer.Context,
    stage: Annotated[JudgedStage, typer.Option(help="Whose text it is: the user's, or the model's.")],
    text: Annotated[str, typer.Option(help="The text; - reads standard input.")],
    policy: PolicyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a text by the rails of one stage, without generating anything.

    Exit status: 0 it may pass, as it is or rewritten; 1 it is blocked; 2 it could not be judged.

    Example: [bold]trackbed judge --stage input --text "my card is 4111 1111 1111 1111" --json[/]
    """
    from trackbed.apps.build import build_judge
    from trackbed.apps.schemas import usage_json, verdict_json
    from trackbed.rails.policy import load_policy
    from trackbed.rails.trace import trace_json

    text = sys.stdin.read() if text == "-" else text
    loaded = load_policy(policy or context.obj.policy)
    with build_judge(context.obj, loaded, stage.value) as pipeline:
        verdict, trace = asyncio.run(pipeline.check(stage.value, text))
    if as_json:
        left = {"allow": text, "rewrite": verdict.text, "block": None}[verdict.action]
        _print_json(
            {"text": left, "verdict": verdict_json(verdict), "trace": trace_json(trace), "usage": usage_json(trace)}
        )
    else:
        why = (
            f" by {verdict.by}" + (f": {verdict.detail or verdict.reason}" if verdict.by else "") if verdict.by else ""
        )
        out.print(f"{verdict.action}{why}", markup=False, highlight=False)
        if verdict.action == "rewrite":
            out.print(verdict.text, markup=False, highlight=False)
    raise typer.Exit(BLOCKED if verdict.action == "block" else DONE)


@cli.command()
def ingest(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="Files and folders: Markdown, text, HTML, PDF.")],
    to: Annotated[str, typer.Option(help="The index: a name, or a path.")],
    as_json: JsonOption = False,
) -> None:
    """Make an index of documents, in place of the one of that name.

    Files that cannot be read are named and left out; the exit status is 2 only where nothing could be read.

    Example: [bold]trackbed ingest docs/ handbook.pdf --to handbook[/]
    """
    from trackbed.apps.build import index_path
    from trackbed.llm.encoder import Encoder
    from trackbed.retrieval.ingest import ingest as make_index

    settings: Settings = context.obj
    path = index_path(settings, to)
    with _progress(quiet=as_json) as progress:
        report = make_index(paths, path, Encoder(settings.embedder, settings.models), progress)
    for sentence in report.skipped:
        err.print(f"left out: {sentence}", markup=False, highlight=False)
    if as_json:
        _print_json(
            {
                "index": str(path),
                "documents": report.documents,
                "passages": report.passages,
                "skipped": list(report.skipped),
            }
        )
    else:
        out.print(f"{report.passages} passages of {report.documents} documents are in {path}", highlight=False)


@cli.command()
def serve(
    context: typer.Context,
    policy: PolicyOption = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on.")] = 8000,
) -> None:
    """Answer POST /v1/chat/completions, as OpenAI's API does; not streamed.

    Example: [bold]trackbed serve --policy my-policy.yaml --port 8000[/]
    """
    from trackbed.apps.build import build
    from trackbed.apps.server import serve as run_server
    from trackbed.rails.policy import load_policy

    loaded = load_policy(policy or context.obj.policy)
    with _progress(quiet=False) as progress, build(context.obj, loaded, progress) as pipeline:
        progress.close()
        err.print(f"policy {loaded.name} on http://{host}:{port}/v1", highlight=False)
        run_server(pipeline, host, port)


@models_cli.command("list")
def models_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the known models: licence, memory, and whether they are on this disk.

    Example: [bold]trackbed models list[/]
    """
    from trackbed.llm.catalogue import listed

    rows = listed(context.obj.models)
    if as_json:
        _print_json([row._asdict() for row in rows])
        return
    table = Table("name", "for", "licence", "memory, GB", "here", box=None)
    for row in rows:
        table.add_row(row.name, row.kind, row.licence, f"{row.memory_gb:g}", "yes" if row.present else "")
    out.print(table)


@models_cli.command("get")
def models_get(
    context: typer.Context, name: Annotated[str, typer.Argument(help="A name of the list, or hf:org/repo.")]
) -> None:
    """Download a model and verify it; quick when it is there already.

    Example: [bold]trackbed models get smollm2-135m-instruct[/]
    """
    from trackbed.llm.catalogue import get

    with _progress(quiet=False) as progress:
        path = get(name, context.obj.models, progress)
    out.print(str(path), markup=False, highlight=False, soft_wrap=True)


@models_cli.command("path")
def models_path(
    context: typer.Context, name: Annotated[str, typer.Argument(help="A name of the list, hf:org/repo, or a path.")]
) -> None:
    """Print where a model's verified files are.

    Example: [bold]trackbed models path all-minilm-l6-v2[/]
    """
    from trackbed.llm.catalogue import locate

    out.print(str(locate(name, context.obj.models)), markup=False, highlight=False, soft_wrap=True)


@policy_cli.command("check")
def policy_check(
    policy: Annotated[str, typer.Argument(help="A policy file, a folder with policy.yaml, or a shipped name.")],
    as_json: JsonOption = False,
) -> None:
    """Find every mistake of a policy, with its line and column; needs no model.

    Example: [bold]trackbed policy check my-policy.yaml[/]
    """
    from trackbed.rails.errors import PolicyError
    from trackbed.rails.lint import lint
    from trackbed.rails.policy import load_policy

    try:
        remarks = lint(load_policy(policy))
    except PolicyError as error:
        if not as_json:
            raise
        _print_json({"ok": False, "errors": str(error).splitlines(), "warnings": []})
        raise typer.Exit(FAILED) from None
    if as_json:
        _print_json({"ok": True, "errors": [], "warnings": [str(remark) for remark in remarks]})
        return
    for remark in remarks:
        err.print(f"warning: {remark}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"{policy}: OK", markup=False, highlight=False, soft_wrap=True)


@policy_cli.command("schema")
def policy_schema() -> None:
    """Print the JSON Schema of policies, for editors that complete and check while one writes.

    Example: [bold]trackbed policy schema > policy.schema.json[/]
    """
    from trackbed.rails.schema import policy_schema as schema

    _print_json(schema())


@policy_cli.command("test")
def policy_test(
    policy: Annotated[str, typer.Argument(help="A policy file, a folder with policy.yaml, or a shipped name.")],
    as_json: JsonOption = False,
) -> None:
    """Run a policy's own tests, without loading a model.

    Exit status: 0 all passed, 1 one failed, 2 the policy cannot be loaded.

    Example: [bold]trackbed policy test default[/]
    """
    from trackbed.rails.policy import load_policy
    from trackbed.rails.testing import run_tests

    report = asyncio.run(run_tests(load_policy(policy)))
    if as_json:
        _print_json(report.as_json())
    else:
        for outcome in report.outcomes:
            mark = "[green]passed[/]" if outcome.passed else "[red]failed[/]"
            out.print(mark, end=" ")
            out.print(f"{outcome.test.place}: {outcome.test.messages[-1].content}", markup=False, highlight=False)
            for key, expected, found in outcome.differences:
                out.print(f"       {key}: expected {expected!r}, found {found!r}", markup=False, highlight=False)
        failed = sum(not outcome.passed for outcome in report.outcomes)
        out.print(f"{len(report.outcomes) - failed} passed, {failed} failed", highlight=False)
        if report.unexercised:
            out.print(f"no test makes these object: {', '.join(report.unexercised)}", highlight=False)
    raise typer.Exit(DONE if report.passed else BLOCKED)


class _Bar:
    """Progress on standard error: one bar, for the step that is being done."""

    def __init__(self, quiet: bool) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self.bar = Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal)
        self.task = self.bar.add_task("", total=None, visible=False)

    def __call__(self, step: str, done: int, total: int) -> None:
        self.bar.update(self.task, description=step, completed=done, total=total or None, visible=True)

    def close(self) -> None:
        self.bar.stop()


@contextmanager
def _progress(*, quiet: bool) -> Iterator[_Bar]:
    bar = _Bar(quiet)
    with bar.bar:
        yield bar


def _print_json(value: Any) -> None:  # Any: a JSON value
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201 - rich would wrap it


def main() -> None:
    """Run the command line. Errors that a person can mend are one sentence; others too, unless --debug is given."""
    # Read by the libraries when they load. Torch's threads would spin between operations and starve each other;
    # and nothing here asks a hub for anything unless `models get` does.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        cli()
    except EXPECTED as error:
        if "--debug" in sys.argv:
            raise
        err.print(f"trackbed: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(FAILED)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        words = f"trackbed: this should not have happened: {type(error).__name__}; --debug shows where"
        err.print(words, markup=False, highlight=False)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
