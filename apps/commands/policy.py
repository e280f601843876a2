"""`trackbed policy`: check a policy, run its tests, and describe the language. None of it needs a model."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from trackbed.apps.terminal import err, out, plain, print_json, say
from trackbed.rails.errors import Place, PolicyError

if TYPE_CHECKING:
    from trackbed.rails.testing import Outcome

commands = typer.Typer(no_args_is_help=True, help="Check, test and describe policies; none of it needs a model.")
PolicyFile = Annotated[str, typer.Argument(help="A file, a folder with a policy.yaml, or a shipped name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="policy")


@commands.command()
def check(file: PolicyFile, as_json: AsJson = False) -> None:
    """Find every mistake of a policy, with its line and column, and what may not be meant.

    Exit status: 0 it can be used; 2 it cannot.

    Example: [bold]trackbed policy check my-policy.yaml[/]
    """
    from trackbed.rails.lint import lint
    from trackbed.rails.policy import load_policy

    try:
        remarks = lint(load_policy(file))
    except PolicyError as error:
        if not as_json:
            raise
        mistakes = [_told(mistake.message, mistake.place) for mistake in (error, *error.others)]
        print_json({"ok": False, "errors": mistakes, "warnings": []})
        raise typer.Exit(2) from None
    if as_json:
        print_json({"ok": True, "errors": [], "warnings": [_told(r.message, r.place) for r in remarks]})
        return
    for remark in remarks:
        say(f"{remark.place}: warning: {remark.message}", err)
    say("OK")


@commands.command()
def schema() -> None:
    """Print the JSON Schema of policies, which lets an editor complete and check while you write.

    Example: [bold]trackbed policy schema > policy.schema.json[/]
    """
    from trackbed.rails.schema import policy_schema

    print_json(policy_schema())


@commands.command("test")
def run(file: PolicyFile, as_json: AsJson = False) -> None:
    """Run a policy's own tests, with its real rails and scripted models.

    Exit status: 0 all passed; 1 one failed; 2 the policy cannot be used.

    Example: [bold]trackbed policy test default[/]
    """
    from trackbed.rails.policy import load_policy
    from trackbed.rails.testing import run_tests

    report = asyncio.run(run_tests(load_policy(file)))
    if as_json:
        print_json(report.as_json())
    else:
        for outcome in report.outcomes:
            _show(outcome)
        failed = sum(not outcome.passed for outcome in report.outcomes)
        say(f"{len(report.outcomes) - failed} passed, {failed} failed")
        if report.unexercised:
            say(f"no test makes these rails object: {', '.join(report.unexercised)}")
    raise typer.Exit(0 if report.passed else 1)


def _told(message: str, place: Place | None) -> dict[str, str | int | None]:
    where = place or Place("")
    return {"file": where.file or None, "line": where.line or None, "column": where.column or None, "message": message}


def _show(outcome: "Outcome") -> None:
    out.print("[green]passed[/]" if outcome.passed else "[red]failed[/]", end="  ")
    asked = " ".join(plain(outcome.test.messages[-1].content).split())
    out.print(f"{outcome.test.place}: {asked}", markup=False, highlight=False, no_wrap=True, overflow="ellipsis")
    for key, expected, found in outcome.differences:
        say(f"        {key}: expected {expected!r}, found {found!r}")
