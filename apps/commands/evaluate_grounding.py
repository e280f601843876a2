"""`trackbed eval grounding`: how well rails tell answers that a text supports from those that it does not."""

from pathlib import Path
from typing import Annotated

import typer

from trackbed.apps.commands.answer import AsJson, PolicyName
from trackbed.apps.commands.evaluate import (
    Limit,
    Models,
    Plot,
    RailText,
    Seed,
    costs,
    drawn,
    judging,
    policy_of,
    rows_of,
    table,
)
from trackbed.apps.terminal import print_json, say

# Each sentence counts, and an answer may be one word, which takes up none of its question's.
WORDS = "rail: grounding, minimum: 1, support: 0.75, relevance: 0, short_answers: true"
EACH = f"{{{WORDS}, model: claims, model_weight: 0.3, excerpt: 900}}"

Answers = Annotated[
    Path,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="JSON lines: context, question (if any), answer, source, label: grounded or not.",
    ),
]
Join = Annotated[
    list[str] | None, typer.Option("--join", help="Sources whose names begin with this are one. Once for each.")
]


def grounding(
    context: typer.Context,
    data: Answers,
    policy: PolicyName = None,
    rail: RailText = None,
    model: Models = None,
    join: Join = None,
    limit: Limit = None,
    seed: Seed = 0,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure what tells grounded answers from hallucinated ones; label: grounded or hallucinated.

    Without --policy and --rail it is the rail grounding with the shipped judge of claims, about each sentence, whatever
    was asked. An answer that is blocked or rewritten counts as found; F1 is that of hallucinated ones.

    Example: [bold]trackbed eval grounding --data rows.jsonl --rail "{rail: grounding, minimum: 1}"[/]
    """
    from trackbed.apps.evals.grounding import MEASURES, ground, judge_answers, read_answered
    from trackbed.apps.evals.plot import draw_grounded

    loaded = policy_of(policy, rail or (None if policy else EACH), model, "output")
    if not loaded.rails.get("output"):
        raise typer.BadParameter(f"policy {loaded.name} has no rails on output, where answers are judged")
    rows = drawn(rows_of(lambda: read_answered(data, join or ())), limit, seed)
    with judging(context.obj, loaded, "output", hidden=as_json) as (pipeline, report):
        judged = judge_answers(pipeline, rows, report)
    found = ground(rows, judged, seed)
    if plot:
        draw_grounded(found, f"{loaded.name}: {data.name}", plot)
    if as_json:
        told = {"task": "grounding", "data": data.name, "policy": loaded.name, "rows": len(rows)}
        print_json({**told, **found.as_json()})
        return
    columns = tuple(MEASURES)
    figures = {source: tuple(told[column] for column in columns) for source, told in found.sources.items()}
    table("by source", columns, {**figures, "all rows": tuple(found.overall[column] for column in columns)})
    means = "; ".join(f"{name.replace('_', ' ')} {mean:.3f}" for name, mean in found.means.items())
    say(f"means over sources with both labels: {means}")
    costs(len(rows), found.milliseconds, found.failed)
