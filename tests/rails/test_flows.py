"""A policy's dialog: each kind of step, flows that wait, are left and are taken up again, and what goes wrong."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import ScriptedGenerator, WordEmbedder
from trackbed.llm.types import Message
from trackbed.rails.flows import MAX_RUN, run_flow
from trackbed.rails.intents import Intents
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import load_policy
from trackbed.rails.state import MAX_FLOWS, dump_state, load_state
from trackbed.rails.types import Cursor, Models, Reply, State, Text, Trace, Turn, Verdict

VARS = r"""
vars:
  order_id: {type: string, pattern: '\d{6}'}
  amount: {type: number}
  count: {type: integer, default: 0}
  sure: {type: boolean}
  name: {type: string}
  tier: {type: string, default: basic}
"""
INTENTS = """
  intents:
    refund: {examples: [I want my money back, refund my order]}
    politics: {examples: [who should I vote for]}
    ship: {examples: [where is my parcel]}
    rename: {examples: [change my name please]}
    close: {examples: [close my account now]}
    hours: {examples: [opening hours today]}
    weather: {examples: [is it raining outside]}
"""
POLITICS = '{intent: politics, do: [{refuse: "I do not discuss politics."}]}'
REFUND = """{intent: refund, do: [
  {ask: {var: order_id, say: Which order number?, again: Six digits please., times: 3, otherwise: Call us.}},
  {say: "Refund started for {{ vars.order_id }}."}]}"""
RENAME = '{intent: rename, do: [{ask: {var: name, say: Which name?}}, {say: "Hello {{ vars.name }}."}]}'
REFUNDED = "I want my money back"


def status(id: str) -> str:
    return {"123456": "open"}.get(id, "closed")


async def later(id: str) -> str:
    return f"<{id}>"


def raises() -> str:
    raise ValueError("password is hunter2")


async def hangs() -> str:
    await asyncio.Event().wait()
    raise AssertionError


async def hangs_on() -> str:
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)
            return "late"


def sleeps() -> str:
    time.sleep(0.5)
    return "late"


def stops() -> str:
    raise StopIteration


def exits() -> str:
    raise SystemExit(1)


def nothing() -> None:
    return None


def lists() -> list[str]:
    return ["a"]


def long() -> str:
    return "x" * 5000


def thousand() -> str:
    return "x" * 1000


def number() -> float:
    return 12.5


async def gives_up() -> str:
    raise asyncio.CancelledError


Talk = Callable[..., "Talking"]


class Talking:
    """A conversation with a policy: each `say` is a turn after the one before."""

    def __init__(self, pipeline: Pipeline, chat: ScriptedGenerator) -> None:
        self.pipeline = pipeline
        self.chat = chat
        self.reply: Reply | None = None

    async def say(self, text: str) -> str:
        """What is replied. The state goes through JSON, as it does where it is kept outside."""
        turn = Turn(text)
        if self.reply:
            state = load_state(dump_state(self.reply.state, b"k" * 32), b"k" * 32)
            turn = state.turn(text, self.reply.messages)
            assert turn == self.reply.next(text)
        self.reply = await self.pipeline.respond(turn)
        return self.reply.text

    @property
    def action(self) -> str:
        assert self.reply
        return f"{self.reply.verdict.action} {self.reply.verdict.by} {self.reply.verdict.reason}"

    @property
    def state(self) -> State:
        assert self.reply
        return self.reply.state


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    def talk(*flows: str, more: str = "", answer: str = "a model's words") -> Talking:
        file = tmp_path / "acme.yaml"
        written = "".join(f"    - {flow}\n" for flow in flows)
        file.write_text(
            f"policy: 1\nmodels: {{chat: smollm2-135m-instruct}}\n{VARS}{more}\ndialog:{INTENTS}  flows:\n"
            + written.replace("ACT", __name__)
        )
        chat = ScriptedGenerator(answer)
        return Talking(Pipeline(load_policy(file), Models({"chat": chat}, WordEmbedder())), chat)

    return talk


def refunds(*steps: str) -> str:
    return f"{{intent: refund, do: [{', '.join(steps)}]}}"


async def test_a_question_without_an_intent_goes_to_the_model(talk: Talk) -> None:
    talking = talk(POLITICS)
    assert await talking.say("what is a rail") == "a model's words"
    assert len(talking.chat.prompts) == 1


async def test_a_refusal_is_the_flows_words_and_its_name_and_asks_no_model(talk: Talk) -> None:
    talking = talk(POLITICS)
    assert await talking.say("Who should I vote for?") == "I do not discuss politics."
    assert talking.action == "block dialog/politics policy"
    assert talking.chat.prompts == []
    assert talking.reply
    assert talking.reply.messages == ()


async def test_an_answer_is_taken_and_the_flow_goes_on(talk: Talk) -> None:
    talking = talk(REFUND)
    assert await talking.say(REFUNDED) == "Which order number?"
    assert await talking.say(" 123456 ") == "Refund started for 123456."
    assert talking.state.vars == {"order_id": "123456"}
    assert talking.state.flows == ()
    assert talking.chat.prompts == []


async def test_what_a_flow_says_is_part_of_the_conversation(talk: Talk) -> None:
    talking = talk(REFUND)
    await talking.say(REFUNDED)
    await talking.say("123456")
    assert talking.reply
    assert [message.content for message in talking.reply.messages] == [
        REFUNDED, "Which order number?", "123456", "Refund started for 123456."]  # fmt: skip
    assert talking.state.judged == 4


async def test_an_answer_that_does_not_fit_is_asked_for_again_and_not_for_ever(talk: Talk) -> None:
    talking = talk(REFUND)
    await talking.say(REFUNDED)
    assert await talking.say("the blue one") == "Six digits please."
    assert await talking.say("12345") == "Six digits please."
    assert await talking.say("1234567") == "Call us."
    assert talking.state.flows == ()
    assert await talking.say("123456") == "a model's words"


@pytest.mark.parametrize(
    ("var", "answers", "value"),
    [
        ("amount", ["much", "1e9", "nan", "12.50"], 12.5),
        ("count", ["1.5", "9" * 40, "-3"], -3),
        ("sure", ["maybe", "Yes!"], True),
        ("sure", ["no"], False),
        ("name", ["Ada"], "Ada"),
        ("order_id", ["\ud800", "１２３４５６", "123456\n7", "654321"], "654321"),
    ],
)
async def test_an_answer_becomes_what_its_variable_is(talk: Talk, var: str, answers: list[str], value: object) -> None:
    talking = talk(refunds(f"{{ask: {{var: {var}, say: Well?, times: 9}}}}", '{say: "{{ vars.' + var + ' }}"}'))
    await talking.say(REFUNDED)
    for answer in answers:
        said = await talking.say(answer)
    assert said == str(value)
    assert talking.state.vars == {var: value}


async def test_a_flow_is_left_by_another_intent_and_taken_up_again(talk: Talk) -> None:
    talking = talk(REFUND, POLITICS, '{intent: ship, do: [{say: It is on its way.}]}')  # fmt: skip
    await talking.say(REFUNDED)
    assert await talking.say("who should I vote for") == "I do not discuss politics."
    assert await talking.say("where is my parcel") == "It is on its way.\n\nWhich order number?"
    assert await talking.say("123456") == "Refund started for 123456."


async def test_an_open_question_takes_any_words_but_another_intent(talk: Talk) -> None:
    talking = talk(RENAME, POLITICS)
    await talking.say("change my name please")
    assert await talking.say("who should I vote for") == "I do not discuss politics."
    assert await talking.say("change my name please") == "Which name?"
    assert await talking.say("Vote McVoteface") == "Hello Vote McVoteface."


async def test_several_flows_wait_and_the_last_is_resumed_first(talk: Talk) -> None:
    talking = talk(REFUND, RENAME)
    await talking.say(REFUNDED)
    assert await talking.say("change my name please") == "Which name?"
    assert [cursor.flow for cursor in talking.state.flows] == ["refund", "rename"]
    assert await talking.say("Ada") == "Hello Ada.\n\nWhich order number?"
    assert await talking.say("123456") == "Refund started for 123456."


async def test_a_flow_that_waits_below_is_taken_up_when_its_intent_is_said(talk: Talk) -> None:
    talking = talk(REFUND, RENAME)
    await talking.say(REFUNDED)
    await talking.say("change my name please")
    assert await talking.say(REFUNDED) == "Which order number?"
    assert await talking.say("123456") == "Refund started for 123456.\n\nWhich name?"


async def test_a_flow_waits_once_however_often_others_come_to_it(talk: Talk) -> None:
    talking = talk(REFUND, RENAME, "{intent: ship, do: [{say: Lost.}, {goto: refund}]}")
    await talking.say(REFUNDED)
    await talking.say("change my name please")
    assert await talking.say("where is my parcel") == "Lost.\n\nWhich order number?"
    assert [cursor.flow for cursor in talking.state.flows] == ["rename", "refund"]


async def test_no_more_flows_wait_than_a_state_holds(talk: Talk) -> None:
    said = {"refund": REFUNDED, "ship": "where is my parcel", "rename": "change my name please",
            "close": "close my account now", "hours": "opening hours today"}  # fmt: skip
    talking = talk(*(f"{{intent: {intent}, do: [{{ask: {{var: order_id, say: Which?}}}}]}}" for intent in said))
    for text in said.values():
        assert await talking.say(text) == "Which?"
    assert [cursor.flow for cursor in talking.state.flows] == ["ship", "rename", "close", "hours"]


async def test_an_intent_without_a_flow_goes_to_the_model_and_leaves_the_flow_waiting(talk: Talk) -> None:
    talking = talk(REFUND)
    await talking.say(REFUNDED)
    assert await talking.say("is it raining outside") == "a model's words"
    assert await talking.say("123456") == "Refund started for 123456."


async def test_a_value_is_set_and_an_expression_keeps_its_type(talk: Talk) -> None:
    talking = talk(refunds('{set: {count: "{{ vars.count + 2 }}", name: "no. {{ vars.count }}", sure: true}}',
                           '{say: "{{ vars.count }} {{ vars.name }} {{ vars.sure }}"}'))  # fmt: skip
    assert await talking.say(REFUNDED) == "2 no. 2 True"
    assert talking.state.vars == {"count": 2, "name": "no. 2", "sure": True}


async def test_a_variable_of_a_flow_lasts_and_a_given_one_is_stronger(talk: Talk) -> None:
    talking = talk(refunds('{set: {tier: gold}}', '{say: "{{ vars.tier }}"}'),
                   '{intent: ship, do: [{say: "{{ vars.tier }}"}]}')  # fmt: skip
    assert await talking.say(REFUNDED) == "gold"
    assert await talking.say("where is my parcel") == "gold"
    assert talking.reply
    given = replace(talking.reply.next("where is my parcel"), vars={"tier": "basic"})
    assert (await talking.pipeline.respond(given)).text == "basic"


@pytest.mark.parametrize(("function", "said"), [("status", "open"), ("later", "<123456>")])
async def test_an_action_is_called_and_what_it_returns_is_saved(talk: Talk, function: str, said: str) -> None:
    talking = talk(refunds('{ask: {var: order_id, say: Which?}}',
                           '{call: {action: "ACT:' + function + '", args: {id: "{{ vars.order_id }}"}, save: found}}',
                           '{say: "{{ vars.found }}"}'))  # fmt: skip
    await talking.say(REFUNDED)
    assert await talking.say("123456") == said


async def test_an_action_gives_a_typed_variable_its_type(talk: Talk) -> None:
    talking = talk(refunds("{call: {action: 'ACT:number', save: amount}}", "{say: '{{ vars.amount + 1 }}'}"))
    assert await talking.say(REFUNDED) == "13.5"


@pytest.mark.parametrize(
    ("function", "save", "reason"),
    [
        ("raises", "found", "error"), ("stops", "found", "error"), ("exits", "found", "error"),
        ("nothing", "found", "error"), ("lists", "found", "error"), ("long", "found", "error"),
        ("number", "sure", "error"), ("number", "order_id", "error"), ("gives_up", "found", "error"),
        ("hangs", "found", "timeout"), ("hangs_on", "found", "timeout"), ("sleeps", "found", "timeout"),
    ],
)  # fmt: skip
async def test_an_action_that_fails_refuses_the_turn_and_tells_nothing(
    talk: Talk, function: str, save: str, reason: str
) -> None:
    talking = talk(
        refunds(
            "{say: Let me see.}", f"{{call: {{action: 'ACT:{function}', save: {save}, timeout: 50ms}}}}", "{say: ok}"
        ),
        more="refuse: {default: No., timeout: Too slow.}",
    )
    assert await talking.say(REFUNDED) == ("Too slow." if reason == "timeout" else "No.")
    assert talking.action == f"block dialog/refund {reason}"
    assert talking.reply
    assert talking.state == State()
    (span,) = [span for span in talking.reply.trace.spans if span.stage == "dialog"]
    assert span.error
    assert "hunter2" not in str(span)


async def test_an_answer_can_be_given_again_after_a_failure_but_not_for_ever(talk: Talk) -> None:
    talking = talk(refunds("{ask: {var: order_id, say: Which?, times: 2}}", "{call: {action: 'ACT:raises'}}"))
    await talking.say(REFUNDED)
    await talking.say("123456")
    assert talking.state.flows == (Cursor("refund", "order_id", 2),)
    await talking.say("123456")
    assert talking.action == "block dialog/refund error"
    assert talking.state.flows == ()


@pytest.mark.parametrize(("order", "said"), [("123456", "Refunded."), ("654321", "Too late.\n\nSorry.")])
async def test_a_condition_chooses_between_steps(talk: Talk, order: str, said: str) -> None:
    talking = talk(refunds('{ask: {var: order_id, say: Which?}}',
                           '{call: {action: "ACT:status", args: {id: "{{ vars.order_id }}"}, save: found}}',
                           "{if: vars.found == 'open', then: [{say: Refunded.}], "
                           "else: [{say: Too late.}, {say: Sorry.}]}"))  # fmt: skip
    await talking.say(REFUNDED)
    assert await talking.say(order) == said


async def test_a_flow_resumes_inside_a_branch(talk: Talk) -> None:
    branch = "{if: vars.count == 0, then: [{ask: {var: order_id, say: Which?}}, {say: in}], else: [{say: no}]}"
    talking = talk(refunds(branch, "{say: out}"))
    await talking.say(REFUNDED)
    assert await talking.say("123456") == "in\n\nout"


async def test_a_flow_may_ask_for_one_variable_twice(talk: Talk) -> None:
    talking = talk(
        refunds("{ask: {var: name, say: First?}}", "{ask: {var: name, say: Second?}}", "{say: '{{ vars.name }}'}")
    )
    assert [await talking.say(text) for text in (REFUNDED, "Ada", "Eve")] == ["First?", "Second?", "Eve"]


async def test_a_model_answers_after_the_flows_words_by_the_flows_prompt(talk: Talk) -> None:
    talking = talk(
        refunds("{say: Let me explain.}", "{generate: {prompt: 'Explain {{ question }} to {{ vars.tier }}.'}}")
    )
    assert await talking.say(REFUNDED) == "Let me explain.\n\na model's words"
    assert talking.chat.prompts == [(Message("user", f"Explain {REFUNDED} to basic."),)]
    assert talking.state.flows == ()


@pytest.mark.parametrize("step", ["generate", "{generate: {}}", "{generate: }"])
async def test_a_model_answers_by_the_policys_prompt_where_the_flow_has_none(talk: Talk, step: str) -> None:
    talking = talk(refunds(step), more="generation: {prompt: 'Policy: {{ question }}'}")
    assert await talking.say(REFUNDED) == "a model's words"
    assert talking.chat.prompts == [(Message("user", f"Policy: {REFUNDED}"),)]


async def test_a_stream_shows_the_flows_words_first_and_then_the_answer(talk: Talk) -> None:
    talking = talk(refunds("{say: Let me explain.}", "generate"))
    events = [event async for event in talking.pipeline.stream(Turn(REFUNDED))]
    pieces = [event.text for event in events if isinstance(event, Text)]
    assert pieces[0] == "Let me explain.\n\n"
    assert "".join(pieces) == (await talking.pipeline.respond(Turn(REFUNDED))).text


async def test_what_a_model_says_in_a_flow_is_judged(talk: Talk) -> None:
    talking = talk(refunds("{say: Well.}", "generate"), more="output: [{rail: regex, patterns: [words]}]")
    assert await talking.say(REFUNDED) == "I can't help with that."
    assert talking.action == "block output/regex policy"


@pytest.mark.parametrize("stop", ["stop", "{stop: true}", "{stop: }"])
async def test_a_flow_stops_where_it_says(talk: Talk, stop: str) -> None:
    talking = talk(refunds("{say: a}", stop, "{say: b}"))
    assert await talking.say(REFUNDED) == "a"


async def test_a_flow_that_says_nothing_leaves_the_answer_to_the_model(talk: Talk) -> None:
    talking = talk(refunds("{set: {tier: gold}}"))
    assert await talking.say(REFUNDED) == "a model's words"
    assert talking.state.vars == {"tier": "gold"}


async def test_a_flow_goes_on_in_another(talk: Talk) -> None:
    sorry = "{id: sorry, do: [{ask: {var: name, say: Your name?}}, {refuse: 'Sorry, {{ vars.name }}.'}]}"
    talking = talk(refunds("{say: One.}", "{goto: sorry}", "{say: never}"), sorry)
    assert await talking.say(REFUNDED) == "One.\n\nYour name?"
    assert await talking.say("Ada") == "Sorry, Ada."
    assert talking.action == "block dialog/sorry policy"


async def test_a_flow_goes_back_to_a_label(talk: Talk) -> None:
    talking = talk(refunds("{label: again}", '{set: {count: "{{ vars.count + 1 }}"}}', "{say: '{{ vars.count }}'}",
                           "{if: vars.count != 3, then: [{goto: again}]}", "{say: done}"))  # fmt: skip
    assert await talking.say(REFUNDED) == "1\n\n2\n\n3\n\ndone"


@pytest.mark.parametrize("steps", [["{label: a}", "{goto: a}"], ["{label: a}", "{say: x}", "{goto: refund}"]])
async def test_steps_that_go_round_for_ever_refuse_the_turn(talk: Talk, steps: list[str]) -> None:
    talking = talk(refunds(*steps))
    await talking.say(REFUNDED)
    assert talking.action == "block dialog/refund error"
    assert talking.reply
    (span,) = [span for span in talking.reply.trace.spans if span.stage == "dialog"]
    assert len(span.notes["steps"]) <= MAX_RUN


async def test_words_that_read_a_missing_variable_refuse_the_turn(talk: Talk) -> None:
    talking = talk(refunds("{say: a}", "{say: '{{ vars.name }}'}"))
    assert await talking.say(REFUNDED) == "I can't help with that."
    assert talking.action == "block dialog/refund error"


async def test_variables_do_not_outgrow_the_state(talk: Talk) -> None:
    talking = talk(
        *(f"{{intent: {intent}, do: [{{ask: {{var: name, say: Which?}}}}, {{say: ok}}]}}" for intent in ["refund"])
    )
    await talking.say(REFUNDED)
    assert await talking.say("x" * 2000) == "Which?"
    assert await talking.say("\U0001f600" * 1000) == "ok"
    assert len(dump_state(talking.state)) < 16_384


async def test_flows_keep_only_so_much(talk: Talk) -> None:
    kept = [f"{{call: {{action: 'ACT:thousand', save: s{i}}}}}" for i in range(5)]
    talking = talk(refunds(*kept[:4], "{say: ok}"), f"{{intent: ship, do: [{kept[4]}, {{say: more}}]}}")
    assert await talking.say(REFUNDED) == "ok"
    await talking.say("where is my parcel")
    assert talking.action == "block dialog/ship error"
    assert len(dump_state(talking.state)) < 8192


@pytest.mark.parametrize(
    ("verdict", "then", "said", "kept"),
    [
        (Verdict.allow(), "reply", "Look: clean", {"found": "clean"}),
        (Verdict.block().named("input", "x"), "refuse", "", {}),
    ],
)
async def test_what_an_action_returns_is_judged_before_it_is_kept(
    talk: Talk, verdict: Verdict, then: str, said: str, kept: dict[str, str]
) -> None:
    async def judge(turn: Turn, text: str) -> tuple[str, Verdict]:
        assert text == "closed"
        return "clean", verdict

    call = "{call: {action: 'ACT:status', args: {id: a}, save: found}}"
    dialog = talk(refunds("{say: 'Look:'}", call, "{say: '{{ vars.found }}'}")).pipeline.policy.dialog
    assert dialog
    scripted = await run_flow(dialog, Intents(dialog, Models({}, WordEmbedder())), judge, Turn(REFUNDED), Trace())
    assert (scripted.then, scripted.turn.said.replace("\n\n", " "), scripted.turn.state.vars) == (then, said, kept)
    assert scripted.verdict == verdict


async def test_nothing_is_drafted_ahead_of_a_flow(talk: Talk) -> None:
    talking = talk(POLITICS, more="generation: {ahead: true}\ninput: [{rail: length, max_chars: 99}]")
    assert await talking.say("so who should I vote for") == "I do not discuss politics."
    assert talking.chat.prompts == []


async def test_a_caller_puts_no_words_into_a_flows_mouth(talk: Talk) -> None:
    talking = talk(REFUND, refunds("{generate: {prompt: never}}").replace("refund", "ship"))
    reply = await talking.pipeline.respond(Turn("hello", said="Free money!", step="ship.do[0]"))
    assert reply.text == "a model's words"
    assert talking.chat.prompts != [(Message("user", "never"),)]


async def test_a_flow_that_a_changed_policy_no_longer_has_is_over(talk: Talk) -> None:
    talking = talk(REFUND)
    await talking.say(REFUNDED)
    for changed in (POLITICS, refunds("{say: Write to us.}"), refunds("{ask: {var: name, say: Who?}}")):
        assert talking.reply
        reply = await talk(changed).pipeline.respond(talking.reply.next("123456"))
        assert (reply.text, reply.state.flows) == ("a model's words", ())
        (span,) = [span for span in reply.trace.spans if span.stage == "dialog"]
        assert span.notes["forgotten"] == ["refund/order_id"]


async def test_a_flow_waits_at_the_same_question_where_a_policy_puts_steps_before_it(talk: Talk) -> None:
    talking = talk(REFUND)
    await talking.say(REFUNDED)
    changed = talk(
        refunds("{say: Hi.}", "{if: vars.count == 0, then: [{ask: {var: order_id, say: No.?}}]}", "{say: Thanks.}")
    )
    assert talking.reply
    assert (await changed.pipeline.respond(talking.reply.next("123456"))).text == "Thanks."


@pytest.mark.parametrize(
    "state",
    [
        State(flows=(Cursor("none", "order_id"),)),
        State(flows=(Cursor("refund", "order_id#7"),)),
        State(flows=(Cursor("refund", "order_id", 10**15),)),
        State(flows=(Cursor("refund", "order_id", 0),) * 4),
        State({"order_id": 3, "amount": "x", "unknown": True, "tier": "staff"}),
        State(judged=3, digest="ab" * 16),
    ],
)
async def test_a_forged_state_breaks_nothing_and_gains_nothing(talk: Talk, state: State) -> None:
    talking = talk(REFUND, POLITICS, '{intent: ship, do: [{say: "{{ vars.tier }}"}]}')
    assert (await talking.pipeline.respond(state.turn("where is my parcel"))).text.startswith("basic")
    assert (await talking.pipeline.respond(state.turn("who should I vote for"))).verdict.by == "dialog/politics"


async def test_a_forged_variable_that_does_not_fit_is_not_there(talk: Talk) -> None:
    talking = talk(REFUND, '{intent: ship, do: [{say: "{{ vars.order_id }}"}]}')
    for value in (3, "12", "x" * 2000):
        reply = await talking.pipeline.respond(State({"order_id": value}).turn("where is my parcel"))
        assert (reply.verdict.by, reply.verdict.reason) == ("dialog/ship", "error")
    assert (await talking.pipeline.respond(State({"order_id": "123456"}).turn("where is my parcel"))).text == "123456"


async def test_a_blocked_answer_leaves_the_flow_waiting(talk: Talk) -> None:
    talking = talk(REFUND, more="input: [{rail: regex, patterns: [evil]}]")
    await talking.say(REFUNDED)
    await talking.say("evil")
    assert talking.action == "block input/regex policy"
    assert await talking.say("123456") == "Refund started for 123456."


async def test_the_trace_tells_the_intent_its_score_and_the_steps(talk: Talk) -> None:
    talking = talk(refunds("{say: a}", "{if: vars.count == 0, then: [{say: b}]}"))
    await talking.say("refund my order")
    assert talking.reply
    (span,) = [span for span in talking.reply.trace.spans if span.stage == "dialog"]
    assert span.name == "refund"
    assert span.notes["intent"] == "refund"
    assert span.notes["score"] == pytest.approx(1.0)
    assert span.notes["steps"] == ["refund.do[0]", "refund.do[1]", "refund.do[1].then[0]"]


async def test_a_long_conversation_keeps_a_small_state(talk: Talk) -> None:
    talking = talk(REFUND, RENAME)
    said = [await talking.say(text) for _ in range(30) for text in (REFUNDED, "change my name please", "Ada", "123456")]
    assert said[-1] == "Refund started for 123456."
    assert talking.state.judged == 240
    assert len(dump_state(talking.state, b"k" * 32)) < 400


async def test_a_caller_that_goes_away_in_the_middle_of_an_action_leaves_the_flow_waiting(talk: Talk) -> None:
    talking = talk(refunds("{ask: {var: order_id, say: Which?}}", "{call: {action: 'ACT:hangs'}}"))
    await talking.say(REFUNDED)
    assert talking.reply
    work = asyncio.ensure_future(talking.pipeline.respond(talking.reply.next("123456")))
    await asyncio.sleep(0.02)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert await talking.say("blue") == "Which?"


async def test_a_turns_time_is_over_in_the_middle_of_an_action(talk: Talk) -> None:
    talking = talk(refunds("{call: {action: 'ACT:hangs'}}"), more="budget: {wall: 50ms}")
    await talking.say(REFUNDED)
    assert talking.reply
    assert (talking.reply.verdict.action, talking.reply.verdict.reason) == ("block", "timeout")


async def test_turns_at_once_do_not_share_variables(talk: Talk) -> None:
    talking = talk(RENAME)
    first = await talking.pipeline.respond(Turn("change my name please"))
    replies = await asyncio.gather(*(talking.pipeline.respond(first.next(f"N{i}")) for i in range(20)))
    assert [reply.text for reply in replies] == [f"Hello N{i}." for i in range(20)]


plain = st.one_of(
    st.sampled_from(
        [
            "stop",
            "generate",
            {"say": "a"},
            {"say": "{{ vars.order_id }}"},
            {"ask": {"var": "order_id", "say": "Which?", "times": 2}},
            {"ask": {"var": "name", "say": "Who?"}},
            {"set": {"count": "{{ vars.count + 1 }}"}},
            {"set": {"name": "{{ question }}"}},
            {"refuse": "No."},
            {"call": {"action": f"{__name__}:status", "args": {"id": "{{ vars.name }}"}, "save": "found"}},
            {"call": {"action": f"{__name__}:raises"}},
            {"goto": "here"},
            {"goto": "refund"},
            {"goto": "rename"},
        ]
    )
)
steps = st.recursive(
    st.lists(plain, min_size=1, max_size=5),
    lambda inner: st.lists(
        plain
        | st.builds(lambda then, other: {"if": "vars.count > 1", "then": then, "else": other}, inner, inner)
        | st.builds(lambda then: {"if": "vars.name is defined", "then": then}, inner),
        min_size=1,
        max_size=4,
    ),
    max_leaves=6,
)
SAYINGS = (REFUNDED, "change my name please", "where is my parcel", "123456", "hello", "")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flows=st.tuples(steps, steps), other=steps, said=st.lists(st.sampled_from(SAYINGS), max_size=8))
async def test_no_flow_breaks_a_turn_and_every_state_comes_back(
    tmp_path: Path, flows: tuple[list[Any], list[Any]], other: list[Any], said: list[str]
) -> None:
    def pipeline(*flows: list[Any]) -> Pipeline:
        file = tmp_path / "acme.yaml"
        named = zip(("refund", "rename"), flows, strict=True)
        written = json.dumps([{"intent": name, "do": [{"label": "here"}, *flow]} for name, flow in named])
        file.write_text(f"policy: 1\n{VARS}\ndialog:{INTENTS}  flows: {written}\n")
        return Pipeline(load_policy(file), Models({"chat": ScriptedGenerator("words")}, WordEmbedder()))

    one, two = pipeline(*flows), pipeline(other, flows[0])
    turn = Turn("hello")
    for i, text in enumerate(said):
        guarded = two if i % 3 == 2 else one  # the policy changes under flows that wait
        reply = await guarded.respond(replace(turn, question=text))
        assert reply.text or reply.verdict.action == "block"
        assert len(reply.state.flows) <= MAX_FLOWS
        turn = load_state(dump_state(reply.state)).turn("", reply.messages)
        assert turn.judged == len(reply.messages)
