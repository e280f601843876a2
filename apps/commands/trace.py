"""`trackbed trace`: what recorded turns came to, and what they would come to under another policy."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text
from rich.tree import Tree

from trackbed.apps.terminal import err, out, plain, print_json, say

if TYPE_CHECKING:
    from trackbed.rails.record import Line, Record, SpanTold
    from trackbed.rails.replay import Replayed

commands = typer.Typer(no_args_is_help=True, help="Show recorded turns, and run them again under another policy.")
TraceFile = Annotated[Path, typer.Argument(help="What the setting `trace` had written: a line for each turn.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
COLOURS = {"allow": "green", "rewrite": "yellow", "block": "red"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="trace")


@commands.command()
def show(
    file: TraceFile,
    turn: Annotated[int | None, typer.Option(min=1, help="Show this turn alone, counted from 1.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show each recorded turn as a tree: what every rail came to, how long it took, and what it cost.

    Exit status: 0 all lines could be read; 1 some could not, and are named; 2 the file cannot be read.

    Example: [bold]trackbed trace show turns.jsonl --turn 3[/]
    """
    records: list[Record] = []
    broken: list[Line] = []
    for line in _lines(file):
        if line.record is None:
            broken.append(line)
        else:
            records.append(line.record)
            if not as_json and turn in (None, len(records)):
                out.print(_tree(len(records), line.record))
    if turn is not None and turn > len(records):
        raise typer.BadParameter(f"there are {len(records)} turns in {file}", param_hint="--turn")
    if as_json:
        shown = records if turn is None else [records[turn - 1]]
        told = [{"line": line.number, "message": line.mistake} for line in broken]
        print_json({"turns": [r.model_dump(mode="json") for r in shown], "broken": told, "total": _total(records)})
    else:
        _say_broken(file, broken)
        if turn is None:
            _say_total(records)
    raise typer.Exit(1 if broken else 0)


@commands.command()
def replay(
    file: TraceFile,
    policy: Annotated[
        str, typer.Option("--policy", "-p", help="A file, a folder with a policy.yaml, or a shipped name.")
    ],
    as_json: AsJson = False,
) -> None:
    """Run recorded turns under another policy, without any model, and print which verdicts change.

    Rails that ask no model judge anew. What models and the index answered is taken from the record where they are
    asked the same; where they would be asked something else, what comes of it is unknown.

    Exit status: 0 no verdict changes; 1 one does, or is unknown; 2 a turn could not be run again.

    Example: [bold]trackbed trace replay turns.jsonl --policy stricter.yaml[/]
    """
    from trackbed.rails.policy import load_policy
    from trackbed.rails.replay import replayed

    loaded = load_policy(policy)
    rows: list[Replayed] = []
    broken: list[Line] = []
    hashed = 0
    for line in _lines(file):
        if line.record is None:
            broken.append(line)
        elif line.record.asked is None:
            hashed += 1
        else:
            rows.append(asyncio.run(replayed(loaded, line.record, line.number)))
    count = Counter(row.outcome for row in rows)
    if as_json:
        told = [{"line": line.number, "message": line.mistake} for line in broken]
        counts = {"same": count["same"], "changed": count["changed"], "unknown": count["unknown"], "hashed": hashed}
        print_json({"policy": loaded.name, "turns": [row.as_json() for row in rows], "broken": told, **counts})
    else:
        for row in rows:
            if row.outcome != "same":
                out.print(_difference(row), soft_wrap=True)
        _say_broken(file, broken)
        if hashed:
            say(
                f"{hashed} turns cannot be run again: their texts were not recorded. "
                "'trace: full' in a policy, or the setting TRACKBED_TRACE_FULL=true, records them",
                err,
            )
        say(f"{count['same']} verdicts stay, {count['changed']} change, {count['unknown']} are unknown")
    if broken or hashed:
        raise typer.Exit(2)
    raise typer.Exit(1 if count["changed"] or count["unknown"] else 0)


def _lines(file: Path) -> Iterator["Line"]:
    """The lines of a file, one after the other, however many there are."""
    from trackbed.rails.record import read_lines

    with file.open("rb") as opened:
        yield from read_lines(opened)


def _tree(number: int, record: "Record") -> Tree:
    """A turn, with its steps below their stages."""
    words = Text.assemble((f"turn {number}", "bold"), f"  {record.at:%Y-%m-%d %H:%M:%S}  ", _verdict_words(record))
    words.append(f"  {record.ms:.1f} ms{_cost(record.model_calls, sum(record.usage))}", "dim")
    words.append(f"  {plain(record.policy.name)} {plain(record.policy.digest)}", "dim")
    tree = Tree(words)
    if record.asked:
        asked = record.asked.question if record.stage in (None, "input") else record.asked.draft or ""
        tree.add(Text.assemble(("asked ", "dim"), _short(asked)))
    stage, branch = "", tree
    for span in record.spans:
        if span.stage != stage:
            stage, branch = span.stage, tree.add(Text(plain(span.stage), "bold"))
        branch.add(_span_words(span))
    if record.reply:
        tree.add(Text.assemble(("said ", "dim"), _short(record.reply)))
    return tree


def _span_words(span: "SpanTold") -> Text:
    words = Text(plain(span.name))
    if span.action:
        words.append(f"  {span.action}", COLOURS[span.action])
    if span.score is not None:
        words.append(f"  score {span.score:.3f}")
    for told in (span.detail, span.error, "" if span.enforced else "only observed"):
        if told:
            words.append(f"  {plain(told)}")
    if span.findings:
        labels = Counter(str(finding.get("label", "")) for finding in span.findings)
        words.append("  " + plain(", ".join(f"{label} {count}" for label, count in labels.items())))
    if span.rewritten:
        words.append("  → ", "dim").append(_short(span.text) if span.text is not None else plain(span.rewritten))
    for key, value in (span.model_extra or {}).items():
        if value not in (None, [], ""):
            words.append(f"  {plain(key)} {plain(str(value))}", "dim")
    return words.append(f"  {span.ms:.1f} ms{_cost(span.model_calls, sum(span.usage or (0, 0)))}", "dim")


def _verdict_words(record: "Record") -> Text:
    stage = f"{record.stage}: " if record.stage else ""
    if record.verdict is None:
        return Text(f"{stage}failed with {plain(record.error)}", "red")
    by = f" by {record.verdict.by}" if record.verdict.by else ""
    why = record.verdict.detail or record.verdict.reason
    return Text(
        plain(f"{stage}{record.verdict.action}{by}{f' ({why})' if why else ''}"), COLOURS[record.verdict.action]
    )


def _difference(row: "Replayed") -> Text:
    words = Text(f"line {row.line}: {plain(row.before)} ")
    if row.outcome == "changed":
        return words.append("→ ").append(plain(row.after), COLOURS.get(row.after.partition(" ")[0], ""))
    return words.append("→ unknown: ").append(plain("; ".join(row.unknown)))


def _short(text: str) -> str:
    """A text on one line, without what could steer a terminal."""
    line = " ".join(plain(text).split())
    return line if len(line) <= 100 else f"{line[:99]}…"


def _cost(calls: int, tokens: int) -> str:
    return (f", {calls} model calls" if calls else "") + (f", {tokens} tokens" if tokens else "")


def _total(records: Sequence["Record"]) -> dict[str, object]:
    """What all turns came to."""
    times = sorted(record.ms for record in records)
    actions = Counter(record.verdict.action if record.verdict else "failed" for record in records)
    return {
        "turns": len(records),
        "actions": dict(sorted(actions.items())),
        "by": dict(Counter(r.verdict.by for r in records if r.verdict and r.verdict.by).most_common()),
        "ms": {"median": round(median(times), 3), "longest": times[-1]} if times else None,
        "model_calls": sum(record.model_calls for record in records),
        "tokens": sum(sum(record.usage) for record in records),
    }


def _say_total(records: Sequence["Record"]) -> None:
    actions = Counter(record.verdict.action if record.verdict else "failed" for record in records)
    by = Counter(record.verdict.by for record in records if record.verdict and record.verdict.by)
    times = sorted(record.ms for record in records)
    counted = ", ".join(f"{count} {action}" for action, count in sorted(actions.items()))
    say(f"{len(records)} turns{f': {counted}' if counted else ''}")
    for name, count in by.most_common():
        say(f"  {count:>6}  {name}")
    if times:
        cost = _cost(sum(r.model_calls for r in records), sum(sum(r.usage) for r in records))
        say(f"median {median(times):.1f} ms, longest {times[-1]:.1f} ms{cost}")


def _say_broken(file: Path, broken: Sequence["Line"]) -> None:
    for line in broken:
        say(f"{file}:{line.number}: this line is not one of a trace: {line.mistake}", err)
