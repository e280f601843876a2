"""The chatbot in the terminal: what was said, what the rails made of it, and the passages it rests on."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from trackbed.rails.pipeline import Pipeline
from trackbed.rails.types import Done, Progress, Reply, Text, Trace, Turn

HELP = "/trace shows each step of the last turn, /new begins a new conversation, /quit leaves."
STEPS = {
    "input": "The rails judge the question",
    "retrieval": "Searching",
    "generation": "The model drafts",
    "output": "The rails judge the draft",
}
COLOURS = {"allow": "green", "rewrite": "yellow", "block": "red"}


def converse(pipeline: Pipeline, console: Console, read: Callable[[str], str] = input) -> None:
    """Ask and answer until the person leaves."""
    console.print(f"[bold]trackbed[/], policy [cyan]{escape(pipeline.policy.name)}[/]. {HELP}")
    last: Reply | None = None
    with asyncio.Runner() as runner:
        while (question := _question(console, read)) is not None:
            if question == "/quit":
                return
            if question == "/new":
                last = None
                console.print("A new conversation.")
            elif question == "/trace":
                console.print(trace_table(last.trace) if last else "There was no turn yet.")
            elif question.startswith("/"):
                console.print(HELP)
            elif question:
                turn = last.next(question) if last else Turn(question)
                try:
                    last = runner.run(_answer(pipeline, turn, console))
                except KeyboardInterrupt:
                    console.print("[dim]stopped[/]")


async def _answer(pipeline: Pipeline, turn: Turn, console: Console) -> Reply:
    """One turn, shown as it comes."""
    status = Status("", console=console)
    if console.is_terminal:
        status.start()
    try:
        async for event in pipeline.stream(turn):
            match event:
                case Progress(stage, tokens):
                    status.update(STEPS[stage] + (f", {tokens} tokens" if tokens else "") + " ...")
                case Text(text):
                    status.stop()
                    console.print(text, end="", markup=False, highlight=False)
                case Done(reply):
                    console.print()
                    show_verdicts(reply, console)
                    return reply
    finally:
        status.stop()
    raise AssertionError("a stream ends with its reply")


def show_verdicts(reply: Reply, console: Console) -> None:
    """What the rails said, and the passages that the answer rests on."""
    verdict = reply.verdict
    said = [
        f"[{COLOURS[span.verdict.action]}]{escape(span.stage)}/{escape(span.name)}[/] {_outcome(span.verdict.action)}"
        + ("" if span.enforced else " (observed)")
        for span in reply.trace.spans
        if span.verdict and span.verdict.action != "allow"
    ]
    judged = sum(span.verdict is not None for span in reply.trace.spans)
    words = "; ".join(dict.fromkeys(said)) or f"[green]nothing objected[/] in {judged} judgements"
    console.print(f"[dim]rails:[/] {words}" + (f" [dim]({escape(verdict.detail)})[/]" if verdict.detail else ""))
    for cited in reply.citations:
        quote = " ".join(cited.quote.split())
        console.print(
            f"[dim][{cited.n}][/] [cyan]{escape(cited.source)}[/]", f"“{quote}”", style="dim", highlight=False
        )


def trace_table(trace: Trace) -> Table:
    """The steps of a turn with their times."""
    table = Table("step", "what came of it", "ms", box=None)
    for span in trace.spans:
        outcome = (
            _outcome(span.verdict.action) if span.verdict else ", ".join(f"{k} {v}" for k, v in span.notes.items())
        )
        tokens = f", {span.usage.completion_tokens} tokens" if span.usage else ""
        failed = f" ({span.error})" if span.error else ""
        table.add_row(f"{span.stage}/{span.name}", escape(outcome + tokens + failed), f"{span.milliseconds:.1f}")
    return table


def _outcome(action: str) -> str:
    return {"allow": "passed", "rewrite": "rewrote", "block": "blocked"}[action]


def _question(console: Console, read: Callable[[str], str]) -> str | None:
    """What the person typed; None when they leave."""
    with suppress(EOFError, KeyboardInterrupt):
        return read("\n> " if sys.stdin.isatty() else "").strip()
    console.print()
    return None
