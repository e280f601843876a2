"""`trackbed demo`, `chat`, `judge` and `serve`: a policy at work, in the terminal or behind HTTP."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from trackbed.apps.settings import Settings
from trackbed.apps.terminal import err, out, print_json, progress_bar, say, whole

if TYPE_CHECKING:
    from trackbed.rails.pipeline import Pipeline
    from trackbed.rails.types import Verdict

PolicyName = Annotated[
    str | None, typer.Option("--policy", "-p", help="A file, a folder with a policy.yaml, or a shipped name.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Groups = Annotated[
    list[str] | None,
    typer.Option("--group", help="A group of yours, for documents that only some may read."),
]


class StageName(StrEnum):
    """Where rails judge."""

    input = "input"
    retrieval = "retrieval"
    output = "output"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (demo, chat, judge, serve):
        app.command()(command)


def demo(context: typer.Context) -> None:
    """Chat about trackbed itself, over the pages that come with it.

    Example: [bold]trackbed demo[/]
    """
    _converse(context.obj, "default")


def chat(
    context: typer.Context,
    policy: PolicyName = None,
    ask: Annotated[str | None, typer.Option(help="Ask this one question, and leave; - reads standard input.")] = None,
    group: Groups = None,
    as_json: AsJson = False,
) -> None:
    """Chat under a policy, or ask one question.

    Exit status of a question: 0 it is answered; 1 it, or the answer, is blocked; 2 it could not be asked.

    Example: [bold]trackbed chat --ask "How do I add a rail?" --json[/]
    """
    settings: Settings = context.obj
    if ask is not None:
        _ask(settings, policy or settings.policy, _text(ask), frozenset(group or ()), as_json=as_json)
    elif as_json:
        raise typer.BadParameter("--json goes with --ask; a conversation is for people")
    else:
        _converse(settings, policy or settings.policy, frozenset(group or ()))


def judge(
    context: typer.Context,
    stage: Annotated[StageName, typer.Option(help="Whose text it is: the user's, a document's or the model's.")],
    text: Annotated[str, typer.Option(help="The text; - reads standard input.")],
    policy: PolicyName = None,
    question: Annotated[str, typer.Option(help="What was asked, for rails that judge an answer by it.")] = "",
    passage: Annotated[
        list[str] | None, typer.Option(help="A passage that an answer may rest on; give it once for each.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge a text by the rails of one stage. Nothing is generated, and only what these rails need is loaded.

    Exit status: 0 it may pass, as it is or rewritten; 1 it is blocked; 2 it could not be judged.

    Example: [bold]trackbed judge --stage input --text "my card is 4111 1111 1111 1111" --json[/]
    """
    from trackbed.apps.build import build_judge
    from trackbed.apps.schemas import usage_json, verdict_json
    from trackbed.rails.policy import load_policy
    from trackbed.rails.trace import trace_json
    from trackbed.rails.types import Turn
    from trackbed.retrieval.types import Passage

    settings: Settings = context.obj
    judged, given = _text(text), [whole(p) for p in passage or ()]
    loaded = load_policy(policy or settings.policy)
    turn = Turn(whole(question), passages=tuple(Passage(p, f"passage {n}", 0, len(p)) for n, p in enumerate(given, 1)))
    with (
        progress_bar(hidden=as_json) as report,
        build_judge(settings, loaded, stage.value, progress=report) as pipeline,
    ):
        verdict, trace = asyncio.run(pipeline.check(stage.value, judged, turn))
    if as_json:
        left = {"allow": judged, "rewrite": verdict.text, "block": None}[verdict.action]
        parts = {"verdict": verdict_json(verdict), "trace": trace_json(trace), "usage": usage_json(trace)}
        print_json({"text": left, **parts})
    else:
        _say_verdict(verdict)
    raise typer.Exit(1 if verdict.action == "block" else 0)


def serve(
    context: typer.Context,
    policy: PolicyName = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 8000,
    groups_header: Annotated[
        str,
        typer.Option(
            help="The header in which a trusted proxy names the groups of whoever asks, with commas. Nobody else may "
            "reach the server then, and the proxy has to drop what callers write there themselves."
        ),
    ] = "",
) -> None:
    """Serve the pipeline as OpenAI's API does: POST /v1/chat/completions, not streamed.

    Ctrl-C ends it.

    Example: [bold]trackbed serve --policy my-policy.yaml --port 8000[/]
    """
    from trackbed.apps.server import listen, run

    settings: Settings = context.obj
    # A port that is taken is found before models are loaded.
    with listen(host, port) as socket, _pipeline(settings, policy or settings.policy) as pipeline:
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{socket.getsockname()[1]}/v1"
        say(f"policy {pipeline.policy.name} answers at {address}; Ctrl-C ends it", err)
        run(pipeline, socket, groups_header)


def _ask(settings: Settings, policy: str, question: str, groups: frozenset[str], *, as_json: bool) -> None:
    from trackbed.apps.chat import notes
    from trackbed.apps.schemas import reply_json
    from trackbed.rails.types import Turn

    with _pipeline(settings, policy, hidden=as_json) as pipeline:
        reply = asyncio.run(pipeline.respond(Turn(question, principals=groups)))
    if as_json:
        print_json(reply_json(reply))
    else:
        say(reply.text)
        err.print(notes(reply))
    raise typer.Exit(1 if reply.verdict.action == "block" else 0)


def _converse(settings: Settings, policy: str, groups: frozenset[str] = frozenset()) -> None:
    from trackbed.apps.chat import converse

    with _pipeline(settings, policy) as pipeline:
        converse(pipeline, out, groups=groups)


@contextmanager
def _pipeline(settings: Settings, policy: str, *, hidden: bool = False) -> Iterator["Pipeline"]:
    """The policy's pipeline, and a progress bar until it is open."""
    from trackbed.apps.build import build
    from trackbed.rails.policy import load_policy

    with ExitStack() as opened:
        with progress_bar(hidden=hidden) as report:
            pipeline = opened.enter_context(build(settings, load_policy(policy), report))
        yield pipeline


def _text(argument: str) -> str:
    """A text that is given as an argument, or, for a dash, on standard input."""
    return sys.stdin.read() if argument == "-" else whole(argument)


def _say_verdict(verdict: "Verdict") -> None:
    by = f" by {verdict.by}" if verdict.by else ""
    why = f" ({verdict.detail or verdict.reason})" if verdict.reason else ""
    say(f"{verdict.action}{by}{why}")
    if verdict.action == "rewrite":
        say(verdict.text or "")
