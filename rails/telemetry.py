"""A turn as OpenTelemetry spans, with the GenAI conventions' names, for who has set a provider up.

Nothing is imported: whoever has set a provider up has imported the API already, and for everybody else a turn costs one
look into the table of modules. No text that anybody wrote is told, unless the policy says `trace: full`.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Any

from trackbed.rails.types import Reply, Span, Trace, Turn, Verdict

if TYPE_CHECKING:
    from trackbed.rails.policy import Policy

Attributes = dict[str, Any]  # Any: what OpenTelemetry lets an attribute be
PROVIDER = "trackbed"


def present() -> bool:
    """Whether somebody has imported OpenTelemetry; without it, a turn is not to pay for it."""
    return "opentelemetry.trace" in sys.modules


@contextmanager
def observed(policy: "Policy", turn: Turn, trace: Trace) -> Iterator[Callable[[Reply], Reply]]:
    """Tell of the turn that runs inside, when it is over; the reply is to be passed through what this gives."""
    api: Any = sys.modules["opentelemetry.trace"]  # Any: it may not be installed
    replies: list[Reply] = []
    clock, begun = time_ns(), perf_counter()
    root = api.get_tracer(PROVIDER).start_span(f"invoke_agent {policy.name}", start_time=clock)
    if not root.is_recording():
        yield _same
        return

    def at(seconds: float) -> int:
        return clock + int(1e9 * (seconds - begun))

    def told(reply: Reply) -> Reply:
        replies.append(reply)
        return reply

    failed = ""
    try:
        # What is asked over the network meanwhile becomes a part of this turn. An exception's text may be anybody's.
        with api.use_span(root, record_exception=False, set_status_on_exception=False):
            yield told
    except BaseException as error:
        failed = type(error).__name__
        raise
    finally:
        _tell(api, root, policy, turn, trace, replies, failed, at)


def _same(reply: Reply) -> Reply:
    return reply


def _tell(
    api: Any,  # Any: the module opentelemetry.trace, and one of its spans
    root: Any,
    policy: "Policy",
    turn: Turn,
    trace: Trace,
    replies: list[Reply],
    failed: str,
    at: Callable[[float], int],
) -> None:
    """End the turn's span, with one below it for each step."""
    tracer, inside = api.get_tracer(PROVIDER), api.set_span_in_context(root)
    for span in trace.spans:
        name, attributes = _described(span, policy)
        start = at(span.ended - span.milliseconds / 1000)
        child = tracer.start_span(name, context=inside, attributes=attributes, start_time=start)
        if span.error:
            child.set_status(api.Status(api.StatusCode.ERROR, span.error))
        child.end(end_time=at(span.ended))
    root.set_attributes(_of_turn(policy, turn, trace, replies))
    if failed:
        root.set_attribute("error.type", failed)
        root.set_status(api.Status(api.StatusCode.ERROR, failed))
    root.end(end_time=at(perf_counter()))


def _of_turn(policy: "Policy", turn: Turn, trace: Trace, replies: list[Reply]) -> Attributes:
    attributes: Attributes = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.agent.name": policy.name,
        "gen_ai.request.model": _model(policy, policy.generation.model),
        "gen_ai.usage.input_tokens": trace.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": trace.usage.completion_tokens,
        "trackbed.policy": policy.name,
        "trackbed.policy.digest": policy.digest,
        "trackbed.model_calls": sum(span.calls for span in trace.spans),
    }
    for reply in replies:
        attributes |= _of_verdict(reply.verdict) | {"trackbed.by": reply.verdict.by}
    if policy.trace == "full":
        asked = [(m.role, m.content) for m in turn.history] + [("user", turn.question)]
        attributes["gen_ai.input.messages"] = _messages(asked)
        attributes["gen_ai.output.messages"] = _messages([("assistant", reply.text) for reply in replies])
    return attributes


def _described(span: Span, policy: "Policy") -> tuple[str, Attributes]:
    """The name of a step, and what is told of it."""
    attributes: Attributes = {"trackbed.stage": span.stage, "trackbed.name": span.name}
    attributes |= {f"trackbed.{key}": told for key, value in span.notes.items() if (told := _value(value)) is not None}
    if span.verdict:
        attributes |= _of_verdict(span.verdict) | {"trackbed.enforced": span.enforced}
    if span.calls:
        attributes["trackbed.model_calls"] = span.calls
    if span.usage:
        attributes["gen_ai.usage.input_tokens"] = span.usage.prompt_tokens
        attributes["gen_ai.usage.output_tokens"] = span.usage.completion_tokens
    if span.error:
        attributes["error.type"] = span.error
    if span.subject:
        attributes["trackbed.subject"] = span.subject
    if span.name == "generate" and span.stage == "generation":
        return _generation(span.notes, policy, attributes)
    if span.name == "search" and span.stage == "retrieval" and policy.knowledge:
        attributes["gen_ai.operation.name"] = "retrieval"
        attributes["gen_ai.data_source.id"] = policy.knowledge.index
        return f"retrieval {policy.knowledge.index}", attributes
    return f"{span.stage}/{span.name}", attributes


def _generation(notes: Mapping[str, Any], policy: "Policy", attributes: Attributes) -> tuple[str, Attributes]:
    model, sampling = _model(policy, str(notes.get("model", ""))), policy.generation.sampling
    attributes |= {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.response.finish_reasons": [str(notes.get("finish_reason", ""))],
    }
    return f"chat {model}", attributes


def _of_verdict(verdict: Verdict) -> Attributes:
    attributes: Attributes = {"trackbed.action": verdict.action}
    if verdict.reason:
        attributes["trackbed.reason"] = verdict.reason
    if verdict.detail:
        attributes["trackbed.detail"] = verdict.detail
    if verdict.categories:
        attributes["trackbed.categories"] = list(verdict.categories)
    if verdict.score is not None:
        attributes["trackbed.score"] = verdict.score
    if verdict.findings:
        attributes["trackbed.findings"] = len(verdict.findings)
    return attributes


def _model(policy: "Policy", name: str) -> str:
    """What a model is: its source, without the folders that a file stands in."""
    source = str(policy.models.get(name, name))
    return Path(source).name if source.startswith("/") else source


def _value(value: object) -> object:
    """The value, if an attribute can be it."""
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        return list(value)
    return None


def _messages(said: Sequence[tuple[str, str]]) -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in said])
