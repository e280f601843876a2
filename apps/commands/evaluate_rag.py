"""`trackbed eval rag`: how good the answers of a policy are, over the passages that questions come with."""

import json
from pathlib import Path
from typing import Annotated

import typer

from trackbed.apps.commands.answer import AsJson, PolicyName
from trackbed.apps.commands.evaluate import Limit, Plot, Seed, drawn, rows_of, table
from trackbed.apps.settings import Settings
from trackbed.apps.terminal import print_json, progress_bar, say

Questions = Annotated[
    Path,
    typer.Option(exists=True, dir_okay=False, help="JSON lines: question, answers, and context, contexts or doc_id."),
]
Index = Annotated[str | None, typer.Option(help="Search this index; else the passages of each row are given.")]
Rows = Annotated[Path | None, typer.Option(help="Write what came of each row there, as JSON lines.")]


def rag(
    context: typer.Context,
    data: Questions,
    policy: PolicyName = None,
    index: Index = None,
    limit: Limit = None,
    seed: Seed = 0,
    plot: Plot = None,
    rows: Rows = None,
    as_json: AsJson = False,
) -> None:
    """Measure answers that rest on passages: are they right, cited, and declined where there is none.

    Rows with an empty list of answers are those that their passages do not answer.

    Example: [bold]trackbed eval rag --data questions.jsonl[/]
    """
    from trackbed.apps.build import build
    from trackbed.apps.evals.plot import draw_answered
    from trackbed.apps.evals.rag import ask, given, rate, read_asked
    from trackbed.rails.policy import load_policy

    settings: Settings = context.obj
    asked = drawn(rows_of(lambda: read_asked(data)), limit, seed)
    loaded = load_policy(policy or settings.policy)
    if not index and (bare := next((row for row in asked if not row.contexts), None)):
        raise typer.BadParameter(f"row {bare.id} of {data} gives no passages; name an index with --index")
    if loaded.knowledge is None:
        raise typer.BadParameter(f"policy {loaded.name} has no knowledge: it answers without passages")
    opened = given(loaded, loaded.knowledge, max(len(row.contexts) for row in asked), index)
    with progress_bar(hidden=as_json) as report, build(settings, opened.built, report) as pipeline:
        answered = list(ask(opened.asked, pipeline.models, pipeline.retriever, asked, report))
    found = rate(answered, seed)
    if plot:
        draw_answered(found, f"{loaded.name}: {data.name}", plot)
    if rows:
        rows.write_text("".join(json.dumps(one.as_json(), ensure_ascii=False) + "\n" for one in answered), "utf-8")
    if as_json:
        print_json({"task": "rag", "data": data.name, "policy": loaded.name, "index": index, **found.as_json()})
        return
    for title, figures in (("what leaves", found.shipped), ("what the model drafted", found.draft)):
        table(title, ("figure",), {name.replace("_", " "): (figure,) for name, figure in figures.items()})
    time = found.milliseconds
    say(
        f"{found.rows} questions, {found.unanswerable} of them without an answer; "
        f"{time['median']:g} ms each (median; 95 % within {time['p95']:g} ms)"
    )
