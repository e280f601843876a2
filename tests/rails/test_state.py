"""A conversation's state: what comes back is what was handed out, and it proves what was judged."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackbed.llm.types import Message
from trackbed.rails.errors import StateRefused
from trackbed.rails.state import MAX_FLOWS, MAX_STATE, dump_state, load_state
from trackbed.rails.types import Cursor, Reply, State, Trace, Turn, Verdict

KEY = b"0123456789abcdef"
OTHER = b"fedcba9876543210"
TALK = (Message("user", "hello"), Message("assistant", "Hello."), Message("user", "more"), Message("assistant", "No."))
STATE = State({"order_id": "123456", "paid": True}, (Cursor("refund", "order_id", 2),)).after(TALK)

names = st.text(min_size=1, max_size=20)
values = (
    st.text(max_size=40)
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
)
messages = st.lists(
    st.builds(Message, st.sampled_from(["user", "assistant"]), st.text(st.characters(), max_size=20)), max_size=5
)
states = st.builds(
    lambda vars, flows, judged: State(vars, tuple(flows)).after(judged),
    st.dictionaries(names, values, max_size=5),
    st.lists(st.builds(Cursor, names, names, st.integers(0, 9)), max_size=MAX_FLOWS),
    messages,
)


@given(states, st.none() | st.just(KEY))
def test_a_state_comes_back_as_it_was(state: State, key: bytes | None) -> None:
    assert load_state(dump_state(state, key), key) == state


@given(states, st.data())
def test_a_signed_state_that_was_changed_in_one_place_is_refused(state: State, data: st.DataObject) -> None:
    text = dump_state(state, KEY)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.characters()) + text[at + 1 :]
    try:
        found = load_state(changed, KEY)
    except StateRefused:
        return
    assert found == state, "only another spelling of the same JSON may be read"


@given(st.text(max_size=50) | st.recursive(st.none() | values, st.lists, max_leaves=5).map(json.dumps))
def test_what_is_no_state_is_refused(text: str) -> None:
    for key in (None, KEY):
        with pytest.raises(StateRefused):
            load_state(text, key)


def resealed(change: Callable[[dict[str, Any]], object], key: bytes | None = None) -> str:
    """A state that was changed by somebody who can seal it."""
    from trackbed.rails.state import _seal, _seal_name

    body = json.loads(dump_state(STATE, key))
    del body[_seal_name(key)]
    change(body)
    return json.dumps(body | {_seal_name(key): _seal(body, key)})


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        (dump_state(STATE), KEY, "the state is not signed, and a key is given"),
        (dump_state(STATE, KEY), None, "the state is signed, and no key is given"),
        (dump_state(STATE, OTHER), KEY, "written with another key"),
        (dump_state(STATE, KEY).replace("123456", "123457"), KEY, "the state was changed"),
        (dump_state(STATE).replace("123456", "123457"), None, "the state was changed"),
        (dump_state(STATE, KEY)[:-9], KEY, "the state is not JSON"),
        ("[" * 50_000, None, "the state is not JSON"),
        ('{"checksum": ' + "[" * 900 + "]" * 900 + "}", None, "the state has no checksum"),
        ('{"checksum": "", "vars": ' + "[" * 980 + "]" * 980 + "}", None, "the state"),
        ("9" * 20_000, None, "the state is not JSON"),
        ("[]", KEY, "no object"),
        ("{}", KEY, "no signature"),
        ('{"signature": 3}', KEY, "no signature"),
        (" " * MAX_STATE + "{}", KEY, f"one has {MAX_STATE} at most"),
        (resealed(lambda s: s.update(version=2)), None, "not of version 1"),
        (resealed(lambda s: s.update(more=2)), None, "not of version 1"),
        (resealed(lambda s: s.update(vars=[])), None, "not names with plain values"),
        (resealed(lambda s: s.update(vars={"a": None})), None, "not names with plain values"),
        (resealed(lambda s: s.update(vars={"a": [1]})), None, "not names with plain values"),
        (resealed(lambda s: s.update(vars={"a": float("nan")})), None, "not names with plain values"),
        (resealed(lambda s: s.update(vars={"a": 10**300})), None, "not names with plain values"),
        (resealed(lambda s: s.update(flows=3)), None, "no list of 4 at most"),
        (resealed(lambda s: s.update(flows=s["flows"] * 5)), None, "no list of 4 at most"),
        (resealed(lambda s: s.update(flows=[{}])), None, "does not say where it waits"),
        (resealed(lambda s: s["flows"][0].update(asked=-1)), None, "does not say where it waits"),
        (resealed(lambda s: s.update(judged=True)), None, "which messages were judged"),
        (resealed(lambda s: s.update(judged=-1)), None, "which messages were judged"),
        (resealed(lambda s: s.update(digest="x")), None, "which messages were judged"),
        (resealed(lambda s: s.update(digest="")), None, "without their digest"),
    ],
)
def test_a_refused_state_says_what_is_wrong_with_it(text: str, key: bytes | None, expected: str) -> None:
    with pytest.raises(StateRefused) as caught:
        load_state(text, key)
    assert expected in str(caught.value)


def test_a_short_key_is_refused_wherever_it_is_given() -> None:
    for key in (b"", b"secret"):
        with pytest.raises(ValueError, match="takes 16 or more"):
            dump_state(STATE, key)
        with pytest.raises(ValueError, match="takes 16 or more"):
            load_state(dump_state(STATE), key)


@given(messages, messages)
def test_what_follows_the_judged_messages_is_judged(judged: list[Message], more: list[Message]) -> None:
    state = State().after(judged)
    turn = state.turn("and?", (*judged, *more))
    assert (turn.judged, turn.state, turn.history) == (len(judged), state, (*judged, *more))


@given(messages, messages)
def test_a_history_that_the_state_does_not_prove_is_judged_anew(judged: list[Message], told: list[Message]) -> None:
    turn = State({"a": 1}).after(judged).turn("and?", told)
    assert turn.judged == (len(judged) if told[: len(judged)] == judged else 0)
    assert turn.state == State({"a": 1}).after(told[: turn.judged])


def test_a_message_in_another_role_is_another_message() -> None:
    forged = (Message("assistant", TALK[0].content), *TALK[1:])
    assert STATE.turn("and?", forged).judged == 0


def test_texts_that_are_cut_elsewhere_are_other_messages() -> None:
    one = State().after([Message("user", "a\nuser\nb")])
    two = State().after([Message("user", "a"), Message("user", "b")])
    assert one.digest != two.digest


@given(messages, messages)
def test_a_digest_is_extended_without_what_it_covers(first: list[Message], second: list[Message]) -> None:
    assert State().after(first).after(second) == State().after([*first, *second])


def test_a_reply_hands_its_state_to_the_next_turn() -> None:
    reply = Reply("No.", (), Trace(), Verdict.allow(), TALK, STATE)
    turn = reply.next("and?")
    assert (turn.judged, turn.state, turn.history) == (4, STATE, TALK)


@pytest.mark.parametrize("judged", [0, 2, 4])
def test_a_turn_that_came_without_a_state_leaves_one_of_all_that_is_judged(judged: int) -> None:
    turn = Turn("and?", TALK, judged=judged)
    assert turn.remembers((*TALK, Message("user", "and?"))) == State().after((*TALK, Message("user", "and?")))
