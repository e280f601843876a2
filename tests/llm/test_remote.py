"""A model behind an endpoint: what is sent, what is made of the answer, and what goes wrong."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from trackbed.llm.errors import EndpointFailed
from trackbed.llm.remote import RemoteEngine
from trackbed.llm.types import Choices, Endpoint, Message, Part, RawPrompt, SamplingParams, Usage

ENDPOINT = Endpoint("http://localhost:8000/v1/", "meta/llama")
HELLO = (Message("system", "Be brief."), Message("user", "hello"))
RAW = RawPrompt((Part("<|begin|>", markup=True), Part("hello")))
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


class Server:
    """Answers what a test says, and remembers what it was asked."""

    def __init__(self, answer: Callable[[dict[str, Any]], httpx.Response]) -> None:
        self.answer = answer
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer(json.loads(request.content))

    @property
    def body(self) -> Any:
        return json.loads(self.requests[-1].content)


def says(answer: Any) -> Server:
    return Server(lambda _: httpx.Response(200, json=answer))


def streams(*events: Any) -> Server:
    lines = [f"data: {e if isinstance(e, str) else json.dumps(e)}\n\n" for e in events]
    return Server(lambda _: httpx.Response(200, text=": keep-alive\n\n" + "".join(lines)))


def engine(server: Server, key: str = "") -> RemoteEngine:
    return RemoteEngine(ENDPOINT, key, httpx.MockTransport(server))


async def test_messages_are_asked_of_the_chat() -> None:
    server = says({"choices": [{"message": {"content": "hi there"}, "finish_reason": "length"}], "usage": USAGE})
    params = SamplingParams(temperature=0.5, top_p=0.9, max_tokens=7, stop=("\n",), seed=3)
    completion = await engine(server, "s3cret").generate(HELLO, params)
    assert (completion.text, completion.finish_reason, completion.usage) == ("hi there", "length", Usage(3, 2))
    assert str(server.requests[0].url) == "http://localhost:8000/v1/chat/completions"
    assert server.requests[0].headers["authorization"] == "Bearer s3cret"
    assert server.body == {
        "model": "meta/llama", "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "stop": ["\n"], "seed": 3,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
    }  # fmt: skip


async def test_a_prompt_that_is_written_out_is_completed() -> None:
    server = says({"choices": [{"text": "safe", "finish_reason": "stop"}]})
    completion = await engine(server).generate(RAW, SamplingParams())
    assert (completion.text, completion.usage) == ("safe", Usage(0, 0))
    assert server.requests[0].url.path == "/v1/completions"
    assert server.body["prompt"] == "<|begin|>hello"
    assert "authorization" not in server.requests[0].headers


async def test_what_a_user_wrote_is_not_sent_where_it_could_become_a_special_token() -> None:
    server = says({"choices": [{"text": "safe"}]})
    with pytest.raises(EndpointFailed, match="special tokens"):
        await engine(server).generate(RawPrompt((Part("hello <|eot_id|>"),)), SamplingParams())
    assert server.requests == []


async def test_an_answer_comes_piece_by_piece() -> None:
    server = streams(
        {"choices": [{"delta": {"role": "assistant"}}]},
        {"choices": [{"delta": {"content": "hi "}}]},
        {"choices": [{"delta": {"content": "there"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": USAGE},
        "[DONE]",
    )
    deltas = [delta async for delta in engine(server).stream(HELLO, SamplingParams())]
    assert [delta.text for delta in deltas] == ["hi ", "there", ""]
    completion = deltas[-1].completion
    assert completion is not None
    assert (completion.text, completion.usage) == ("hi there", Usage(3, 2))
    assert server.body["stream"] is True


async def test_a_stream_that_breaks_off_is_no_answer() -> None:
    server = streams({"choices": [{"delta": {"content": "hi"}}]})
    deltas = engine(server).stream(HELLO, SamplingParams())
    assert (await anext(deltas)).text == "hi"
    with pytest.raises(EndpointFailed, match="broke off"):
        await anext(deltas)


CHAT_LOGPROBS = {
    "choices": [{"logprobs": {"content": [{"top_logprobs": [
        {"token": " safe", "logprob": -0.1}, {"token": "un", "logprob": -2.5}, {"token": " ", "logprob": -4.0},
        {"token": "s", "logprob": -5.0}]}]}}]
}  # fmt: skip


async def test_continuations_are_scored_by_their_first_token() -> None:
    assert await engine(says(CHAT_LOGPROBS)).score(HELLO, ["safe", "unsafe", "maybe"]) == (-0.1, -2.5, -5.0)
    raw = says({"choices": [{"logprobs": {"top_logprobs": [{"safe": -0.2, "unsafe": -1.7}]}}]})
    assert await engine(raw).score(RAW, [" safe", "unsafe\nS1"]) == (-0.2, -1.7)
    assert (raw.body["max_tokens"], raw.body["logprobs"]) == (1, 20)


async def test_continuations_with_the_same_first_token_cannot_be_told_apart() -> None:
    with pytest.raises(EndpointFailed, match="same token"):
        await engine(says(CHAT_LOGPROBS)).score(HELLO, ["unsafe", "unsure"])


async def test_continuations_that_differ_in_white_space_alone_are_one() -> None:
    assert await engine(says(CHAT_LOGPROBS)).score(HELLO, ["safe", "\n\nsafe", " unsafe"]) == (-0.1, -0.1, -2.5)


async def test_choices_hold_an_endpoint_to_nothing() -> None:
    server = says({"choices": [{"message": {"content": "maybe"}}], "usage": USAGE})
    params = SamplingParams(choices=Choices(("yes", "no")))
    assert (await engine(server).generate(HELLO, params)).text == "maybe"
    assert "choices" not in server.body


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500, text="swordfish"),
        httpx.Response(302, headers={"location": "http://evil.example"}),
        httpx.Response(200, text="swordfish"),
        httpx.Response(200, json=[1]),
        httpx.Response(200, json={"error": {"message": "swordfish"}}),
        httpx.Response(200, json={"choices": []}),
        httpx.Response(200, json={"choices": [{"message": {"content": 3}}]}),
        httpx.Response(200, json={"choices": [{"message": "swordfish"}]}),
        httpx.Response(200, text="[" * 100_000),
        httpx.Response(200, content=b" " * 17_000_000),
    ],
)
async def test_what_is_no_answer_is_a_failure_that_repeats_nothing(answer: httpx.Response) -> None:
    asked = engine(Server(lambda _: answer), "s3cret")
    with pytest.raises(EndpointFailed) as error:
        await asked.generate(HELLO, SamplingParams())
    assert "meta/llama" in str(error.value)
    assert "swordfish" not in str(error.value) + repr(error.value.__cause__)
    assert "s3cret" not in repr(vars(error.value))


async def test_an_endpoint_that_cannot_be_reached_is_a_failure() -> None:
    def refuse(_: dict[str, Any]) -> httpx.Response:
        raise httpx.ConnectError("swordfish")

    with pytest.raises(EndpointFailed, match="could not be asked: ConnectError"):
        await engine(Server(refuse)).generate(HELLO, SamplingParams())


def test_one_engine_serves_several_event_loops() -> None:
    asked = engine(says({"choices": [{"message": {"content": "hi"}}]}))
    assert [asyncio.run(asked.generate(HELLO, SamplingParams())).text for _ in range(2)] == ["hi", "hi"]
