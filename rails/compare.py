"""What a policy's test expects, beside what came of it.

It reads replies, events and what scripted models were asked. It runs nothing.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from trackbed.rails.policy import PolicyTest
from trackbed.rails.scripted import Scripted
from trackbed.rails.types import Done, Event, Replace, Reply, Text


class Difference(NamedTuple):
    """Something that a test expected and did not find."""

    key: str  # of `expect`; `streamed` where a stream comes to something else; `error` where the turn could not be run
    expected: Any  # Any: a JSON value
    found: Any


@dataclass(frozen=True, slots=True)
class Shown:
    """A stream, as who reads it sees it."""

    moments: tuple[str, ...]  # all that is shown, after each event that changed it
    reply: Reply


async def watch(events: AsyncIterator[Event]) -> Shown:
    """What the events of a whole turn show."""
    moments, reply = [""], None
    async for event in events:
        if isinstance(event, Text):
            moments.append(moments[-1] + event.text)
        elif isinstance(event, Replace):
            moments.append(event.text)
        elif isinstance(event, Done):
            reply = event.reply
    if reply is None:
        raise ValueError("the stream ended without a reply")
    return Shown(tuple(moments), reply)


def stream_differences(test: PolicyTest, reply: Reply, shown: Shown) -> list[Difference]:
    """Where the stream of a turn comes to something else than its reply, or has shown what must not leave."""
    found = []
    for key, one, other in (
        ("shows", reply.text, shown.moments[-1]),
        ("text", reply.text, shown.reply.text),
        ("action", reply.verdict.action, shown.reply.verdict.action),
        ("by", reply.verdict.by, shown.reply.verdict.by),
        ("reason", reply.verdict.reason, shown.reply.verdict.reason),
        ("citations", len(reply.citations), len(shown.reply.citations)),
    ):
        if one != other:
            found.append(Difference("streamed", f"{key} {one!r}", f"{key} {other!r}"))
    for text in test.expect.leaked:
        moments = (moment for moment in shown.moments if text in moment and text not in reply.text)
        found += [Difference("streamed", f"never shows {text!r}", f"shows {moment!r}") for moment in islice(moments, 1)]
    return found


def differences(test: PolicyTest, reply: Reply, models: Mapping[str, Scripted], chat: str) -> list[Difference]:
    """What the test expects and the reply does not bear out, in the order of the language."""
    expect, verdict = test.expect, reply.verdict
    # Several rails may rewrite one turn; the verdict names the first of them.
    enforced = [
        span
        for span in reply.trace.spans
        if span.verdict and span.enforced and span.verdict.action == verdict.action != "allow"
    ]
    rails = list(dict.fromkeys(f"{span.stage}/{span.name}" for span in enforced))
    stages = list(dict.fromkeys(span.stage for span in enforced))
    # Of a turn that is not blocked, the last two messages are the question as the rails left it, and the reply.
    texts = [reply.text] if verdict.action == "block" else [reply.text, reply.messages[-2].content]
    leaked = _leaked(test, reply, models[chat].shown)
    citations, calls = len(reply.citations), sum(model.calls for model in models.values())
    checks: tuple[tuple[str, Any, Any, bool], ...] = (
        ("action", expect.action, verdict.action, expect.action == verdict.action),
        ("by", expect.by, ", ".join(rails), expect.by in rails),
        ("stage", expect.stage, ", ".join(stages), expect.stage in stages),
        ("reason", expect.reason, verdict.reason, expect.reason == verdict.reason),
        ("text", expect.text, texts, expect.text in texts),
        ("leaked", [], leaked, not leaked),
        ("citations", expect.citations, citations, expect.citations == citations),
        ("model_calls", expect.model_calls, calls, calls <= (expect.model_calls or 0)),
    )
    return [
        Difference(key, expected, found)
        for key, expected, found, as_expected in checks
        if expected is not None and not as_expected
    ]


def _leaked(test: PolicyTest, reply: Reply, shown: Sequence[str]) -> list[str]:
    """What leaked, and where it stood.

    All that leaves is looked at: the reply and the verdict's words. Where rails
    rewrote what the user said, so is what the model that answers was shown of it.
    """
    places = [
        ("the reply", reply.text),
        ("the verdict's words", reply.verdict.detail),
        *((f"the quotation of [{citation.n}]", citation.quote) for citation in reply.citations),
        *((f"the heading of [{citation.n}]", citation.heading) for citation in reply.citations),
    ]
    masked = any(
        span.stage == "input" and span.enforced and span.verdict and span.verdict.action == "rewrite"
        for span in reply.trace.spans
    )
    said = "\n".join(message.content for message in test.messages)
    return [
        f"{text!r} in {place}"
        for text in test.expect.leaked
        for place, words in [
            *places,
            *(("what the model was shown", prompt) for prompt in shown if masked and text in said),
        ]
        if text in words
    ]
