"""So many turns in a window, each user apart, and nothing that grows without end."""

import asyncio
from dataclasses import replace

import pytest

from trackbed.rails.library import rate
from trackbed.rails.library.rate import Rate
from trackbed.rails.types import Models, Turn


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def made(clock: Clock, **config: object) -> Rate:
    rail = Rate(Rate.Config.model_validate(config), Models())
    rail.now = clock  # type: ignore[method-assign]
    return rail


def turn(user: str | None = None, text: str = "hello") -> Turn:
    return Turn(text, text=text, vars={} if user is None else {"user": user})


async def actions(rail: Rate, *turns: Turn) -> list[str]:
    return [(await rail.check(asked)).action for asked in turns]


async def test_turns_beyond_the_limit_are_blocked_until_the_window_has_moved_on() -> None:
    clock = Clock()
    rail = made(clock, turns=2, seconds=10)
    assert await actions(rail, *[turn("a")] * 3) == ["allow", "allow", "block"]
    clock.time += 9.9
    assert await actions(rail, turn("a")) == ["block"]
    clock.time += 0.1
    assert await actions(rail, turn("a"), turn("a"), turn("a")) == ["allow", "allow", "block"]


async def test_the_window_slides() -> None:
    clock = Clock()
    rail = made(clock, turns=2, seconds=10)
    assert await actions(rail, turn("a")) == ["allow"]
    clock.time += 6
    assert await actions(rail, turn("a")) == ["allow"]
    clock.time += 5  # the first is out of it, the second is not
    assert await actions(rail, turn("a"), turn("a")) == ["allow", "block"]


async def test_users_are_counted_apart_and_those_without_a_name_together() -> None:
    rail = made(Clock(), turns=1)
    assert await actions(rail, turn("a"), turn("b"), turn("a")) == ["allow", "allow", "block"]
    assert await actions(rail, turn(), turn(), turn("")) == ["allow", "block", "block"]


async def test_a_blocked_turn_does_not_count() -> None:
    clock = Clock()
    rail = made(clock, turns=1, seconds=10)
    await actions(rail, *[turn("a")] * 50)
    clock.time += 10
    assert await actions(rail, turn("a")) == ["allow"]


async def test_earlier_messages_of_a_conversation_do_not_count() -> None:
    rail = made(Clock(), turns=1)
    earlier = replace(turn("a"), text="what I said before")
    assert await actions(rail, earlier, earlier, turn("a"), turn("a")) == ["allow", "allow", "allow", "block"]


async def test_another_variable_may_name_the_user() -> None:
    rail = made(Clock(), turns=1, by="tenant")
    asked = Turn("hello", text="hello", vars={"tenant": "x", "user": "a"})
    assert await actions(rail, asked, replace(asked, vars={"tenant": "x", "user": "b"})) == ["allow", "block"]


async def test_no_more_users_are_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "KEPT", 10)
    rail = made(Clock(), turns=1)
    await actions(rail, *[turn(f"user {n}") for n in range(50)])
    assert len(rail.seen) == 10
    assert await actions(rail, turn("user 49"), turn("user 0")) == ["block", "allow"]


async def test_turns_at_once_are_counted_each() -> None:
    rail = made(Clock(), turns=5)
    found = await asyncio.gather(*(rail.check(turn("a")) for _ in range(20)))
    assert [verdict.action for verdict in found].count("allow") == 5
