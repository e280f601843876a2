"""Which intent a message has: the embedder's word, the model's only where that is open, and no guess without either."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes import ScriptedGenerator, WordEmbedder, prompt_text
from trackbed.rails.errors import PolicyError
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import load_policy
from trackbed.rails.types import Models, Reply, Turn

POLICY = """policy: 1
models: {small: smollm2-135m-instruct}
defaults: {timeout: 200ms}
dialog:
  intents:
    refund: {examples: [I want my money back, refund my order]}
    politics: {examples: [who should I vote for]}
  classify: {threshold: 0.7, model: MODEL}
  flows:
    - {intent: refund, do: [{say: Refunded.}]}
    - {intent: politics, do: [{refuse: No politics.}]}
"""


class Embedder(WordEmbedder):
    """Remembers what it embedded, and in which thread."""

    def __init__(self, vector: NDArray[np.float32] | None = None, fails: Exception | None = None) -> None:
        self.asked: list[list[str]] = []
        self.threads: set[int] = set()
        self.vector = vector
        self.fails = fails

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.append(list(texts))
        self.threads.add(threading.get_ident())
        if self.fails:
            raise self.fails
        return super().embed(texts) if self.vector is None else np.stack([self.vector] * len(texts))


def pipeline(tmp_path: Path, embedder: Embedder | None, small: ScriptedGenerator | None = None) -> Pipeline:
    file = tmp_path / "acme.yaml"
    file.write_text(POLICY.replace("MODEL", "small" if small else "none"))
    chat = ScriptedGenerator("a model's words")
    return Pipeline(load_policy(file), Models({"chat": chat, "small": small or chat}, embedder))


def intent(reply: Reply) -> tuple[object, object]:
    (span,) = [span for span in reply.trace.spans if span.stage == "dialog"]
    return span.notes.get("intent"), span.notes.get("by")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I want my money back!", "refund"),
        ("refund  my  ORDER", "refund"),
        ("please refund my order", "refund"),
        ("who should I vote for today", "politics"),
        ("who wrote this order", None),
        ("", None),
        ("???", None),
    ],
)
async def test_a_message_has_the_intent_of_the_nearest_example_or_none(
    tmp_path: Path, text: str, expected: str | None
) -> None:
    assert intent(await pipeline(tmp_path, Embedder()).respond(Turn(text))) == (expected, "embedder")


async def test_an_example_itself_needs_no_embedding(tmp_path: Path) -> None:
    embedder = Embedder()
    assert intent(await pipeline(tmp_path, embedder).respond(Turn("refund my order"))) == ("refund", "example")
    assert embedder.asked == []


async def test_examples_are_embedded_once_and_nothing_on_the_event_loop(tmp_path: Path) -> None:
    embedder = Embedder()
    guarded = pipeline(tmp_path, embedder)
    assert embedder.asked == []
    await asyncio.gather(*(guarded.respond(Turn("Refund my order!")) for _ in range(5)))
    assert sum(len(texts) == 3 for texts in embedder.asked) == 1
    assert sum(texts == ["Refund my order!"] for texts in embedder.asked) == 5
    assert threading.get_ident() not in embedder.threads


async def test_turns_of_other_event_loops_have_the_same_intents(tmp_path: Path) -> None:
    guarded = pipeline(tmp_path, Embedder())
    replies = [await asyncio.to_thread(asyncio.run, guarded.respond(Turn("Refund my order!"))) for _ in range(2)]
    assert [reply.text for reply in replies] == ["Refunded.", "Refunded."]


async def test_a_model_is_asked_only_below_the_threshold(tmp_path: Path) -> None:
    small = ScriptedGenerator(scores={"refund": -5.0, "politics": -0.1, "none": -4.0})
    guarded = pipeline(tmp_path, Embedder(), small)
    assert intent(await guarded.respond(Turn("Refund my order!"))) == ("refund", "embedder")
    assert small.prompts == []
    assert intent(await guarded.respond(Turn("which party is best"))) == ("politics", "small")
    assert "which party is best" in prompt_text(small.prompts[0])


async def test_the_calls_of_a_model_count_for_the_dialog(tmp_path: Path) -> None:
    small = ScriptedGenerator(scores={"refund": -5.0, "politics": -0.1, "none": -4.0})
    reply = await pipeline(tmp_path, Embedder(), small).respond(Turn("which party is best"))
    assert [(span.stage, span.calls) for span in reply.trace.spans] == [("dialog", 1)]


@pytest.mark.parametrize(
    "scores",
    [
        {"refund": -5.0, "politics": -4.0, "none": -0.1},
        {"refund": -1.0, "politics": -1.0, "none": -1.0},
        {"refund": -1.0, "politics": -1.0, "none": -9.0},
    ],
)
async def test_a_model_that_is_not_sure_of_an_intent_gives_none(tmp_path: Path, scores: dict[str, float]) -> None:
    guarded = pipeline(tmp_path, Embedder(), ScriptedGenerator(scores=scores))
    reply = await guarded.respond(Turn("which party is best"))
    assert intent(reply) == (None, "small")
    assert reply.text == "a model's words"


async def test_a_model_alone_will_do(tmp_path: Path) -> None:
    small = ScriptedGenerator(scores={"refund": -0.1, "politics": -4.0, "none": -4.0})
    assert (await pipeline(tmp_path, None, small).respond(Turn("give it back"))).text == "Refunded."


def test_without_an_embedder_and_a_model_there_is_no_pipeline(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"acme\.yaml:4:1: the dialog has intents, and nothing to tell them by"):
        pipeline(tmp_path, None)


@pytest.mark.parametrize(
    ("embedder", "small", "reason"),
    [
        (Embedder(fails=ValueError("secret")), None, "error"),
        (Embedder(vector=np.full(256, np.nan, dtype=np.float32)), None, "error"),
        (Embedder(vector=np.zeros((2, 2), dtype=np.float32)), None, "error"),
        (Embedder(), ScriptedGenerator(fails=ValueError("secret")), "error"),
        (Embedder(), ScriptedGenerator(scores={"refund": float("nan"), "politics": -1.0, "none": -1.0}), "error"),
        (Embedder(), ScriptedGenerator(scores={}), "error"),
        (Embedder(), ScriptedGenerator(delay=30.0), "timeout"),
    ],
)
async def test_an_intent_that_cannot_be_found_out_refuses_the_turn(
    tmp_path: Path, embedder: Embedder, small: ScriptedGenerator | None, reason: str
) -> None:
    reply = await pipeline(tmp_path, embedder, small).respond(Turn("which party is best"))
    assert (reply.verdict.action, reply.verdict.by, reply.verdict.reason) == ("block", "dialog/classify", reason)
    assert reply.text == "I can't help with that."
    assert "secret" not in str(reply)
