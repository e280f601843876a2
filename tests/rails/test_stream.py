"""What is streamed: nothing that is not judged, and in the end what the same turn gives unstreamed."""

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import ListRetriever, PiecewiseGenerator, ScriptedGenerator
from trackbed.rails.config import RailConfig
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import load_policy
from trackbed.rails.types import (
    Blocked,
    Citation,
    Done,
    Event,
    Models,
    Progress,
    Replace,
    Reply,
    Stage,
    Streams,
    Text,
    Then,
    Turn,
    Verdict,
)
from trackbed.retrieval.types import Passage

PASSAGE = Passage(
    "A rail is one check. It judges a text and gives a verdict. Rails run from top to bottom.",
    "rails.md",
    0,
    88,
    score=0.9,
)


class Forbids:
    """Judges any beginning of a text, at once."""

    Config: ClassVar[type[RailConfig]] = RailConfig
    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block"})
    streams: ClassVar[Streams] = "prefix"

    def __init__(self, config: RailConfig, models: Models) -> None:
        self.looks: list[str] = []

    async def check(self, turn: Turn) -> Verdict:
        self.looks.append(turn.text)
        return Verdict.block() if "forbidden" in turn.text else Verdict.allow()


class Ponders(Forbids):
    """Judges any beginning of a text, and takes its time."""

    async def check(self, turn: Turn) -> Verdict:
        await asyncio.sleep(0)
        return await super().check(turn)


class Lingers(Forbids):
    """Passes everything after a while, and knows when."""

    passed = 0.0

    async def check(self, turn: Turn) -> Verdict:
        await asyncio.sleep(0.05)
        self.passed = time.perf_counter()
        return Verdict.allow()


class Whole(Forbids):
    """Says nothing of how it judges what is not finished."""

    streams: ClassVar[Any] = None


def policy_of(tmp_path: Path, output: str, more: str = "") -> Any:
    file = tmp_path / "policy.yaml"
    models = "models: {chat: smollm2-135m-instruct}\n"
    file.write_text(f"policy: 1\n{models}refuse: {{default: 'No.'}}\n{more}\n{f'output: {output}' if output else ''}\n")
    return load_policy(file)


def rail(name: str) -> str:
    return f"{{rail: '{__name__}:{name}', id: custom}}"


async def streamed(pipeline: Pipeline, turn: Turn) -> list[Event]:
    return [event async for event in pipeline.stream(turn)]


def shown(events: Sequence[Event]) -> tuple[str, str, Reply]:
    """What had been shown before the turn was decided, what was shown in the end, and the reply."""
    text = early = ""
    for event in events:
        match event:
            case Text(piece):
                text += piece
            case Replace(words):
                text = words
            case Progress("output") | Blocked():
                early = early or text
            case Done(reply):
                return early, text, reply
    raise AssertionError("a stream ends with its reply")


OUTPUTS = {
    "nothing": "",
    "a regex that blocks": "[{rail: regex, patterns: ['for.?bidden+', 'b[a-z]d']}]",
    "a regex that masks": "[{rail: regex, patterns: {CODE: 'x[0-9]+y?', WORD: 'for ?bidden'}, then: mask}]",
    "data and keys": "[{rail: pii, then: mask}, {rail: secrets, then: mask}]",
    "data that blocks": "[{rail: pii}, {rail: length, max_chars: 60}]",
    "masks, then blocks": "[{rail: pii, then: mask}, {rail: regex, patterns: ['EMAIL', 'forbidden']}]",
    "a judge": "{stream: {hold_back: 10, max_delay: 10s}, rails: [{rail: regex, patterns: [x1]}, RAIL]}",
    "a judge behind a mask": "{stream: {hold_back: 10, max_delay: 10s}, rails: [{rail: pii, then: mask}, RAIL]}",
    "the whole": "{stream: {hold_back: 3, max_delay: 10s}, rails: [WHOLE]}",
    "grounding": "[{rail: grounding, minimum: 1, relevance: 0}, {rail: pii, then: mask}]",
    "grounding that masks": "[{rail: grounding, minimum: 1, then: mask}, {rail: pii, then: mask}]",
    "grounding that masks whatever was asked": "[{rail: grounding, minimum: 1, relevance: 0, then: mask}]",
    "grounding that quotes": "[{rail: grounding, minimum: 1, then: quote}, {rail: regex, patterns: [a], then: mask}]",
}
# A judge of beginnings is given more tokens than the word that it looks for has letters.
SAID = ["A rail is one check", "It judges a text", "Bananas are yellow", "mail a@b.org", "4111 1111 1111 1111"]
SIGNS = [
    "forbidden",
    "for",
    "bidden",
    "x12",
    "bad",
    "password=hV7xq2LpR9wd",
    ". ",
    ". ",
    " ",
    ", ",
    "\n",
    " [1]",
    "1",
    "y",
]
WORDS = st.sampled_from([*SAID, *SIGNS, "e", "`", "- "])


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in pairwise(places)]


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("judge", ["Forbids", "Ponders"])
@pytest.mark.parametrize("grounded", [False, True])
def test_what_is_shown_is_judged_and_is_the_unstreamed_reply(
    tmp_path: Path, output: str, judge: str, grounded: bool
) -> None:
    if judge == "Ponders" and "RAIL" not in OUTPUTS[output]:
        return
    written = OUTPUTS[output].replace("RAIL", rail(judge)).replace("WHOLE", rail("Whole"))
    policy = policy_of(tmp_path, written, "knowledge: {index: kb}" if grounded else "")
    same_as_unstreamed(policy, ListRetriever(PASSAGE) if grounded else None, output)


@pytest.mark.parametrize("output", ["nothing", "a regex that masks", "a judge", "grounding", "grounding that quotes"])
@pytest.mark.parametrize("cite", ["required", "none", "{mode: required, then: regenerate}"])
def test_what_is_shown_is_the_unstreamed_reply_whatever_is_cited(tmp_path: Path, output: str, cite: str) -> None:
    written = OUTPUTS[output].replace("RAIL", rail("Ponders"))
    policy = policy_of(tmp_path, written, f"knowledge: {{index: kb}}\ngeneration: {{cite: {cite}}}")
    same_as_unstreamed(policy, ListRetriever(PASSAGE), output)


def same_as_unstreamed(policy: Any, retriever: ListRetriever | None, output: str) -> None:
    """Any answer, in any pieces, is shown as the same turn gives it in one."""

    @settings(max_examples=40)
    @given(st.lists(WORDS, max_size=12).map("".join), st.lists(st.integers(0, 200), max_size=40))
    def run(text: str, cuts: list[int]) -> None:
        async def both() -> tuple[Reply, list[Event]]:
            reply = await Pipeline(policy, Models({"chat": ScriptedGenerator(text)}), retriever).respond(Turn("rail?"))
            models = Models({"chat": PiecewiseGenerator(*pieces(text, cuts))})
            return reply, await streamed(Pipeline(policy, models, retriever), Turn("rail?"))

        reply, events = asyncio.run(both())
        early, final, told = shown(events)
        assert (final, told.text) == (reply.text, reply.text)
        assert (told.citations, told.claims) == (reply.citations, reply.claims)
        assert told.verdict.action == reply.verdict.action
        if reply.verdict.action != "block":
            assert reply.text.startswith(early)
            assert not any(isinstance(e, Replace | Blocked) for e in events)
            assert tuple(e for e in events if isinstance(e, Citation)) == reply.citations
        elif output not in ("masks, then blocks", "a judge behind a mask") and retriever is None:
            starts = [f.start for f in reply.verdict.findings] + [text.find("forbidden")] * ("forbidden" in text)
            assert text.startswith(early)
            assert len(early) <= min(starts, default=len(text))

    run()


def chat(*words: str, pause: float = 0.0) -> Models:
    return Models({"chat": PiecewiseGenerator(*words, pause=pause)})


async def test_text_is_shown_while_the_model_writes(tmp_path: Path) -> None:
    model = PiecewiseGenerator(*(f"word{i} " for i in range(50)))
    pipeline = Pipeline(policy_of(tmp_path, "[{rail: regex, patterns: [secret]}]"), Models({"chat": model}))
    first = None
    async for event in pipeline.stream(Turn("hi")):
        if isinstance(event, Text):
            first = first or model.written
    assert first is not None
    assert first < 5


@pytest.mark.parametrize("name", ["Forbids", "Ponders"])
async def test_a_judge_sees_so_many_tokens_before_the_first_is_shown(tmp_path: Path, name: str) -> None:
    model = PiecewiseGenerator(*(f"word{i} " for i in range(100)))
    output = f"{{stream: {{hold_back: 24, max_delay: 10s}}, rails: [{rail(name)}]}}"
    first = None
    async for event in Pipeline(policy_of(tmp_path, output), Models({"chat": model})).stream(Turn("hi")):
        if isinstance(event, Text):
            first = first or model.written
    assert first is not None
    assert 24 <= first <= 52


async def test_a_judge_that_takes_time_is_asked_every_so_many_tokens_and_at_sentence_ends(tmp_path: Path) -> None:
    words = [f"w{i} " for i in range(10)] + ["end. ", *(f"v{i} " for i in range(25))]
    output = f"{{stream: {{hold_back: 20, max_delay: 10s}}, rails: [{rail('Ponders')}]}}"
    pipeline = Pipeline(policy_of(tmp_path, output), chat(*words))
    await streamed(pipeline, Turn("hi"))
    custom = pipeline.rails["output"][0].rail
    assert isinstance(custom, Ponders)
    assert [len(look.split()) for look in custom.looks] == [11, 31, 36]


async def test_a_slow_model_is_waited_for_no_longer_than_the_delay(tmp_path: Path) -> None:
    output = f"{{stream: {{hold_back: 100, max_delay: 20ms}}, rails: [{rail('Ponders')}]}}"
    model = PiecewiseGenerator("one ", "two ", "three ", "four", pause=0.05)
    events = [
        (model.written, e)
        async for e in Pipeline(policy_of(tmp_path, output), Models({"chat": model})).stream(Turn("x"))
    ]
    assert next(text.text for _, text in events if isinstance(text, Text)) == "one "
    assert min(written for written, e in events if isinstance(e, Text)) < 4


async def test_a_block_ends_the_model_and_says_so_before_the_words_of_refusal(tmp_path: Path) -> None:
    model = PiecewiseGenerator(*["good "] * 30, "forbidden ", *["more "] * 500)
    output = f"{{stream: {{hold_back: 4, max_delay: 10s}}, rails: [{rail('Forbids')}]}}"
    events = await streamed(Pipeline(policy_of(tmp_path, output), Models({"chat": model})), Turn("hi"))
    blocked, replaced, done = events[-3:]
    assert isinstance(blocked, Blocked)
    assert (replaced, blocked.verdict.by) == (Replace("No."), "output/custom")
    assert isinstance(done, Done)
    assert (done.reply.verdict.by, done.reply.trace.spans[-1].name) == ("output/custom", "custom")
    assert model.written < 100
    assert "".join(e.text for e in events if isinstance(e, Text)) in "good " * 30


async def test_a_match_longer_than_any_window_does_not_cross_it(tmp_path: Path) -> None:
    text = "key: <<" + "a" * 5000 + ">> done"
    pipeline = Pipeline(policy_of(tmp_path, "[{rail: regex, patterns: ['<<a+>>'], then: mask}]"), chat(*text))
    early, final, _ = shown(await streamed(pipeline, Turn("hi")))
    assert "a" not in early + final.replace("<MATCH>", "")
    assert final == "key: <MATCH> done"


async def test_a_rail_that_fails_while_it_streams_blocks_and_no_error_text_is_shown(tmp_path: Path) -> None:
    class Odd(Ponders):
        async def check(self, turn: Turn) -> Verdict:
            await asyncio.sleep(0)
            raise ValueError("swordfish")

    pipeline = Pipeline(
        policy_of(tmp_path, f"{{stream: {{hold_back: 2}}, rails: [{rail('Ponders')}]}}"), chat(*["a "] * 40)
    )
    (staged,) = pipeline.rails["output"]
    pipeline.rails = {"output": (type(staged)(staged.use, Odd(RailConfig(), Models())),)}
    events = await streamed(pipeline, Turn("hi"))
    _, final, reply = shown(events)
    assert (final, reply.verdict.reason) == ("No.", "error")
    assert "swordfish" not in repr(events)


async def test_with_ahead_nothing_is_shown_before_the_input_rails_have_passed(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, "", f"generation: {{ahead: true}}\ninput: [{rail('Lingers')}]")
    model = PiecewiseGenerator("one ", "two ", "three")
    pipeline = Pipeline(policy, Models({"chat": model}))
    events = [(time.perf_counter(), model.written, event) async for event in pipeline.stream(Turn("hi"))]
    told = [(when, written) for when, written, event in events if isinstance(event, Text)]
    (staged,) = pipeline.rails["input"]
    assert isinstance(staged.rail, Lingers)
    assert min(when for when, _ in told) >= staged.rail.passed
    assert told[0][1] == 3  # it was all written by then


async def test_the_shipped_policy_shows_a_sentence_while_the_next_is_written() -> None:
    said = "A rail is one check. [1] It judges a text and gives a verdict. [1] Rails run from top to bottom. [1]"
    words = said.split(" ")
    model = PiecewiseGenerator(*(f"{word} " for word in words), pause=0.08)
    judge = ScriptedGenerator("safe", scores={"unsafe": -9.0, "safe": -0.1})
    models = Models({"chat": model, "guard": judge, "attacks": judge})
    pipeline = Pipeline(load_policy("default"), models, ListRetriever(PASSAGE))
    told = [(model.written, event) async for event in pipeline.stream(Turn("What is a rail?"))]
    written, first = next((written, event) for written, event in told if isinstance(event, Text))
    assert first.text.startswith("A rail is one check.")
    assert written < len(words)
    assert isinstance(told[-1][1], Done)
    assert "".join(e.text for _, e in told if isinstance(e, Text)) == told[-1][1].reply.text


async def test_a_sentence_that_nothing_supports_is_at_no_moment_shown_where_citations_are_required(
    tmp_path: Path,
) -> None:
    policy = policy_of(tmp_path, "", "knowledge: {index: kb}\ngeneration: {cite: required}")
    said = "Bananas are blue. A rail is one check. [1] Pears are blue. Rails run from top to bottom. The end"
    model = PiecewiseGenerator(*said)
    pipeline = Pipeline(policy, Models({"chat": model}), ListRetriever(PASSAGE))
    told = [(model.written, event) async for event in pipeline.stream(Turn("What is a rail?"))]
    texts = [(written, event.text) for written, event in told if isinstance(event, Text)]
    assert not any("blue" in text for _, text in texts)
    written, first = texts[0]
    assert first == "A rail is one check. [1]"
    assert written < said.index(" are blue. Rails")
    assert "".join(text for _, text in texts).startswith("A rail is one check. [1] Rails run from top to bottom. [2]")
