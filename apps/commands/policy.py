"""`trackbed policy`: check a policy, run its tests, and describe the language. None of it needs a model."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trackbed.apps.terminal import err, out, plain, print_json, say, write_whole
from trackbed.rails.errors import Place, PolicyError

if TYPE_CHECKING:
    from trackbed.rails.mutate import Survey
    from trackbed.rails.testing import Outcome, Report

commands = typer.Typer(no_args_is_help=True, help="Check, test and describe policies; none of it needs a model.")
PolicyFile = Annotated[str, typer.Argument(help="A file, a folder with a policy.yaml, or a shipped name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="policy")


@commands.command()
def check(
    file: PolicyFile,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on what may not be meant, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find every mistake of a policy, with its line and column, what may not be meant, and what a turn costs at most.

    Exit status: 0 it can be used; 1 with --strict, something may not be meant; 2 it cannot be used.

    Example: [bold]trackbed policy check my-policy.yaml[/]
    """
    from trackbed.rails.cost import worst_case
    from trackbed.rails.lint import lint
    from trackbed.rails.policy import load_policy

    try:
        policy = load_policy(file)
        remarks, cost = lint(policy), worst_case(policy)
    except PolicyError as error:
        if not as_json:
            raise
        mistakes = [_told(mistake.message, mistake.place) for mistake in (error, *error.others)]
        print_json({"ok": False, "errors": mistakes, "warnings": []})
        raise typer.Exit(2) from None
    ok = not (strict and remarks)
    if as_json:
        warnings = [_told(remark.message, remark.place) for remark in remarks]
        print_json({"ok": ok, "errors": [], "warnings": warnings, "worst_case": cost.as_json()})
    else:
        for remark in remarks:
            say(f"{remark.place}: warning: {remark.message}", err)
        if policy.budget.model_calls is None or policy.budget.wall is None:
            say(f"note: {cost.words()}; 'budget: {{wall: 20s, model_calls: 6}}' bounds both", err)
        if ok:
            say("OK")
    raise typer.Exit(0 if ok else 1)


@commands.command()
def schema() -> None:
    """Print the JSON Schema of policies, which lets an editor complete and check while you write.

    Example: [bold]trackbed policy schema > policy.schema.json[/]
    """
    from trackbed.rails.schema import policy_schema

    print_json(policy_schema())


@commands.command("test")
def run(
    file: PolicyFile,
    mutate: Annotated[
        bool, typer.Option("--mutate", help="Make each rail wrong in turn, and name the changes that no test notices.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Write the results as JUnit XML too, for CI.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a policy's own tests, with its real rails and scripted models, and say what they leave untried.

    Exit status: 0 all passed; 1 one failed, or a change went unnoticed; 2 the policy cannot be used.

    Example: [bold]trackbed policy test default --mutate[/]
    """
    from trackbed.rails.junit import junit_xml
    from trackbed.rails.mutate import survey
    from trackbed.rails.policy import load_policy
    from trackbed.rails.testing import run_tests

    policy = load_policy(file)
    report = asyncio.run(run_tests(policy))
    # Where tests fail already, they notice nothing.
    found = asyncio.run(survey(policy)) if mutate and report.passed else None
    if junit:
        write_whole(junit, junit_xml(report))
    if as_json:
        print_json(report.as_json() | ({"mutants": found.as_json()} if found else {}))
    else:
        _show(report)
        if found:
            _show_survey(found)
        elif mutate:
            say("changes are tried when all tests pass", err)
    raise typer.Exit(0 if report.passed and (not found or found.passed) else 1)


def _told(message: str, place: Place | None) -> dict[str, str | int | None]:
    where = place or Place("")
    return {"file": where.file or None, "line": where.line or None, "column": where.column or None, "message": message}


def _show(report: "Report") -> None:
    for outcome in report.outcomes:
        _show_outcome(outcome)
    failed = sum(not outcome.passed for outcome in report.outcomes)
    say(f"{len(report.outcomes) - failed} passed, {failed} failed")
    for row in report.coverage:
        missed = f"; in no test: {', '.join(row.missed)}" if row.missed else ""
        say(f"  {row.part:<12}{row.of - len(row.missed):>4} of {row.of:<4}tested{missed}")


def _show_outcome(outcome: "Outcome") -> None:
    out.print("[green]passed[/]" if outcome.passed else "[red]failed[/]", end="  ")
    asked = " ".join(plain(outcome.test.messages[-1].content).split())
    out.print(f"{outcome.test.place}: {asked}", markup=False, highlight=False, no_wrap=True, overflow="ellipsis")
    for key, expected, found in outcome.differences:
        say(f"        {key}: expected {expected!r}, found {found!r}")


def _show_survey(survey: "Survey") -> None:
    say(f"{survey.tried} changes tried, {len(survey.survived)} of them not noticed by any test")
    for mutants, what in (
        (survey.survived, "no test notices when"),
        (survey.untried, "there was no time to see what comes when"),
    ):
        for mutant in mutants:
            say(f"{mutant.place}: {what} {mutant.rail} {mutant.change}")
