"""`trackbed attack`: known attacks in many disguises against a policy, and what got through as tests for it."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trackbed.apps.settings import Settings, SettingsError
from trackbed.apps.terminal import err, print_json, progress_bar, say, write_whole

if TYPE_CHECKING:
    from trackbed.apps.attack.campaign import Campaign


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(attack)


def attack(
    context: typer.Context,
    policy: Annotated[
        str | None, typer.Option("--policy", "-p", help="A file, a folder with a policy.yaml, or a shipped name.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Attacks of your own instead: JSON lines of {text, label}; 'benign' and 'safe' are left out."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take so many of the attacks at most.")] = None,
    seed: Annotated[int, typer.Option(help="Decides which attacks are taken, and what of a disguise is chance.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write what got through here, as tests of a policy.")] = None,
    fail_over: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="SHARE", help="Fail where more than this share got through.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Disguise known attacks in many ways, and see which get through the input rails. Nothing is generated.

    Exit status: 0 it was tried; 1 more got through than --fail-over says; 2 it could not be tried.

    Example: [bold]trackbed attack --policy default --limit 10 --out attacks.yaml[/]
    """
    from trackbed.apps.attack.campaign import run
    from trackbed.apps.attack.known import from_file, shipped, some
    from trackbed.apps.attack.regression import regression
    from trackbed.apps.build import build_judge
    from trackbed.rails.policy import load_policy

    settings: Settings = context.obj
    loaded = load_policy(policy or settings.policy)
    known = some(from_file(data) if data else shipped(), limit, seed)
    if not known:
        raise SettingsError(f"{data}: there is no attack in it; a line is {{'text', 'label'}}")
    if not loaded.rails.get("input"):
        say(f"warning: policy {loaded.name} has no input rails, so that all gets through", err)
    with (
        progress_bar(hidden=as_json) as report,
        build_judge(settings, loaded, "input", progress=report) as pipeline,
    ):
        campaign = asyncio.run(run(pipeline, known, seed, report))
    if out:
        text, written = regression(campaign, loaded, out)
        write_whole(out, text)
        say(f"{out}: {written} tests", err)
    if as_json:
        print_json(campaign.as_json())
    else:
        _show(campaign)
    raise typer.Exit(1 if fail_over is not None and campaign.share > fail_over else 0)


def _show(campaign: "Campaign") -> None:
    say(f"{'mutation':<26}{'tried':>7}{'blocked':>9}{'rewritten':>11}{'allowed':>9}")
    for row in campaign.rows:
        unsure = f"   {row.failed} blocked since a rail could not judge" if row.failed else ""
        say(f"{row.mutation:<26}{row.tried:>7}{row.blocked:>9}{row.rewritten:>11}{row.allowed:>9}{unsure}")
    tried, through = len(campaign.attempts), len(campaign.through)
    say(f"{through} of {tried} attempts got through policy {campaign.policy} ({campaign.share:.1%})")
