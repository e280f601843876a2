"""A turn as a line of a trace file: nothing that anybody wrote stands in it, unless it is a full one."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import ListRetriever, ScriptedGenerator
from trackbed.llm.types import Choices, Message, SamplingParams
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import Policy, load_policy
from trackbed.rails.record import Happened, Record, read_lines, record_line
from trackbed.rails.recording import RecordedRetriever, noted, prompt_digest, recorded
from trackbed.rails.trace import digest
from trackbed.rails.types import Finding, Models, Reply, Span, Trace, Turn, Verdict
from trackbed.retrieval.types import Passage

POLICY = """
policy: 1
name: kept
models: {chat: smollm2-135m-instruct, guard: llama-guard-3-1b}
knowledge: {index: kb}
input:
  - rail: pii
    entities: [EMAIL_ADDRESS, CREDIT_CARD]
    then: mask
  - rail: secrets
    then: mask
  - rail: jailbreak
  - rail: llama_guard
    model: guard
retrieval:
  - rail: injection
    then: drop
output:
  - rail: grounding
    minimum: 1
    then: quote
  - rail: pii
    entities: [EMAIL_ADDRESS, CREDIT_CARD]
    then: mask
  - rail: regex
    patterns: ["forbidden"]
"""
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECRETS = ["jane.doe@example.org", "4111 1111 1111 1111", "password=hV7xq2LpR9wd", "zwiebelkuchen", "äpfel\u2028"]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    file = tmp_path_factory.mktemp("policy") / "kept.yaml"
    file.write_text(POLICY)
    return load_policy(file)


async def line_of(policy: Policy, turn: Turn, answer: str, page: str, *, full: bool = False) -> tuple[bytes, Reply]:
    guard = ScriptedGenerator("safe", scores={"safe": -0.1, "unsafe": -4.0})
    models = recorded(Models({"chat": ScriptedGenerator(answer), "guard": guard}), policy.models)
    retriever = RecordedRetriever(ListRetriever(Passage(page, "page.md", 0, len(page), 0.9)), "kb")
    with noted() as notes:
        reply = await Pipeline(policy, models, retriever).respond(turn)
    happened = Happened(AT, 1.5, reply.trace, reply.verdict)
    return record_line(policy, turn, happened, notes if full else None, reply.text), reply


def only(line: bytes) -> Record:
    (read,) = read_lines([line])
    assert read.record is not None, read.mistake
    return read.record


words = st.sampled_from(["qwertz", "what is", "Zürich", "forbidden", *SECRETS])
texts = st.lists(words, min_size=1, max_size=5).map(" ".join)


@given(question=texts, earlier=texts, answer=texts, page=texts)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_text_stands_in_a_hashed_line(
    policy: Policy, question: str, earlier: str, answer: str, page: str
) -> None:
    history = (Message("user", earlier), Message("assistant", answer))
    line, _ = await line_of(policy, Turn(question, history), answer, page)
    told = line.decode() + json.dumps(json.loads(line), ensure_ascii=False)
    said = [*SECRETS, "qwertz", "what is", "Zürich", "<EMAIL_ADDRESS>", "<SECRET"]
    assert not [text for text in said if text in told]


@given(question=texts, answer=texts, page=texts)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_full_line_holds_the_turn_as_it_was_asked(
    policy: Policy, question: str, answer: str, page: str
) -> None:
    line, reply = await line_of(policy, Turn(question), answer, page, full=True)
    asked = only(line).asked
    assert asked is not None
    assert (asked.question, only(line).reply) == (question, reply.text)
    assert line.count(b"\n") == 1


async def test_a_line_tells_the_verdict_the_policy_and_each_step(policy: Policy) -> None:
    line, reply = await line_of(policy, Turn("mail jane.doe@example.org"), "A rail. [1]", "A rail is one check.")
    record = only(line)
    assert record.verdict is not None
    assert (record.verdict.action, record.verdict.by) == ("rewrite", reply.verdict.by)
    assert (record.policy.name, record.policy.digest) == ("kept", policy.digest)
    assert [(span.stage, span.name) for span in record.spans] == [(s.stage, s.name) for s in reply.trace.spans]
    assert record.model_calls == sum(span.calls for span in reply.trace.spans)
    pii = record.spans[0]
    assert pii.rewritten == digest("mail <EMAIL_ADDRESS>")
    assert [f["label"] for f in pii.findings] == ["EMAIL_ADDRESS"]


async def test_two_runs_of_a_turn_tell_the_same_but_for_the_time(policy: Policy) -> None:
    def timeless(line: bytes) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(line)
        return told | {"ms": 0, "spans": [span | {"ms": 0} for span in told["spans"]]}

    turn = Turn("what is a rail?")
    lines = [(await line_of(policy, turn, "A rail is one check. [1]", "A rail is one check."))[0] for _ in range(2)]
    assert timeless(lines[0]) == timeless(lines[1])


async def test_a_full_line_has_what_was_written_in_place_of_a_text(policy: Policy) -> None:
    line, _ = await line_of(policy, Turn("mail jane.doe@example.org"), "A rail.", "A rail is one check.", full=True)
    record = only(line)
    assert record.spans[0].text == "mail <EMAIL_ADDRESS>"
    assert [search.query for search in record.searches] == ["mail <EMAIL_ADDRESS>"]
    assert "smollm2-135m-instruct" in [answer.model for answer in record.answers]


def test_a_line_can_be_written_whatever_a_rail_says(policy: Policy) -> None:
    verdict = Verdict("block", "policy", score=float("nan"), findings=(Finding("X", 0, 1),))
    trace = Trace([Span("input", "rail", 0.1, verdict, notes={"odd": object(), "half": "\ud800"})])
    line = record_line(policy, Turn("half \ud800"), Happened(AT, 1.0, trace, verdict))
    assert only(line).spans[0].score is None


def test_the_digest_of_a_policy_changes_with_what_it_includes_and_extends(tmp_path: Path) -> None:
    file, base, prompt = tmp_path / "p.yaml", tmp_path / "base.yaml", tmp_path / "p.j2"
    base.write_text("policy: 1\ninput: [{rail: jailbreak}]\n")
    prompt.write_text("{{ question }}")
    file.write_text("policy: 1\nextends: base.yaml\ngeneration: {prompt: !include p.j2}\n")
    digests = {load_policy(file).digest}
    prompt.write_text("Q: {{ question }}")
    digests.add(load_policy(file).digest)
    base.write_text("policy: 1\ninput: [{rail: secrets}]\n")
    digests.add(load_policy(file).digest)
    assert len(digests) == 3
    assert load_policy(file).digest in digests


@pytest.mark.parametrize(
    "line",
    [b"{}", b"nonsense", b"[]", b'"\xff"', b"[" * 100_000, b'{"trace": 2}', b"\x00"],
)
def test_what_is_no_line_of_a_trace_is_named_and_the_rest_is_read(policy: Policy, line: bytes) -> None:
    good = record_line(policy, Turn("hi"), Happened(AT, 1.0, Trace(), Verdict.allow()))
    read = list(read_lines([good, line + b"\n", b"\n", good]))
    assert [(found.number, found.record is None) for found in read] == [(1, False), (2, True), (4, False)]
    assert read[1].mistake


async def test_answers_are_noted_for_the_turn_that_asks(policy: Policy) -> None:
    line, _ = await line_of(policy, Turn("what is a rail?"), "A rail is one check.", "A rail is one check.", full=True)
    again, _ = await line_of(policy, Turn("what is a rail?"), "A rail is one check.", "A rail is one check.", full=True)
    assert only(line).answers == only(again).answers


async def test_a_policy_is_hashed_unless_it_says_full(policy: Policy, tmp_path: Path) -> None:
    assert policy.trace == "hashed"
    file = tmp_path / "full.yaml"
    file.write_text(POLICY + "trace: full\n")
    assert replace(load_policy(file), trace="hashed").trace != load_policy(file).trace


def test_a_prompt_keeps_the_name_under_which_answers_were_noted_before_there_were_choices() -> None:
    prompt = (Message("user", "hello"),)
    assert prompt_digest(prompt, SamplingParams(max_tokens=7)) == "9e8f27c288befdb6f56f4a152bc218a9"
    assert prompt_digest(prompt, SamplingParams(max_tokens=7, choices=Choices(("a",)))) != prompt_digest(
        prompt, SamplingParams(max_tokens=7, choices=Choices(("b",)))
    )
