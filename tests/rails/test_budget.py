"""What a turn may take: time, model calls, a place among the others; and that a caller who goes away is noticed."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.fakes import ListRetriever, ScriptedGenerator
from trackbed.llm.types import Completion, Message, Prompt, SamplingParams
from trackbed.rails.budget import Admission, Budget
from trackbed.rails.config import ModelName, RailConfig
from trackbed.rails.errors import TooBusy
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import load_policy
from trackbed.rails.types import Models, Stage, Then, Turn, Verdict
from trackbed.retrieval.types import Passage

MODELS = "models: {chat: smollm2-135m-instruct}\n"
PASSAGE = Passage("A rail is one check.", "rails.md", 0, 20, score=0.9)


class Asks:
    """Asks a model so many times."""

    class Config(RailConfig):
        """How often, and which."""

        model: ModelName = "chat"
        times: int = 1

    stages: ClassVar[frozenset[Stage]] = frozenset({"input", "output"})
    actions: ClassVar[frozenset[Then]] = frozenset({"block", "regenerate"})

    def __init__(self, config: Config, models: Models) -> None:
        self.config = config
        self.model = models.generators[config.model]

    async def check(self, turn: Turn) -> Verdict:
        for _ in range(self.config.times):
            await self.model.generate([Message("user", turn.text)], SamplingParams())
        return Verdict.allow()


def pipeline(tmp_path: Path, policy: str, chat: Any, *passages: Passage) -> Pipeline:
    file = tmp_path / "policy.yaml"
    file.write_text(f"policy: 1\n{MODELS}{policy}")
    return Pipeline(load_policy(file), Models({"chat": chat}), ListRetriever(*passages) if passages else None)


def asks(times: int = 1, **keys: str) -> str:
    said = "".join(f", {key}: {value}" for key, value in keys.items())
    return f"{{rail: '{__name__}:Asks', times: {times}{said}}}"


async def test_a_turn_that_takes_too_long_is_refused_for_its_time(tmp_path: Path) -> None:
    policy = "budget: {wall: 20ms}\nrefuse: {timeout: 'Too slow.'}\n"
    reply = await pipeline(tmp_path, policy, ScriptedGenerator("late", delay=30)).respond(Turn("hi"))
    assert (reply.text, reply.verdict.action, reply.verdict.reason) == ("Too slow.", "block", "timeout")


async def test_a_model_that_runs_out_of_time_by_itself_is_not_taken_for_the_turn(tmp_path: Path) -> None:
    failing = pipeline(tmp_path, "budget: {wall: 30s}\n", ScriptedGenerator(fails=TimeoutError("socket")))
    with pytest.raises(TimeoutError, match="socket"):
        await failing.respond(Turn("hi"))


@pytest.mark.parametrize(("calls", "action"), [(3, "allow"), (2, "block")])
async def test_a_turn_asks_models_no_more_often_than_it_may(tmp_path: Path, calls: int, action: str) -> None:
    chat = ScriptedGenerator("fine")
    policy = f"budget: {{model_calls: {calls}}}\ninput: [{asks(2, on_error='allow')}]\n"
    reply = await pipeline(tmp_path, policy, chat).respond(Turn("hi"))
    assert (reply.verdict.action, len(chat.prompts)) == (action, calls)
    assert action == "allow" or reply.verdict.reason == "error"


async def test_each_turn_has_its_own_budget(tmp_path: Path) -> None:
    chat = ScriptedGenerator("fine", delay=0.01)
    bounded = pipeline(tmp_path, f"budget: {{model_calls: 2}}\ninput: [{asks()}]\n", chat)
    replies = await asyncio.gather(*(bounded.respond(Turn("hi")) for _ in range(5)))
    assert [reply.verdict.action for reply in replies] == ["allow"] * 5


async def test_the_trace_says_who_asked_models_and_how_often(tmp_path: Path) -> None:
    reply = await pipeline(tmp_path, f"input: [{asks(2)}]\n", ScriptedGenerator("a b c")).respond(Turn("hi"))
    assert [(s.name, s.calls, s.usage and s.usage.completion_tokens) for s in reply.trace.spans] == [
        (f"{__name__}:Asks", 2, 6),
        ("generate", 1, 3),
    ]


async def test_so_many_turns_run_at_once_and_the_others_wait(tmp_path: Path) -> None:
    running, most = 0, 0

    class Counting(ScriptedGenerator):
        async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.005)
            running -= 1
            return await super().generate(prompt, params)

    bounded = pipeline(tmp_path, "budget: {max_turns: 3}\n", Counting("fine"))
    replies = await asyncio.gather(*(bounded.respond(Turn("hi")) for _ in range(12)))
    assert (len(replies), most) == (12, 3)


async def test_a_turn_that_finds_no_place_in_time_is_turned_away(tmp_path: Path) -> None:
    bounded = pipeline(tmp_path, "budget: {max_turns: 1, max_wait: 10ms}\n", ScriptedGenerator("fine", delay=0.2))
    first = asyncio.ensure_future(bounded.respond(Turn("hi")))
    await asyncio.sleep(0)
    with pytest.raises(TooBusy, match=r"1 turns are running"):
        await bounded.respond(Turn("hi"))
    assert (await first).text == "fine"
    assert (await bounded.respond(Turn("hi"))).text == "fine"


async def test_a_place_is_free_again_whatever_became_of_its_turn() -> None:
    admission = Admission(Budget(max_turns=1, max_wait=5.0))

    async def take() -> None:
        async with admission:
            await asyncio.Event().wait()

    holding = asyncio.ensure_future(take())
    waiting = [asyncio.ensure_future(take()) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    holding.cancel()
    await asyncio.sleep(0.01)
    assert (admission.running, len(admission.waiting)) == (1, 0)
    waiting[1].cancel()
    await asyncio.sleep(0.01)
    assert admission.running == 0


def test_places_are_shared_by_turns_on_different_event_loops() -> None:
    admission, order = Admission(Budget(max_turns=1, max_wait=5.0)), list[str]()
    inside, leave = threading.Event(), threading.Event()

    async def hold() -> None:
        async with admission:
            inside.set()
            await asyncio.to_thread(leave.wait)
            order.append("first")

    async def wait() -> None:
        async with admission:
            order.append("second")

    first = threading.Thread(target=lambda: asyncio.run(hold()))
    first.start()
    inside.wait()
    second = threading.Thread(target=lambda: asyncio.run(wait()))
    second.start()
    while not admission.waiting:
        pass
    leave.set()
    first.join()
    second.join()
    assert (order, admission.running) == (["first", "second"], 0)


class Recording(ScriptedGenerator):
    """Tells when it was cancelled."""

    cancelled = 0

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        try:
            return await super().generate(prompt, params)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def test_the_model_stops_when_the_caller_goes_away(tmp_path: Path) -> None:
    chat = Recording("late", delay=30)
    turn = asyncio.ensure_future(
        pipeline(tmp_path, "input: [{rail: length, max_chars: 99}]\n", chat).respond(Turn("hi"))
    )
    await asyncio.sleep(0.01)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert chat.cancelled == 1


class Slow(Asks):
    """Takes a while, and objects to what is bad."""

    async def check(self, turn: Turn) -> Verdict:
        await asyncio.sleep(0.03)
        return Verdict.block() if "bad" in turn.text else Verdict.allow()


class SlowMask(Slow):
    """Takes a while, and rewrites."""

    actions: ClassVar[frozenset[Then]] = frozenset({"mask"})

    async def check(self, turn: Turn) -> Verdict:
        await asyncio.sleep(0.01)
        return Verdict.rewrite(turn.text.replace("bad", "good")) if "bad" in turn.text else Verdict.allow()


AHEAD = "generation: {ahead: true}\nknowledge: {index: kb}\n"


async def ahead(tmp_path: Path, rail: str, chat: ScriptedGenerator, question: str) -> tuple[Any, Sequence[str]]:
    guarded = pipeline(tmp_path, f"{AHEAD}input: [{rail}]\n", chat, PASSAGE)
    reply = await guarded.respond(Turn(question))
    assert isinstance(guarded.retriever, ListRetriever)
    return reply, [query.text for query in guarded.retriever.queries]


async def test_ahead_the_answer_is_drafted_while_the_question_is_judged(tmp_path: Path) -> None:
    began: list[float] = []

    class Watching(ScriptedGenerator):
        async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
            began.append(asyncio.get_running_loop().time())
            return await super().generate(prompt, params)

    started = asyncio.get_running_loop().time()
    reply, _ = await ahead(tmp_path, f"{{rail: '{__name__}:Slow'}}", Watching("A rail is one check."), "a rail?")
    assert reply.text == "A rail is one check. [1]"
    assert began[0] - started < 0.03
    stages = [span.stage for span in reply.trace.spans]
    assert stages == ["input", "retrieval", "generation", "output"]


async def test_ahead_a_block_cancels_the_draft(tmp_path: Path) -> None:
    chat = Recording("late", delay=30)
    reply, _ = await ahead(tmp_path, f"{{rail: '{__name__}:Slow'}}", chat, "a bad rail?")
    await asyncio.sleep(0)
    assert (reply.verdict.action, chat.cancelled) == ("block", 1)
    assert [span.stage for span in reply.trace.spans] == ["input"]


async def test_ahead_what_a_rail_rewrites_no_model_and_no_index_sees(tmp_path: Path) -> None:
    chat = ScriptedGenerator("A rail is one check.")
    reply, queries = await ahead(tmp_path, f"{{rail: '{__name__}:SlowMask', then: mask}}", chat, "a bad rail?")
    assert queries == ["a good rail?"]
    assert "bad" not in str(chat.prompts)
    assert (reply.verdict.action, reply.text) == ("rewrite", "A rail is one check. [1]")
    assert [span.name for span in reply.trace.spans].count("generate") == 1


async def test_ahead_a_draft_that_fails_is_told_only_where_the_question_passes(tmp_path: Path) -> None:
    failing = ScriptedGenerator(fails=ZeroDivisionError())
    reply, _ = await ahead(tmp_path, f"{{rail: '{__name__}:Slow'}}", failing, "a bad rail?")
    assert reply.verdict.action == "block"
    with pytest.raises(ZeroDivisionError):
        await ahead(tmp_path, f"{{rail: '{__name__}:Slow'}}", failing, "a rail?")
