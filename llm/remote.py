"""A model behind an endpoint that speaks OpenAI's protocol, such as vLLM, NIM or TensorRT-LLM, as a Generator.

It knows requests and answers. It knows no policy; who opens one has configured the network by naming it. What the
endpoint says of an error is not passed on: it may repeat what it was sent.
API: https://platform.openai.com/docs/api-reference/chat, https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from trackbed.llm.errors import EndpointFailed
from trackbed.llm.types import Completion, Delta, Endpoint, FinishReason, Prompt, RawPrompt, SamplingParams, Usage

TIMEOUT = httpx.Timeout(120.0, connect=10.0)  # seconds; a rail's own timeout and a turn's budget are shorter
MOST_BYTES = 16_777_216  # of one answer
LIKELIEST = 20  # tokens whose log-probabilities are asked for: as many as vLLM gives


class RemoteEngine:
    """Asks an endpoint. Raises EndpointFailed where it does not answer, or not as the protocol says.

    The protocol has no way to allow some tokens alone, so `choices` hold no endpoint to anything.
    """

    def __init__(self, endpoint: Endpoint, key: str = "", transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.endpoint = endpoint
        self._key = key
        self._transport = transport
        # A connection belongs to the event loop that opened it.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        """Answer the prompt."""
        answer = await self._answer(_path(prompt), self._request(prompt, params))
        with self._understood():
            choice = answer["choices"][0]
            text = choice["text"] if isinstance(prompt, RawPrompt) else choice["message"]["content"] or ""
            return Completion(_text(text), _reason(choice), _usage(answer))
        raise AssertionError

    async def stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """Answer the prompt piece by piece."""
        request = self._request(prompt, params) | {"stream": True, "stream_options": {"include_usage": True}}
        pieces, reason, usage = list[str](), "stop", Usage(0, 0)
        async for event in self._events(_path(prompt), request):
            with self._understood():
                usage = _usage(event) if event.get("usage") else usage
                for choice in event.get("choices", ()):
                    said = choice.get("text") if isinstance(prompt, RawPrompt) else choice["delta"].get("content")
                    reason = choice.get("finish_reason") or reason
                    if said:
                        pieces.append(_text(said))
                        yield Delta(said)
        yield Delta("", Completion("".join(pieces), _reason({"finish_reason": reason}), usage))

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[float, ...]:
        """The log-probability of the first token of each continuation; an endpoint tells no more.

        One that is not among the likeliest has at most the probability of the last of these, and is given that.
        Raises EndpointFailed too where two continuations begin with the same token.
        """
        request = self._request(prompt, SamplingParams(max_tokens=1))
        raw = isinstance(prompt, RawPrompt)
        request |= {"logprobs": LIKELIEST} if raw else {"logprobs": True, "top_logprobs": LIKELIEST}
        answer = await self._answer(_path(prompt), request)
        with self._understood():
            told = answer["choices"][0]["logprobs"]
            likeliest: dict[str, float] = (
                dict(told["top_logprobs"][0])
                if raw
                else {row["token"]: float(row["logprob"]) for row in told["content"][0]["top_logprobs"]}
            )
            first = [_first(text, likeliest) for text in continuations]
            # White space is not looked at, so continuations that differ in it alone are one.
            told_apart = {text.strip(): token for text, token in zip(continuations, first, strict=True) if token}
            if len(set(told_apart.values())) < len(told_apart):
                raise EndpointFailed(f"{self._called} cannot tell continuations apart that begin with the same token")
            return tuple(likeliest[token] if token is not None else min(likeliest.values()) for token in first)
        raise AssertionError

    @property
    def _called(self) -> str:
        return f"the model {self.endpoint.model!r} at {self.endpoint.url}"

    def _request(self, prompt: Prompt, params: SamplingParams) -> dict[str, Any]:  # Any: JSON
        request: dict[str, Any] = {
            "model": self.endpoint.model,
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
        }
        if params.stop:
            request["stop"] = list(params.stop)
        if params.seed is not None:
            request["seed"] = params.seed
        if isinstance(prompt, RawPrompt):
            # Whatever looks like a special token becomes one at the other end, whoever wrote it.
            if any("<|" in part.text for part in prompt.parts if not part.markup):
                raise EndpointFailed(f"the prompt holds a text that {self._called} could take for special tokens")
            return request | {"prompt": "".join(part.text for part in prompt.parts)}
        return request | {"messages": [{"role": m.role, "content": m.content} for m in prompt]}

    async def _answer(self, path: str, request: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON
        body = bytearray()
        async with self._open(path, request) as response:
            async for chunk in response.aiter_bytes():
                body += chunk
                self._check_size(len(body))
        return self._parsed(body.decode("utf-8", "replace"))

    async def _events(self, path: str, request: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:  # Any: JSON
        """The events of a streamed answer (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
        size = 0
        async with self._open(path, request) as response:
            async for line in response.aiter_lines():
                size += len(line)
                self._check_size(size)
                field, _, value = line.partition(":")
                if field == "data" and value.strip() == "[DONE]":
                    return
                if field == "data":
                    yield self._parsed(value)
        raise EndpointFailed(f"{self._called} broke off its answer")

    @asynccontextmanager
    async def _open(self, path: str, request: Mapping[str, Any]) -> AsyncIterator[httpx.Response]:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        url = f"{self.endpoint.url.rstrip('/')}/{path}"
        try:
            async with self._client().stream("POST", url, json=request, headers=headers) as response:
                if response.status_code != 200:
                    raise EndpointFailed(f"{self._called} answered with the status {response.status_code}")
                yield response
        except httpx.HTTPError as error:
            raise EndpointFailed(f"{self._called} could not be asked: {type(error).__name__}") from None

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            # Nothing of it is taken from the environment: the policy names the endpoint, and the settings its key.
            self._clients[loop] = httpx.AsyncClient(timeout=TIMEOUT, trust_env=False, transport=self._transport)
        return self._clients[loop]

    def _parsed(self, text: str) -> dict[str, Any]:  # Any: JSON
        with self._understood():
            found = json.loads(text)
            if not isinstance(found, dict) or "error" in found:
                raise EndpointFailed(f"{self._called} answered with an error")
            return found
        raise AssertionError

    def _check_size(self, size: int) -> None:
        if size > MOST_BYTES:
            raise EndpointFailed(f"{self._called} answered with more than {MOST_BYTES} bytes")

    def _understood(self) -> "_Understood":
        return _Understood(self._called)


class _Understood:
    """Takes what does not follow the protocol for a failure of the endpoint."""

    def __init__(self, called: str) -> None:
        self.called = called

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, KeyError | IndexError | TypeError | ValueError | AttributeError | RecursionError):
            raise EndpointFailed(f"{self.called} answered what is not OpenAI's protocol") from None


def _path(prompt: Prompt) -> str:
    return "completions" if isinstance(prompt, RawPrompt) else "chat/completions"


def _text(said: object) -> str:
    if not isinstance(said, str):
        raise TypeError
    return said


def _reason(choice: Mapping[str, Any]) -> FinishReason:
    return "length" if choice.get("finish_reason") == "length" else "stop"


def _usage(answer: Mapping[str, Any]) -> Usage:
    """The tokens; none where the endpoint does not say."""
    told = answer.get("usage") or {}
    return Usage(int(told.get("prompt_tokens", 0)), int(told.get("completion_tokens", 0)))


def _first(text: str, likeliest: Mapping[str, float]) -> str | None:
    """The likeliest token that a text begins with, white space aside; None where none of these is."""
    begins = [token for token in likeliest if token.strip() and text.strip().startswith(token.strip())]
    return max(begins, key=lambda token: likeliest[token], default=None)
