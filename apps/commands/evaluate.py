"""`trackbed eval`: how good the judges of a policy are, on labelled texts."""

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from trackbed.apps.commands.answer import AsJson, PolicyName, StageName
from trackbed.apps.commands.evaluate_retrieval import retrieval
from trackbed.apps.settings import Settings
from trackbed.apps.terminal import out, print_json, progress_bar, say

if TYPE_CHECKING:
    from trackbed.apps.evals.judging import Report
    from trackbed.apps.evals.measures import Figure
    from trackbed.rails.pipeline import Pipeline
    from trackbed.rails.policy import Policy
    from trackbed.rails.types import Stage

commands = typer.Typer(no_args_is_help=True, help="Measure the judges of a policy, and its search, on labelled texts.")
commands.command()(retrieval)
T = TypeVar("T")

Data = Annotated[
    Path, typer.Option(exists=True, dir_okay=False, help="JSON lines: text, label, source; for pii text and spans.")
]
RailText = Annotated[
    str | None,
    typer.Option("--rail", help="One rail instead of a policy: its name, or YAML as in a policy."),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="What --rail may ask: a name, =, and a model as in a policy. Once for each."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Judge at most so many rows, drawn by --seed.")]
Seed = Annotated[int, typer.Option(help="What draws rows and intervals.")]
Plot = Annotated[Path | None, typer.Option(help="Write a picture there.")]

# What rails may ask where --rail is given and --model says nothing of it.
SHIPPED = {
    "guard": "minilm-guard",
    "attacks": "minilm-injection",
    "toxicity": "minilm-toxicity",
    "names": "minilm-names",
    "chat": "smollm2-135m-instruct",
    "claims": "smollm2-claims",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    # Imported here, since it draws on this file.
    from trackbed.apps.commands.evaluate_grounding import grounding
    from trackbed.apps.commands.evaluate_rag import rag

    commands.command()(grounding)
    commands.command()(rag)
    app.add_typer(commands, name="eval")


@commands.command()
def guard(
    context: typer.Context,
    data: Data,
    policy: PolicyName = None,
    rail: RailText = None,
    model: Models = None,
    limit: Limit = None,
    seed: Seed = 0,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure what tells unsafe texts from safe ones; label: safe, or anything else.

    Rows with role: assistant and a prompt are judged as answers, all others as what a user says.

    Example: [bold]trackbed eval guard --data rows.jsonl --rail hazards[/]
    """
    _classify(context.obj, data, ("safe",), policy, rail or None, model, limit, seed, plot, as_json=as_json)


@commands.command()
def injection(
    context: typer.Context,
    data: Data,
    policy: PolicyName = None,
    rail: RailText = None,
    model: Models = None,
    stage: Annotated[StageName, typer.Option(help="Whose texts these are.")] = StageName.input,
    limit: Limit = None,
    seed: Seed = 0,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure what tells attacks from harmless texts; label: benign, or anything else.

    Example: [bold]trackbed eval injection --data rows.jsonl --rail "{rail: jailbreak, model: attacks}"[/]
    """
    _classify(context.obj, data, ("benign",), policy, rail, model, limit, seed, plot, stage.value, as_json=as_json)


@commands.command()
def pii(
    context: typer.Context,
    data: Data,
    policy: PolicyName = None,
    rail: RailText = None,
    limit: Limit = None,
    seed: Seed = 0,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure what finds personal data, span by span; kinds are those that data and rail have in common.

    Example: [bold]trackbed eval pii --data rows.jsonl[/]
    """
    from trackbed.apps.evals.judging import judge_rows
    from trackbed.apps.evals.plot import draw_spotted
    from trackbed.apps.evals.spans import read_marked, spot

    loaded = policy_of(policy, rail or (None if policy else "pii"), None, "input")
    rows = drawn(rows_of(lambda: read_marked(data)), limit, seed)
    known = {kind for use in loaded.rails.get("input", ()) for kind in getattr(use.config, "kinds", ())}
    kinds = sorted(known & {span[0] for row in rows for span in row.spans})
    if not kinds:
        raise typer.BadParameter(f"no rail of the policy finds a kind of span that {data} has")
    with judging(context.obj, loaded, "input", hidden=as_json) as (pipeline, report):
        judged = judge_rows(pipeline, [row.row for row in rows], "input", report)
    found = spot(rows, judged, kinds, seed)
    if plot:
        draw_spotted(found, f"{loaded.name}: {data.name}", plot)
    if as_json:
        print_json({"task": "pii", "data": data.name, "policy": loaded.name, **found.as_json()})
        return
    for how, told in (("exact spans", found.exact), ("overlapping spans", found.rough)):
        table(how, ("precision", "recall", "f1"), {kind: tuple(figures.values()) for kind, figures in told.items()})
    costs(len(rows), found.milliseconds, found.failed)


def _classify(
    settings: Settings,
    data: Path,
    negatives: Sequence[str],
    policy: str | None,
    rail: str | None,
    model: list[str] | None,
    limit: int | None,
    seed: int,
    plot: Path | None,
    stage: "Stage" = "input",
    *,
    as_json: bool,
) -> None:
    from trackbed.apps.evals.classes import classify
    from trackbed.apps.evals.judging import judge_rows
    from trackbed.apps.evals.measures import Figure
    from trackbed.apps.evals.plot import draw_classified
    from trackbed.llm.tuning.rows import read_rows

    every = drawn(rows_of(lambda: read_rows(data, negatives, lambda row: True)), limit, seed)
    answers = [row for row in every if row.answer]
    asked = [row for row in every if not row.answer]
    rows, judged, name = [], [], ""
    for part, where in ((asked, stage), (answers, "output")):
        if part:
            loaded = policy_of(policy or ("" if rail else settings.policy), rail, model, where)
            if not loaded.rails.get(where):
                raise typer.BadParameter(f"policy {loaded.name} has no rails on {where}, where {len(part)} rows belong")
            with judging(settings, loaded, where, hidden=as_json) as (pipeline, report):
                judged += judge_rows(pipeline, part, where, report)
            rows += part
            name = loaded.name
    found = classify(rows, judged, seed)
    if plot:
        draw_classified(found, f"{name}: {data.name}", plot)
    if as_json:
        print_json({"task": "classes", "data": data.name, "policy": name, "rows": len(rows), **found.as_json()})
        return
    overall = {measure.replace("_", " "): (figure,) for measure, figure in found.overall.items()}
    overall["false positive rate, hard rows"] = (found.hard,)
    table("over all rows", ("figure",), overall)
    nothing = Figure(float("nan"), float("nan"), float("nan"))
    columns = ("auroc", "recall", "false_positive_rate")
    sources = {s: tuple(told.get(column, nothing) for column in columns) for s, told in found.sources.items()}
    table("by source", columns, sources)
    if found.hazards:
        table("by hazard", ("recall",), {hazard: (figure,) for hazard, figure in found.hazards.items()})
    say(f"mean AUROC over sources {found.mean_auroc:.3f}; calibration error {found.calibration_error:.3f}")
    costs(len(rows), found.milliseconds, found.failed)


def policy_of(policy: str | None, rail: str | None, models: list[str] | None, stage: str) -> "Policy":
    """The policy that is named, or one of a single rail."""
    from trackbed.rails.policy import load_policy

    if policy and rail:
        raise typer.BadParameter("give --policy or --rail, not both")
    if rail is None:
        return load_policy(policy or "default")
    said = dict(part.partition("=")[::2] for part in models or ())
    if wrong := [part for part in models or () if "=" not in part]:
        raise typer.BadParameter(f"--model {wrong[0]!r} says no model; such as guard=minilm-guard")
    named = "".join(f"  {name}: {source}\n" for name, source in {**SHIPPED, **said}.items())
    use = rail if rail.lstrip().startswith("{") else f"{{rail: {rail}}}"
    listed = f"input: [{use}]" if stage == "input" else f"{stage}: [{use}]"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rail.yaml"
        file.write_text(f"policy: 1\nname: one-rail\nmodels:\n{named}{listed}\n", encoding="utf-8")
        return load_policy(file)


def rows_of(read: Callable[[], list[T]]) -> list[T]:
    """What is read, which is one row at least."""
    try:
        rows = read()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if not rows:
        raise typer.BadParameter("--data has no rows")
    return rows


def drawn(rows: list[T], limit: int | None, seed: int) -> list[T]:
    """All rows, or so many of them in their order."""
    if limit is None or limit >= len(rows):
        return rows
    places = sorted(random.Random(seed).sample(range(len(rows)), limit))  # noqa: S311  a draw, no secret
    return [rows[place] for place in places]


@contextmanager
def judging(
    settings: Settings, policy: "Policy", stage: "Stage", *, hidden: bool
) -> "Iterator[tuple[Pipeline, Report]]":
    """The policy's judges of a stage, opened, and a bar that shows how far they have come."""
    from trackbed.apps.build import build_judge

    with progress_bar(hidden=hidden) as report, build_judge(settings, policy, stage, progress=report) as pipeline:
        yield pipeline, report


def table(title: str, columns: Sequence[str], rows: "Mapping[str, tuple[Figure, ...]]") -> None:
    """Figures with their intervals, for people."""
    from rich.table import Table

    shown = Table("", *(column.replace("_", " ") for column in columns), title=title, title_justify="left")
    for name, figures in rows.items():
        shown.add_row(name, *(_shown(figure) for figure in figures))
    out.print(shown)


def _shown(figure: "Figure") -> str:
    if figure.value != figure.value:  # there is none
        return ""
    return f"{figure.value:.3f} ({figure.low:.3f}–{figure.high:.3f})"


def costs(rows: int, milliseconds: dict[str, float], failed: int) -> None:
    """How long texts took, and how many could not be judged."""
    lost = f"; {failed} could not be judged, and count as blocked" if failed else ""
    say(f"{rows} texts, {milliseconds['median']:g} ms each (median; 95 % within {milliseconds['p95']:g} ms){lost}")
