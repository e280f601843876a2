"""Recorded turns under another policy: what is known to change, what stays, and what nobody can know."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.fakes import ListRetriever, ScriptedGenerator
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import load_policy
from trackbed.rails.record import Happened, Record, read_lines, record_line
from trackbed.rails.recording import RecordedRetriever, noted, recorded
from trackbed.rails.replay import Replayed, replayed
from trackbed.rails.types import Models, Stage, Turn
from trackbed.retrieval.types import Passage

PAGE = Passage("A rail is one check. It judges a text.", "rails.md", 0, 38, score=0.9)
HEAD = "policy: 1\nmodels: {chat: smollm2-135m-instruct, guard: llama-guard-3-1b}\nknowledge: {index: kb}\n"
PLAIN = HEAD + "input: [{rail: length, max_chars: 200}]\n"
GUARDED = PLAIN.replace("}]", "}, {rail: llama_guard, model: guard}]")
Replay = Callable[..., Awaitable[Replayed]]


@pytest.fixture
def replay(tmp_path: Path) -> Replay:
    """Runs a turn under one policy, and its record under another."""

    async def run(
        before: str,
        after: str,
        question: str = "what is a rail?",
        *,
        answer: str = "A rail is one check. [1]",
        unsafe: float = -4.0,
        fails: Exception | None = None,
        stage: Stage | None = None,
    ) -> Replayed:
        (tmp_path / "before.yaml").write_text(before)
        (tmp_path / "after.yaml").write_text(after)
        return await replayed(
            load_policy(tmp_path / "after.yaml"),
            await record(tmp_path / "before.yaml", question, answer, unsafe, fails, stage),
            7,
        )

    return run


async def record(
    file: Path, question: str, answer: str, unsafe: float, fails: Exception | None, stage: Stage | None
) -> Record:
    policy, at = load_policy(file), datetime(2026, 1, 2, tzinfo=UTC)
    guard = ScriptedGenerator("unsafe\nS1", scores={"safe": -1.0, "unsafe": unsafe}, fails=fails)
    chat = ScriptedGenerator(answer)
    plain = Models({"chat": chat, "guard": guard}, answering=chat if policy.generation.adapter else None)
    models = recorded(plain, {name: str(source) for name, source in policy.models.items()}, policy.drafts)
    pipeline, turn = Pipeline(policy, models, RecordedRetriever(ListRetriever(PAGE), "kb")), Turn(question)
    with noted() as notes:
        if stage:
            _, verdict, trace = await pipeline.judge(stage, turn)
        else:
            reply = await pipeline.respond(turn)
            verdict, trace = reply.verdict, reply.trace
    (line,) = read_lines([record_line(policy, turn, Happened(at, 1.0, trace, verdict, stage=stage), notes)])
    assert line.record is not None, line.mistake
    return line.record


@pytest.mark.parametrize("policy", [PLAIN, GUARDED])
async def test_under_its_own_policy_a_turn_stays_what_it_was(replay: Replay, policy: str) -> None:
    row = await replay(policy, policy)
    assert (row.outcome, row.before, row.after, row.line) == ("same", "allow", "allow", 7)


async def test_a_block_by_a_model_stays_since_its_answer_is_in_the_record(replay: Replay) -> None:
    row = await replay(GUARDED, GUARDED, unsafe=-0.1)
    assert (row.outcome, row.after) == ("same", "block by input/llama_guard (policy)")


async def test_a_rail_that_asks_no_model_judges_anew(replay: Replay) -> None:
    row = await replay(PLAIN, PLAIN + "output: [{rail: regex, patterns: ['one check']}]\n")
    assert (row.outcome, row.before, row.after) == ("changed", "allow", "block by output/regex (policy)")


async def test_a_block_that_the_new_policy_does_without_is_unknown_where_no_answer_was_made(replay: Replay) -> None:
    row = await replay(PLAIN, PLAIN.replace("200", "5"))
    assert (row.outcome, row.after) == ("changed", "block by input/length (policy)")
    back = await replay(PLAIN.replace("200", "5"), PLAIN)
    assert back.outcome == "unknown"
    assert back.unknown == ("this was not sought in the index",)


async def test_a_model_that_was_not_asked_is_unknown_and_never_guessed(replay: Replay) -> None:
    row = await replay(PLAIN, GUARDED)
    assert (row.outcome, row.after) == ("unknown", "")
    assert row.unknown == ("input/llama_guard: the model 'guard' was not asked this",)


async def test_a_draft_to_another_prompt_is_unknown(replay: Replay) -> None:
    row = await replay(PLAIN, PLAIN + "generation: {prompt: 'Say it: {{ question }}'}\n")
    assert (row.outcome, row.unknown) == ("unknown", ("the model 'chat' was not asked this",))


async def test_the_answers_of_another_model_of_the_same_name_do_not_count(replay: Replay) -> None:
    row = await replay(GUARDED, GUARDED.replace("llama-guard-3-1b", "llama-guard-3-8b"))
    assert row.outcome == "unknown"


async def test_the_answers_of_a_model_without_its_adapter_do_not_count(replay: Replay, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "adapter.json").write_text("{}")
    adapted = PLAIN + "generation: {adapter: ./mine}\n"
    assert (await replay(adapted, adapted)).outcome == "same"
    assert (await replay(adapted, PLAIN)).outcome == "unknown"
    assert (await replay(PLAIN, adapted)).outcome == "unknown"


async def test_a_model_of_another_name_is_known_by_what_it_is(replay: Replay) -> None:
    row = await replay(GUARDED, GUARDED.replace("guard: llama", "judge: llama").replace("model: guard", "model: judge"))
    assert row.outcome == "same"


async def test_a_block_is_known_whatever_an_unknown_judge_beside_it_says(replay: Replay) -> None:
    row = await replay(PLAIN, GUARDED.replace("length, max_chars: 200", "regex, patterns: [rail]"))
    assert (row.outcome, row.after) == ("changed", "block by input/regex (policy)")


async def test_a_judge_that_is_only_observed_changes_nothing(replay: Replay) -> None:
    row = await replay(PLAIN, GUARDED.replace("model: guard", "model: guard, mode: observe"))
    assert (row.outcome, row.unknown) == ("same", ())


async def test_a_model_that_failed_fails_again(replay: Replay) -> None:
    row = await replay(GUARDED, GUARDED, fails=RuntimeError("a secret"))
    assert (row.outcome, row.after) == ("same", "block by input/llama_guard (error)")


async def test_a_judge_that_was_only_observed_is_tried_with_what_it_had_said(replay: Replay) -> None:
    observed = GUARDED.replace("model: guard", "model: guard, mode: observe")
    row = await replay(observed, GUARDED, unsafe=-0.1)
    assert (row.outcome, row.before, row.after) == ("changed", "allow", "block by input/llama_guard (policy)")


async def test_a_judgement_of_one_stage_is_run_again_in_that_stage(replay: Replay) -> None:
    row = await replay(PLAIN, PLAIN.replace("200", "5"), stage="input")
    assert (row.outcome, row.after) == ("changed", "block by input/length (policy)")


async def test_a_dialog_is_not_run_again(replay: Replay) -> None:
    dialog = "dialog: {intents: {hi: {examples: [hi]}}, flows: [{intent: hi, do: [{say: Hi.}]}]}\n"
    row = await replay(PLAIN, PLAIN + dialog)
    assert (row.outcome, row.unknown) == ("unknown", ("the dialog, which is not run again",))
