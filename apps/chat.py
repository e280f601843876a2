"""The chatbot in the terminal: what was said, what the rails made of it, and the passages that it rests on.

It reads lines and shows events. It knows nothing of how an answer comes about.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing
from textwrap import shorten

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from trackbed.apps.terminal import plain
from trackbed.llm.errors import EngineStopped, LLMError
from trackbed.rails import types
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.types import Reply, Span, Trace, Turn
from trackbed.retrieval.errors import RetrievalError

HELP = "/trace shows each step of the last turn, /new begins a new conversation, /quit or Ctrl-D leaves."
STEPS = {
    "input": "the rails judge the question",
    "retrieval": "searching",
    "generation": "the model drafts an answer",
    "output": "the rails judge the answer",
}
QUOTED = 150  # characters of a citation at most
OUTCOMES = {"allow": "passed", "rewrite": "rewrote", "block": "blocked"}
COLOURS = {"allow": "green", "rewrite": "yellow", "block": "red"}


def converse(
    pipeline: Pipeline,
    console: Console,
    read: Callable[[], str] | None = None,
    groups: frozenset[str] = frozenset(),
) -> None:
    """Ask and answer until the person leaves. Ctrl-C stops a running answer, and the conversation goes on.

    Raises EngineStopped when the model can answer no more.
    """
    console.print(Text.assemble(("trackbed", "bold"), ", policy ", (plain(pipeline.policy.name), "cyan"), f". {HELP}"))
    last: Reply | None = None
    with asyncio.Runner() as runner:
        for line in _lines(console, read or _reader(console)):
            match line.split():
                case []:
                    pass
                case ["/quit" | "/exit"]:
                    return
                case ["/new"]:
                    last = None
                    console.print("A new conversation.", style="dim")
                case ["/trace"]:
                    console.print(steps(last.trace) if last else Text("There was no turn yet.", "dim"))
                case [word, *_] if word.startswith("/"):
                    console.print(HELP, style="dim")
                case _:
                    turn = last.next(line) if last else Turn(line, principals=groups)
                    try:
                        last = runner.run(_answer(pipeline, turn, console))
                        console.print(notes(last))
                    except KeyboardInterrupt:
                        console.print("stopped", style="dim")
                    except EngineStopped:
                        raise
                    except (LLMError, RetrievalError) as error:
                        console.print(Text(f"That could not be answered: {plain(str(error))}", "red"))


def notes(reply: Reply) -> RenderableType:
    """What the rails said of a turn, and the passages that the answer rests on."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(ratio=1)
    judged = [span for span in reply.trace.spans if span.verdict]
    objections = [span for span in judged if span.verdict and span.verdict.action != "allow"]
    seen = dict.fromkeys(_objection(span) for span in objections)
    rest = f"{len(judged) - len(objections)} judgements passed"
    grid.add_row("rails", Text(" · ").join([*(Text(words, COLOURS[action]) for words, action in seen), Text(rest)]))
    for cited in reply.citations:
        quoted = shorten(plain(cited.quote), QUOTED, placeholder=" …")
        place = [plain(cited.source)] + ([f"page {cited.page}"] if cited.page is not None else [])
        place += [plain(cited.heading)] if cited.heading else []
        grid.add_row(f"[{cited.n}]", Text.assemble((", ".join(place), "cyan"), "  ", (f"“{quoted}”", "dim")))
    if not reply.citations:
        grid.add_row("sources", Text("no passage stands behind this", "dim"))
    return grid


def steps(trace: Trace) -> RenderableType:
    """The steps of a turn: what came of each, and how long it took."""
    table = Table("step", "what came of it", box=None, header_style="dim")
    table.add_column("ms", justify="right")
    for span in trace.spans:
        parts = [OUTCOMES[span.verdict.action]] if span.verdict else []
        parts += [f"{key} {value}" for key, value in span.notes.items() if value is not None]
        parts += [f"{span.usage.prompt_tokens}+{span.usage.completion_tokens} tokens"] if span.usage else []
        parts += [span.verdict.detail] if span.verdict and span.verdict.detail else []
        parts += [span.error] if span.error else []
        parts += [] if span.enforced else ["only observed"]
        style = COLOURS[span.verdict.action] if span.verdict and span.verdict.action != "allow" else ""
        name = Text(plain(f"{span.stage}/{span.name}"), style)
        table.add_row(name, Text(plain(", ".join(parts))), f"{span.milliseconds:.1f}")
    return table


async def _answer(pipeline: Pipeline, turn: Turn, console: Console) -> Reply:
    """One turn, shown as it comes."""
    shown, spinner = Text(), Spinner("dots", style="dim")
    with Live(spinner, console=console, vertical_overflow="visible") as live:
        try:
            async with aclosing(pipeline.stream(turn)) as events:
                async for event in events:
                    match event:
                        case types.Progress(stage, tokens):
                            words = f"{STEPS[stage]}, {tokens} tokens" if tokens else STEPS[stage]
                            spinner.update(text=Text(words, "dim"))
                        case types.Text(text):
                            shown.append(plain(text))
                            live.update(Group(shown, spinner))
                        case types.Replace(text):
                            shown = Text(plain(text))
                            live.update(Group(shown, spinner))
                        case types.Done(reply):
                            return reply
        finally:
            live.update(shown if console.is_terminal else Group(shown, ""))  # a pipe gets no line feed at the end
    raise AssertionError("a stream ends with its reply")


def _objection(span: Span) -> tuple[str, str]:
    """An objection in words, and its action."""
    verdict = span.verdict
    assert verdict
    what = f"it could not judge ({span.error})" if span.error else verdict.detail
    observed = "" if span.enforced else " (only observed)"
    words = f"{span.stage}/{span.name} {OUTCOMES[verdict.action]}{f': {what}' if what else ''}{observed}"
    return plain(words), verdict.action


def _lines(console: Console, read: Callable[[], str]) -> Iterator[str]:
    """What the person types, until they leave."""
    while True:
        try:
            yield read().strip()
        except EOFError:
            console.print()
            return
        except KeyboardInterrupt:
            console.print()
            if not sys.stdin.isatty():  # nobody is there to go on
                return


def _reader(console: Console) -> Callable[[], str]:
    """Reads a line of standard input, with editing and history where that is a terminal."""
    if sys.stdin.isatty():
        import readline  # noqa: F401  importing it is what gives `input` these

        return lambda: input("\n> ")

    def read() -> str:
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        console.print(Text(f"\n> {plain(line.rstrip())}", "bold"))
        return line

    return read
