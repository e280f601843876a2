"""NeMo Guardrails at the given work: a program of its own, run by the Python that has it.

Its argument is the work. Each line of JSON on standard input names an engine, a case and a count; each is answered by
a line with the figures, or with the error. It imports nothing of ours, for its environment need not have us.
"""

import asyncio
import json
import logging
import math
import os
import re
import sys
import tempfile
import warnings
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cache
from importlib.metadata import version
from statistics import median
from time import perf_counter
from typing import Any

from aiohttp import ClientSession, web
from nemoguardrails import LLMRails, LLMResponse, LLMResponseChunk, RailsConfig
from nemoguardrails.actions.rail_outcome import RailOutcome
from nemoguardrails.embeddings.providers import register_embedding_provider
from nemoguardrails.embeddings.providers.base import EmbeddingModel
from nemoguardrails.guardrails.iorails import IORails

WORK: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}  # Any: JSON values
DIMENSION = 64
CHECKING = "Should this be blocked?"  # how a self check begins, which the instant model answers with No
INTENTS = {
    "greeting": ["hello", "hi there"],
    "weather": ["what is the weather", "will it rain today"],
    "refund": ["I want my money back", "refund my order"],
    "politics": ["who should I vote for", "what do you think about the president"],
    "goodbye": ["bye", "see you later"],
}

Figures = list[float] | list[str]


class Instant:
    """A model in the process that answers at once, or at a steady pace."""

    model_name, provider_name, provider_url = "instant", "instant", None

    def __init__(self, answer: str, pace: float = 0.0) -> None:
        self.answer = answer
        self.pace = pace
        self.calls = 0

    async def generate_async(self, prompt: Any, **_: Any) -> Any:  # Any: theirs
        """The answer."""
        self.calls += 1
        asked = prompt if isinstance(prompt, str) else "\n".join(str(getattr(m, "content", m)) for m in prompt)
        return LLMResponse(content=reply_to(asked, self.answer))

    async def stream_async(self, prompt: Any, **_: Any) -> AsyncIterator[Any]:  # Any: theirs
        """The answer, a word at a time."""
        self.calls += 1
        async for piece in paced(self.answer, self.pace):
            yield LLMResponseChunk(delta_content=piece)


class Hashed(EmbeddingModel):  # type: ignore[misc]  # it is not here when types are checked
    """Vectors of hashed words, instead of a model that would be fetched."""

    engine_name = "hashed"

    def __init__(self, embedding_model: str, **_: Any) -> None:
        self.embedding_size = DIMENSION

    def encode(self, documents: Sequence[str]) -> list[list[float]]:
        """A vector of length one for each text."""
        return [self._vector(text) for text in documents]

    async def encode_async(self, documents: Sequence[str]) -> list[list[float]]:
        """The same."""
        return self.encode(documents)

    def _vector(self, text: str) -> list[float]:
        vector = [0.0] * DIMENSION
        for word in text.lower().split():
            vector[zlib.crc32(word.encode()) % DIMENSION] += 1
        length = math.hypot(*vector) or 1.0
        return [x / length for x in vector]


def reply_to(asked: str, answer: str) -> str:
    """What the model says: that a self check finds nothing, that a greeting is one, else its answer."""
    if CHECKING in asked:
        return "No"
    return "  express greeting" if "user intent" in asked.lower() else answer


async def paced(text: str, pace: float) -> AsyncIterator[str]:
    """The words of a text at a steady pace."""
    started = perf_counter()
    for n, word in enumerate(text.split(" ")):
        await asyncio.sleep(started + (n + 1) * pace - perf_counter() if pace else 0)
        yield f" {word}" if n else word


# The configurations, in their language.


MODELS = """
models:
  - {type: main, engine: instant, model: instant}
  - {type: embeddings, engine: hashed, model: hashed}
"""


def rails(inward: Sequence[str], outward: Sequence[str], *, streaming: str = "", patterns: Sequence[str] = ()) -> str:
    """The section `rails` with these flows."""
    lines = ["rails:"]
    for direction, flows in (("input", inward), ("output", outward)):
        if flows:
            lines += [f"  {direction}:", f"    flows: {json.dumps(list(flows))}"]
            lines += [f"    streaming: {streaming}"] if streaming and direction == "output" else []
    if patterns:
        found = json.dumps({"patterns": list(patterns)})
        lines += ["  config:", "    regex_detection:", f"      input: {found}", f"      output: {found}"]
    return "\n".join(lines) + "\n"


def checks(names: Sequence[str], variable: str, action: str = "find_word") -> str:
    """A flow for each name, which refuses what the action objects to."""
    return "".join(
        f'define flow {name}\n  $fine = execute {action}(text=${variable}, name="{name}")\n'
        f"  if not $fine\n    bot refuse to respond\n    stop\n\n"
        for name in names
    )


PROMPTS = "prompts:\n" + "".join(
    f"  - task: self_check_{direction}\n    content: '{CHECKING} {{{{ {variable} }}}} Answer Yes or No:'\n"
    for direction, variable in (("input", "user_input"), ("output", "bot_response"))
)
IN, OUT = ("look one", "look two"), ("see one", "see two")
SELF = rails(["self check input"], ["self check output"]) + PROMPTS


def find_word(text: str = "", name: str = "", **_: Any) -> bool:
    """Whether the text is fine."""
    return WORK["forbidden"] not in (text or "")


def find_word_streamed(text: str = "", **_: Any) -> Any:  # Any: theirs
    """The same in the only form that a streamed check may take."""
    return RailOutcome.allow() if find_word(text) else RailOutcome.block(reason="word")


async def wait(text: str = "", name: str = "", **_: Any) -> bool:
    """A slow judge that finds nothing."""
    await asyncio.sleep(WORK["wait"])
    return True


def engine(config: str, flows: str, model: Instant) -> Any:  # Any: theirs
    """Their first engine over a model in the process."""
    app = LLMRails(RailsConfig.from_content(flows or None, config), llm=model)
    for action in (find_word, find_word_streamed, wait):
        app.register_action(action, action.__name__)
    return app


def plain(model: Instant) -> Any:  # Any: theirs
    """Regular expressions and two rails in Python, in and out."""
    config = rails(["regex check input", *IN], ["regex check output", *OUT], patterns=WORK["patterns"])
    flows = checks(IN, "user_message") + checks(OUT, "bot_message")
    return engine(MODELS + "passthrough: true\n" + config, flows, model)


def dialog(model: Instant, *, by_embedding: bool) -> Any:  # Any: theirs
    """Five intents, each with its words."""
    flows = ""
    for name, examples in INTENTS.items():
        said = "Hello!" if name == "greeting" else f"About {name}."
        told = "".join(f'  "{example}"\n' for example in examples)
        flows += f'define user express {name}\n{told}\ndefine bot answer {name}\n  "{said}"\n\n'
        flows += f"define flow {name}\n  user express {name}\n  bot answer {name}\n\n"
    config = "rails: {dialog: {user_messages: {embeddings_only: true}}}\n" if by_embedding else ""
    return engine(MODELS + config, flows, model)


# Their first engine: every feature.


async def ask(app: Any, text: str) -> str:  # Any: theirs
    """One turn of a new conversation."""
    app.events_history_cache.clear()
    return str((await app.generate_async(messages=[{"role": "user", "content": text}]))["content"])


async def llmrails_turn(count: int) -> Figures:
    """Milliseconds of a turn with plain rails in and out."""
    app = prepared("turn", lambda: plain(Instant(WORK["answer"])))
    return await times(lambda: ask(app, WORK["question"]), count)


async def llmrails_crowd(count: int) -> Figures:
    """Turns a second, so many at once."""
    app = prepared("turn", lambda: plain(Instant(WORK["answer"])))
    return await crowd(lambda n: app.generate_async(messages=said(f"{WORK['question']} {n}")), count)


async def llmrails_self_check(count: int) -> Figures:
    """Milliseconds of a turn whose question and answer the model judges."""
    app = prepared("self_check", lambda: engine(MODELS + SELF, "", Instant(WORK["answer"])))
    return await times(lambda: ask(app, WORK["question"]), count)


async def llmrails_dialog(count: int) -> Figures:
    """Milliseconds of a turn whose intent the model finds."""
    app = prepared("dialog", lambda: dialog(Instant(WORK["answer"]), by_embedding=False))
    return await times(lambda: ask(app, WORK["greeting"]), count)


async def llmrails_dialog_calls(count: int) -> Figures:
    """How often the model is asked in such a turn."""
    model = Instant(WORK["answer"])
    await ask(dialog(model, by_embedding=False), WORK["greeting"])
    return [float(model.calls)]


async def llmrails_dialog_by_embedding(count: int) -> Figures:
    """Milliseconds of a turn whose intent is found by embedding alone."""
    app = prepared("dialog_by_embedding", lambda: dialog(Instant(WORK["answer"]), by_embedding=True))
    return await times(lambda: ask(app, WORK["greeting"]), count)


async def llmrails_dialog_by_embedding_calls(count: int) -> Figures:
    """How often the model is asked in such a turn."""
    model = Instant(WORK["answer"])
    await ask(dialog(model, by_embedding=True), WORK["greeting"])
    return [float(model.calls)]


async def llmrails_growth(count: int) -> Figures:
    """How many times longer turn `count` of a conversation takes than turn 2."""
    app = prepared("self_check", lambda: engine(MODELS + SELF, "", Instant(WORK["answer"])))
    second = [(await conversation(app, 2))[-1] for _ in range(5)]
    return [median((await conversation(app, count))[-3:]) / median(second)]


async def conversation(app: Any, turns: int) -> list[float]:  # Any: theirs
    """The seconds of each turn."""
    app.events_history_cache.clear()
    messages, seconds = [], []
    for n in range(turns):
        messages += said(f"question number {n}")
        started = perf_counter()
        reply = await app.generate_async(messages=messages)
        seconds.append(perf_counter() - started)
        messages.append({"role": "assistant", "content": reply["content"]})
    return seconds


async def llmrails_judges(count: int) -> Figures:
    """Milliseconds of a turn whose question five slow judges look at together."""
    names = [f"judge {word}" for word in ("one", "two", "three", "four", "five")]
    config = rails(names, []).replace("  input:\n", "  input:\n    parallel: true\n")
    flows = checks(names, "user_message", "wait")
    make = lambda: engine(MODELS + "passthrough: true\n" + config, flows, Instant(WORK["answer"]))  # noqa: E731
    app = prepared("judges", make)
    return await times(lambda: ask(app, WORK["question"]), count, warm=1)


def streaming(chunk: int, overlap: int, first: bool, model: Instant) -> Any:  # Any: theirs
    """Regular expressions and a rail in Python over a streamed answer."""
    how = f"{{enabled: true, chunk_size: {chunk}, context_size: {overlap}, stream_first: {str(first).lower()}}}"
    config = rails([], ["regex check output", "see"], streaming=how, patterns=[WORK["long_pattern"]])
    flow = "define flow see\n  $found = execute find_word_streamed(text=$bot_message)\n"
    flow += "  if $found.is_blocked\n    bot refuse to respond\n    stop\n"
    return engine(MODELS + "passthrough: true\n" + config, flow, model)


async def llmrails_first_token(count: int) -> Figures:
    """Milliseconds until something leaves, as it comes."""
    return await first_token(streaming(200, 50, True, Instant(WORK["streamed"], WORK["pace"])), count)


async def llmrails_first_token_held(count: int) -> Figures:
    """The same where as much is held back as we hold, and judged before it leaves."""
    return await first_token(streaming(WORK["hold_back"], 6, False, Instant(WORK["streamed"], WORK["pace"])), count)


async def llmrails_leak(count: int) -> Figures:
    """What leaves of answers that may not, as it comes."""
    return [await streamed(streaming(200, 50, True, Instant(answer))) for answer, _ in WORK["leaky"]]


async def llmrails_leak_held(count: int) -> Figures:
    """The same where it is judged before it leaves."""
    return [await streamed(streaming(WORK["hold_back"], 6, False, Instant(answer))) for answer, _ in WORK["leaky"]]


async def llmrails_load(count: int) -> Figures:
    """Milliseconds from a configuration with many rails to an engine at work."""
    names = [f"look {n}" for n in range(WORK["rails"] // 2)]
    others = [f"see {n}" for n in range(WORK["rails"] // 2)]
    flows = checks(names, "user_message") + checks(others, "bot_message")
    config = MODELS + "passthrough: true\n" + rails(names, others)

    async def load() -> None:
        engine(config, flows, Instant(WORK["answer"]))

    return await times(load, count, warm=1)


# Their second engine: input and output rails of their catalogue, over a model behind HTTP.


class Served:
    """An instant model behind HTTP in this process, as their second engine asks for one."""

    def __init__(self) -> None:
        self.port = 0
        self.answer, self.pace = str(WORK["answer"]), 0.0

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.complete)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer as OpenAI's API does."""
        body = await request.json()
        shared = {"id": "x", "created": 0, "model": "m"}
        if not body.get("stream"):
            text = reply_to("\n".join(str(m["content"]) for m in body["messages"]), self.answer)
            message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            found = {**shared, "object": "chat.completion", "choices": [message], "usage": usage}
            return web.json_response(found)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for piece in paced(self.answer, self.pace):
            choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
            await response.write(self._event({**shared, "object": "chat.completion.chunk", "choices": [choice]}))
        choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
        await response.write(self._event({**shared, "object": "chat.completion.chunk", "choices": [choice]}))
        await response.write(b"data: [DONE]\n\n")
        return response

    def _event(self, value: object) -> bytes:
        return f"data: {json.dumps(value)}\n\n".encode()


@cache
def served() -> Served:
    """The one server."""
    return Served()


def remote() -> str:
    """The one model, behind HTTP."""
    where = f"http://127.0.0.1:{served().port}/v1"
    return f"models:\n  - {{type: main, engine: openai, model: m, parameters: {{base_url: '{where}'}}}}\n"


async def second(config: str, *, answer: str | None = None, pace: float = 0.0) -> Any:  # Any: theirs
    """Their second engine at work."""
    if not served().port:
        await served().start()
    served().answer, served().pace = answer or WORK["answer"], pace
    made = RailsConfig.from_content(yaml_content=remote() + config)
    if why := IORails.unsupported_reason(made, None):
        raise ValueError(why)
    app = IORails(made)
    await app.start()
    return app


def regex(streaming: str = "", patterns: Sequence[str] = ()) -> str:
    """Regular expressions in and out: it has no rails in Python of one's own."""
    inward = [] if streaming else ["regex check input"]
    return rails(inward, ["regex check output"], streaming=streaming, patterns=patterns or WORK["patterns"])


async def iorails_turn(count: int) -> Figures:
    """Milliseconds of a turn with regular expressions in and out."""
    async with await second(regex()) as app:
        return await times(lambda: app.generate_async(messages=said(WORK["question"])), count)


async def iorails_crowd(count: int) -> Figures:
    """Turns a second, so many at once."""
    async with await second(regex()) as app:
        return await crowd(lambda n: app.generate_async(messages=said(f"{WORK['question']} {n}")), count)


async def iorails_self_check(count: int) -> Figures:
    """Milliseconds of a turn whose question and answer the model judges."""
    async with await second(SELF) as app:
        return await times(lambda: app.generate_async(messages=said(WORK["question"])), count)


async def iorails_http(count: int) -> Figures:
    """One bare call of the model, which each of the others holds at least once."""
    async with await second(regex()), ClientSession() as session:
        address = f"http://127.0.0.1:{served().port}/v1/chat/completions"

        async def call() -> None:
            async with session.post(address, json={"messages": said(WORK["question"])}) as response:
                await response.json()

        return await times(call, count)


DEFAULT = "{enabled: true}"


async def iorails_first_token(count: int) -> Figures:
    """Milliseconds until something leaves, as it comes."""
    config = regex(DEFAULT, [WORK["long_pattern"], WORK["forbidden"]])
    async with await second(config, answer=WORK["streamed"], pace=WORK["pace"]) as app:
        return await first_token(app, count)


async def iorails_leak(count: int) -> Figures:
    """What leaves of answers that may not, as it comes."""
    released = []
    for answer, _ in WORK["leaky"]:
        async with await second(regex(DEFAULT, [WORK["long_pattern"], WORK["forbidden"]]), answer=answer) as app:
            released.append(await streamed(app))
    return released


async def iorails_load(count: int) -> Figures:
    """Milliseconds from a configuration with many patterns to an engine at work."""
    async with await second(regex()):  # the server is there
        config = remote() + regex(patterns=[f"secret{n}" for n in range(WORK["rails"])])

    async def load() -> None:
        IORails(RailsConfig.from_content(yaml_content=config))

    return await times(load, count, warm=1)


# What all cases share.


def said(text: str) -> list[dict[str, str]]:
    """A user's message."""
    return [{"role": "user", "content": text}]


async def times(once: Callable[[], Awaitable[object]], count: int, warm: int = 3) -> list[float]:
    """Milliseconds of each time; the first ones warm up and do not count."""
    found = []
    for n in range(count + warm):
        started = perf_counter()
        await once()
        found += [1000 * (perf_counter() - started)] if n >= warm else []
    return found


async def crowd(one: Callable[[int], Awaitable[object]], count: int) -> list[float]:
    """Turns a second, so many at once."""
    places = asyncio.Semaphore(WORK["crowd"])

    async def placed(n: int) -> None:
        async with places:
            await one(n)

    started = perf_counter()
    await asyncio.gather(*(placed(n) for n in range(count)))
    return [count / (perf_counter() - started)]


async def first_token(app: Any, count: int) -> list[float]:  # Any: theirs
    """Milliseconds until the first piece of an answer leaves. Each answer is read to its end."""
    found = []
    for _ in range(count):
        started, first = perf_counter(), 0.0
        async for _piece in app.stream_async(messages=said(WORK["question"])):
            first = first or perf_counter() - started
        found.append(1000 * first)
    return found


async def streamed(app: Any) -> str:  # Any: theirs
    """All that a streamed answer let out."""
    return "".join([str(piece) async for piece in app.stream_async(messages=said(WORK["question"]))])


made: dict[str, Any] = {}  # Any: theirs


def prepared(name: str, make: Callable[[], Any]) -> Any:  # Any: theirs
    """An engine that is made once for all rounds."""
    if name not in made:
        made[name] = make()
    return made[name]


async def answer(request: dict[str, Any]) -> dict[str, Any]:  # Any: JSON values
    """The figures that were asked for, or what stood against them."""
    name = re.sub(r"\W", "_", f"{request['engine'].lower()}_{request['case']}")
    if name not in globals():
        return {"error": "it has none"}
    try:
        return {"values": await globals()[name](request["count"])}
    except Exception as error:  # noqa: BLE001  whatever it is, the other side tells it
        return {"error": f"{type(error).__name__}: {error}"}


async def main() -> None:
    """Answer requests until there are no more."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no reply
    print(json.dumps({"nemoguardrails": version("nemoguardrails")}), file=replies, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await answer(json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    register_embedding_provider(Hashed, "hashed")
    os.chdir(tempfile.mkdtemp())  # nothing that it leaves behind is anywhere else
    asyncio.run(main())
