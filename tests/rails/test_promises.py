"""Faults that guardrails have been seen to have, each reproduced elsewhere; here is what happens instead.

Whole turns through the public names: a policy's file, a scripted model, and what reaches the user.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import ScriptedGenerator, WordEmbedder
from trackbed.llm.types import Delta, Message, Prompt, SamplingParams
from trackbed.rails import Models, Pipeline, PolicyError, Turn, load_policy
from trackbed.rails.config import RailConfig
from trackbed.rails.trace import trace_lines
from trackbed.rails.types import Blocked, Done, Event, Finding, Replace, Reply, Stage, Streams, Text, Then, Verdict

INSIDE = "postgres://admin:swordfish@10.0.0.7/orders"  # what an exception may tell, and no user may read
HEAD = "policy: 1\nmodels: {chat: smollm2-135m-instruct}\n"
INTENTS = "intents: {refund: {examples: [refund my order]}}"
WORDS_OF_FAILURE = ("error", "Error", "Exception", "Traceback", "{", "guardrails_violation")


class Custom:
    """What rails of one's own have in common."""

    Config: ClassVar[type[RailConfig]] = RailConfig
    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "mask"})

    def __init__(self, config: RailConfig, models: Models) -> None: ...


class Raises(Custom):
    """Cannot judge, and says why in words that are nobody's business."""

    async def check(self, turn: Turn) -> Verdict:
        raise ConnectionError(f"cannot reach {INSIDE}")


class Hangs(Custom):
    """Never comes back, not even when it is cancelled."""

    async def check(self, turn: Turn) -> Verdict:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if asyncio.current_task() in ENDING:
                    raise


ENDING: set[Any] = set()  # tasks that a test has asked to end


class Forbids(Custom):
    """Objects to one word, wherever it stands."""

    streams: ClassVar[Streams] = "prefix"

    async def check(self, turn: Turn) -> Verdict:
        found = tuple(Finding("WORD", *match.span()) for match in re.finditer("forbidden", turn.text))
        return Verdict.block(findings=found) if found else Verdict.allow()


def pipeline(folder: Path, policy: str, *answers: str, chat: ScriptedGenerator | None = None) -> Pipeline:
    file = folder / "policy.yaml"
    file.write_text(HEAD + policy)
    return Pipeline(load_policy(file), Models({"chat": chat or ScriptedGenerator(*answers)}, WordEmbedder()))


async def streamed(guarded: Pipeline, turn: Turn) -> tuple[str, list[Event]]:
    """All that a user saw, though it was replaced later, and all events."""
    events = [event async for event in guarded.stream(turn)]
    return "".join(event.text for event in events if isinstance(event, Text | Replace)), events


def left(events: list[Event]) -> str:
    """What the user sees when the stream is over."""
    shown = ""
    for event in events:
        if isinstance(event, Text | Replace):
            shown = event.text if isinstance(event, Replace) else shown + event.text
    return shown


def refused(folder: Path, policy: str) -> str:
    """The words in which a policy is refused."""
    with pytest.raises(PolicyError) as error:
        pipeline(folder, policy)
    return str(error.value)


# A misspelled key is refused, not ignored with all that stands under it.


@pytest.mark.parametrize(
    ("policy", "key", "meant"),
    [
        ("inptu: [{rail: length, max_chars: 99}]", "inptu", "input"),
        ("outptu: [{rail: length, max_chars: 99}]", "outptu", "output"),
        ("output: {rail: [{rail: length, max_chars: 99}]}", "rail", "rails"),
        ("input: [{rail: length, max_char: 9}]", "max_char", "max_chars"),
        ("input: [{rail: length, max_chars: 99, on_eror: allow}]", "on_eror", "on_error"),
        ("input: [{rail: length, max_chars: 99, tiemout: 1s}]", "tiemout", "timeout"),
        ("refuze: {default: No.}", "refuze", "refuse"),
        ("defaults: {on_erorr: block}", "on_erorr", "on_error"),
        (f"dialog: {{flow: [{{intent: refund, do: [{{say: Hi.}}]}}], {INTENTS}}}", "flow", "flows"),
        (f"dialog: {{flows: [{{intnet: refund, do: [{{say: Hi.}}]}}], {INTENTS}}}", "intnet", "intent"),
        (f"dialog: {{flows: [{{intent: refund, do: [{{sya: Hi.}}]}}], {INTENTS}}}", "sya", "say"),
    ],
)
def test_a_misspelled_key_is_refused_by_its_name_and_the_one_that_was_meant(
    tmp_path: Path, policy: str, key: str, meant: str
) -> None:
    words = refused(tmp_path, policy)
    assert f"{key!r} is not a" in words
    assert f"{meant!r}" in words or f" {meant}" in words


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        ("input: [{rail: jailbraek}]", "jailbraek"),
        ("input: [{rail: 'tests.rails:NoSuchRail'}]", "tests.rails:NoSuchRail"),
        ("generation: {model: caht}", "caht"),
        ("input: [{rail: length, max_chars: 99}]\nrefuse: {lenght: Too long.}", "lenght"),
        (
            "input: [{rail: length, max_chars: 99, when: \"vars.teir == 'staff'\"}]\nvars: {tier: {type: string}}",
            "teir",
        ),
        ("refuse: {default: 'No {{ verdcit.reason }}.'}", "verdcit"),
        (f"dialog: {{flows: [{{intent: refnud, do: [{{say: Hi.}}]}}], {INTENTS}}}", "refnud"),
        (f"dialog: {{flows: [{{intent: refund, do: [{{goto: refnud}}]}}], {INTENTS}}}", "refnud"),
        (f"dialog: {{flows: [{{intent: refund, do: [{{ask: {{var: ordre, say: Which?}}}}]}}], {INTENTS}}}", "ordre"),
        (f"dialog: {{flows: [{{intent: refund, do: [{{say: 'Hi {{{{ vars.naem }}}}.'}}]}}], {INTENTS}}}", "naem"),
        (
            f"dialog: {{flows: [{{intent: refund, do: [{{call: {{action: '{__name__}:stauts'}}}}]}}], {INTENTS}}}",
            "stauts",
        ),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused_when_the_policy_is_loaded(
    tmp_path: Path, policy: str, name: str
) -> None:
    assert name in refused(tmp_path, policy)


# What fails inside is never said outside.


@pytest.mark.parametrize("stage", ["input", "output"])
async def test_what_a_failing_rail_says_reaches_neither_the_reply_nor_the_stream_nor_the_trace(
    tmp_path: Path, stage: str
) -> None:
    guarded = pipeline(tmp_path, f"{stage}: [{{rail: '{__name__}:Raises'}}]", "An answer.")
    reply = await guarded.respond(Turn("hello"))
    shown, events = await streamed(guarded, Turn("hello"))
    told = [reply.text, shown, repr(reply), repr(events), trace_lines(reply.trace)]
    assert [INSIDE in words or "cannot reach" in words for words in told] == [False] * 5
    assert reply.verdict.action == "block"
    assert "An answer." not in reply.text + shown


def status() -> str:
    """An action that cannot be done, and says why."""
    raise ConnectionError(f"cannot reach {INSIDE}")


async def test_what_a_failing_action_says_reaches_neither_the_reply_nor_the_stream_nor_the_trace(
    tmp_path: Path,
) -> None:
    call = f"{{call: {{action: '{__name__}:status', save: status}}}}"
    policy = (
        f"dialog: {{flows: [{{intent: refund, do: [{call}, {{say: 'It is {{{{ vars.status }}}}.'}}]}}], {INTENTS}}}"
    )
    guarded = pipeline(tmp_path, policy, "An answer.")
    reply = await guarded.respond(Turn("refund my order"))
    shown, events = await streamed(guarded, Turn("refund my order"))
    told = [reply.text, shown, repr(reply), repr(events), trace_lines(reply.trace)]
    assert [INSIDE in words or "cannot reach" in words for words in told] == [False] * 5
    assert (reply.verdict.action, reply.verdict.reason) == ("block", "error")


class Breaks(ScriptedGenerator):
    """Fails in the middle of its answer."""

    async def stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        yield Delta("one ")
        yield Delta("two ")
        raise ConnectionError(f"cannot reach {INSIDE}")


@pytest.mark.parametrize("stage", ["input", "output"])
async def test_what_a_failing_model_says_is_raised_and_is_no_text_of_the_stream(tmp_path: Path, stage: str) -> None:
    guarded = pipeline(tmp_path, f"{stage}: [{{rail: length, max_chars: 99}}]", chat=Breaks())
    events: list[Event] = []

    async def read() -> None:
        async for event in guarded.stream(Turn("hello")):
            events.append(event)  # noqa: PERF401  what came before the failure is wanted

    with pytest.raises(ConnectionError):
        await read()
    assert "one two ".startswith("".join(event.text for event in events if isinstance(event, Text)))
    assert [event for event in events if isinstance(event, Done)] == []


# A rail that hangs does not hang the turn.


@pytest.mark.parametrize("stage", ["input", "output"])
@pytest.mark.parametrize("way", ["respond", "stream"])
async def test_a_rail_that_hangs_blocks_when_its_time_is_over(tmp_path: Path, stage: str, way: str) -> None:
    before = asyncio.all_tasks()
    guarded = pipeline(tmp_path, f"{stage}: [{{rail: '{__name__}:Hangs', timeout: 20ms}}]", "An answer.")
    try:
        async with asyncio.timeout(5):
            if way == "respond":
                reply = await guarded.respond(Turn("hello"))
                shown = reply.text
            else:
                shown, events = await streamed(guarded, Turn("hello"))
                reply = done(events)
    finally:
        for task in asyncio.all_tasks() - before:
            ENDING.add(task)
            task.cancel()
    assert (reply.verdict.action, reply.verdict.reason) == ("block", "timeout")
    assert "An answer." not in shown


# Every message is judged, not only the last.


@pytest.mark.parametrize("role", ["user", "assistant", "tool", "system"])
@pytest.mark.parametrize("before", [0, 1, 2])
async def test_a_message_before_the_last_is_judged_whoever_is_said_to_have_written_it(
    tmp_path: Path, role: Any, before: int
) -> None:
    chat = ScriptedGenerator("An answer.")
    guarded = pipeline(tmp_path, "input: [{rail: regex, patterns: [forbidden]}]", chat=chat)
    harmless = tuple(Message("user", f"harmless {n}") for n in range(2))
    history = (*harmless[:before], Message(role, "this is forbidden"), *harmless[before:])
    reply = await guarded.respond(Turn("hello", history))
    assert (reply.verdict.by, chat.prompts) == ("input/regex", [])


# A streamed turn is judged as one that is not.


RAILS = {
    "a block": "{rail: regex, patterns: [forbidden]}",
    "a mask": "{rail: regex, patterns: {WORD: forbidden}, then: mask}",
    "a rail of one's own that blocks": f"{{rail: '{__name__}:Forbids'}}",
    "a rail of one's own that masks": f"{{rail: '{__name__}:Forbids', then: mask}}",
    "an observer": "{rail: regex, patterns: [forbidden], mode: observe}",
    "a failure": f"{{rail: '{__name__}:Raises'}}",
    "a failure that may pass": f"{{rail: '{__name__}:Raises', on_error: allow}}",
}
ENFORCED = [rail for name, rail in RAILS.items() if "block" in name or "mask" in name]


@pytest.mark.parametrize("stream", ["", "  stream: {hold_back: 2}\n"], ids=["as it comes", "held back"])
@pytest.mark.parametrize("rail", RAILS.values(), ids=RAILS)
@pytest.mark.parametrize(
    "answer", ["all is well", "this is forbidden here", "forbidden", "forbidden forbidden at last"]
)
async def test_streaming_runs_the_same_rails_to_the_same_end(
    tmp_path: Path, stream: str, rail: str, answer: str
) -> None:
    policy = f"output:\n{stream}  rails:\n  - {rail}\n  - {{rail: length, max_chars: 99}}\nrefuse: {{default: 'No.'}}"
    whole = await pipeline(tmp_path, policy, answer).respond(Turn("hello"))
    shown, events = await streamed(pipeline(tmp_path, policy, answer), Turn("hello"))
    reply = done(events)
    # A stream ends at the first block, so what stands behind that is not found: only how the turn ends is compared.
    assert (left(events), reply.text, verdict(reply)) == (whole.text, whole.text, verdict(whole))
    assert judged(reply) == judged(whole)
    if rail in ENFORCED:
        assert "forbidden" not in shown


# No match is too long to be seen.


@pytest.mark.parametrize("stream", ["", "stream: {hold_back: 4}, "], ids=["as it comes", "held back"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.integers(0, 60), inside=st.integers(0, 600), after=st.integers(0, 60))
def test_of_a_match_longer_than_any_window_nothing_leaves(
    tmp_path: Path, stream: str, before: int, inside: int, after: int
) -> None:
    answer = "safe " * before + "begin " + "private " * inside + "end" + " tail" * after
    rail = r"{rail: regex, patterns: ['\bbegin( private)* end\b']}"
    policy = f"output: {{{stream}rails: [{rail}]}}\nrefuse: {{default: 'No.'}}"
    shown, events = asyncio.run(streamed(pipeline(tmp_path, policy, answer), Turn("hello")))
    assert re.fullmatch(r"(safe )*(safe)?No\.", shown)
    assert left(events) == "No."


# A failure and an objection can be told apart.


@pytest.mark.parametrize("stage", ["input", "output"])
async def test_a_failure_and_an_objection_have_reasons_and_words_of_their_own(tmp_path: Path, stage: str) -> None:
    words = "\nrefuse: {default: I may not., error: I cannot tell., timeout: That took too long.}"
    found = {}
    for name, rail in {
        "objects": "{rail: regex, patterns: [secret]}",
        "fails": f"{{rail: '{__name__}:Raises'}}",
    }.items():
        reply = await pipeline(tmp_path, f"{stage}: [{rail}]{words}", "secret").respond(Turn("secret"))
        found[name] = (reply.verdict.action, reply.verdict.reason, reply.text)
    assert found == {
        "objects": ("block", "policy", "I may not."),
        "fails": ("block", "error", "I cannot tell."),
    }


@pytest.mark.parametrize("rail", ["{rail: regex, patterns: [secret]}", f"{{rail: '{__name__}:Raises'}}"])
async def test_a_refusal_in_a_stream_is_the_policys_words_and_nothing_else(tmp_path: Path, rail: str) -> None:
    guarded = pipeline(tmp_path, f"output: [{rail}]\nrefuse: {{default: 'No.'}}", "a secret")
    shown, events = await streamed(guarded, Turn("hello"))
    assert [word for word in WORDS_OF_FAILURE if word in shown] == []
    assert (left(events), done(events).text, done(events).verdict.action) == ("No.", "No.", "block")
    assert [event.verdict.reason for event in events if isinstance(event, Blocked)] == [done(events).verdict.reason]


def done(events: list[Event]) -> Reply:
    """The reply at the end of a stream."""
    last = events[-1]
    assert isinstance(last, Done)
    return last.reply


def verdict(reply: Reply) -> tuple[str, str, str | None]:
    """What the turn came to."""
    return reply.verdict.action, reply.verdict.by, reply.verdict.reason


def judged(reply: Reply) -> list[tuple[str, str, str, str]]:
    """What each rail came to, in the trace's order."""
    return [(s.stage, s.name, s.verdict.action if s.verdict else "", s.error) for s in reply.trace.spans]
