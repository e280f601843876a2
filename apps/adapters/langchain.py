"""trackbed in LangChain: our runtime as a chat model, our index as a retriever, a policy around any chain.

```
guarded = Rails.from_policy("support.yaml") | model
```

Input rails judge the prompt before the model sees it, output rails judge the answer before the caller does.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForLLMRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompt_values import ChatPromptValue, PromptValue, StringPromptValue
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import ConfigDict, Field

from trackbed.apps.adapters.threads import iterate, wait_for
from trackbed.apps.build import build_judge
from trackbed.apps.schemas import verdict_json
from trackbed.apps.settings import Settings, load_settings
from trackbed.llm.catalogue import locate
from trackbed.llm.engine import Engine
from trackbed.llm.types import Completion, Generator, Message, Role, SamplingParams
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import load_policy
from trackbed.rails.types import Turn, Verdict
from trackbed.retrieval.types import Embedder, Passage, Retriever

ROLES: dict[type[BaseMessage], Role] = {
    SystemMessage: "system",
    HumanMessage: "user",
    AIMessage: "assistant",
    ToolMessage: "tool",
}


class ChatTrackbed(BaseChatModel):
    """A chat model over trackbed's runtime, or anything else that generates text. Its rails are `Rails`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    generator: Any  # a Generator, which pydantic cannot check
    model_name: str = "trackbed"
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop: list[str] = Field(default_factory=list)
    seed: int | None = None

    @classmethod
    def from_model(cls, name: str, settings: Settings | None = None, **parameters: Any) -> Self:
        """The chat model of a catalogue name or a path, loaded. Raises LLMError."""
        settings = settings or load_settings()
        engine = Engine.open(locate(name, settings.models), settings.engine)
        return cls(generator=engine, model_name=name, **parameters)

    @property
    def _llm_type(self) -> str:
        return "trackbed"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, "temperature": self.temperature, "max_tokens": self.max_tokens}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return wait_for(lambda: self._agenerate(messages, stop, None, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        generator: Generator = self.generator
        completion = await generator.generate(our_messages(messages), self._params(stop, kwargs))
        message = AIMessage(
            content=completion.text,
            response_metadata=self._metadata(completion),
            usage_metadata=_usage(completion),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        generator: Generator = self.generator
        for text, completion in iterate(generator.stream(our_messages(messages), self._params(stop, kwargs))):
            chunk = self._chunk(text, completion)
            if run_manager:
                run_manager.on_llm_new_token(text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        generator: Generator = self.generator
        async with aclosing(generator.stream(our_messages(messages), self._params(stop, kwargs))) as deltas:
            async for text, completion in deltas:
                chunk = self._chunk(text, completion)
                if run_manager:
                    await run_manager.on_llm_new_token(text, chunk=chunk)
                yield chunk

    def _params(self, stop: list[str] | None, given: dict[str, Any]) -> SamplingParams:
        """The call's own parameters over the model's. Raises ValueError on one that there is not."""
        known = {"temperature", "top_p", "max_tokens", "seed"}
        if unknown := sorted(given.keys() - known):
            raise ValueError(
                f"{unknown[0]!r} is not a parameter of ChatTrackbed; it has: {', '.join(sorted(known))}, stop"
            )
        chosen = {key: given.get(key, getattr(self, key)) for key in known}
        return SamplingParams(**chosen, stop=tuple(stop if stop is not None else self.stop))

    def _chunk(self, text: str, completion: Completion | None) -> ChatGenerationChunk:
        message = AIMessageChunk(content=text)
        if completion:
            message = AIMessageChunk(
                content=text,
                response_metadata=self._metadata(completion),
                usage_metadata=_usage(completion),
                chunk_position="last",
            )
        return ChatGenerationChunk(message=message)

    def _metadata(self, completion: Completion) -> dict[str, Any]:
        return {"model_name": self.model_name, "finish_reason": completion.finish_reason}


class TrackbedEmbeddings(Embeddings):
    """Any embedder of trackbed as LangChain's."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector of unit length a text."""
        return self.embedder.embed(texts).tolist() if texts else []

    def embed_query(self, text: str) -> list[float]:
        """The text's vector, of unit length."""
        return self.embed_documents([text])[0]


class TrackbedRetriever(BaseRetriever):
    """Any retriever of trackbed as LangChain's. A document's metadata tell source, span and score."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    retriever: Any  # a Retriever, which pydantic cannot check
    k: int = 4

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        retriever: Retriever = self.retriever
        return [document(p) for p in wait_for(lambda: retriever.search(query, k or self.k))]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        retriever: Retriever = self.retriever
        return [document(p) for p in await retriever.search(query, k or self.k)]


class Rails(Runnable[Any, Any]):
    """A policy's rails, to be put around a chat model or a chain: `rails | model`, or `rails.wrap(chain)`.

    Only the input and output rails run; a grounding rail has no passages here and blocks. The system messages
    of a chain are its developer's and are not judged. `prompt | rails | model` would leave the output unjudged
    and is refused: write `prompt | (rails | model)`.
    """

    def __init__(self, pipeline: Pipeline, close: ExitStack | None = None) -> None:
        self.pipeline = pipeline
        self._close = close or ExitStack()

    @classmethod
    def from_policy(cls, policy: str | Path, settings: Settings | None = None) -> Self:
        """The rails of a policy, by its name or its file; models that its rails ask are loaded. Raises PolicyError."""
        stack = ExitStack()
        loaded = load_policy(policy)
        return cls(stack.enter_context(build_judge(settings or load_settings(), loaded, "input", "output")), stack)

    def close(self) -> None:
        """Close the models that the rails ask."""
        self._close.close()

    def wrap(self, chain: Runnable[Any, Any], *, input_key: str = "input", output_key: str = "output") -> "Guarded":
        """The chain between the rails. Where it takes or gives a dict, the keys say which text is judged."""
        return Guarded(self.pipeline, chain, input_key, output_key)

    def __or__(self, other: Any) -> Any:
        """`rails | model` is `rails.wrap(model)`."""
        return self.wrap(other)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Refuse to be a step of a sequence, where what comes after would not be judged."""
        raise TypeError(
            "Rails go around a model: write `rails | model`, `prompt | (rails | model)` or `rails.wrap(chain)`"
        )


class Guarded(Runnable[Any, Any]):
    """A chain between a policy's rails: what goes in and what comes out is judged.

    A refused input never reaches the chain, and the answer is the policy's words of refusal. Streaming waits
    until the whole answer is judged. A message tells the verdicts in `response_metadata`.
    """

    def __init__(self, pipeline: Pipeline, chain: Runnable[Any, Any], input_key: str, output_key: str) -> None:
        self.pipeline = pipeline
        self.chain = chain
        self.input_key = input_key
        self.output_key = output_key

    @property
    def OutputType(self) -> Any:
        """What the chain gives."""
        return self.chain.OutputType

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The chain's answer to the judged input, judged; or words of refusal."""
        turn, asked = wait_for(lambda: self._judge("input", self._turn(input)))
        if asked.action == "block":
            return self._refusal(turn, asked)
        output = self.chain.invoke(self._with(input, turn), config, **kwargs)
        return self._answer(output, asked, *wait_for(lambda: self._judge("output", self._drafted(turn, output))))

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The chain's answer to the judged input, judged; or words of refusal."""
        turn, asked = await self._judge("input", self._turn(input))
        if asked.action == "block":
            return self._refusal(turn, asked)
        output = await self.chain.ainvoke(self._with(input, turn), config, **kwargs)
        return self._answer(output, asked, *await self._judge("output", self._drafted(turn, output)))

    async def _judge(self, stage: Any, turn: Turn) -> tuple[Turn, Verdict]:
        turn, verdict, _ = await self.pipeline.judge(stage, turn)
        return turn, verdict

    def _turn(self, input: Any) -> Turn:
        """What is asked. Raises TypeError where there is no text to judge."""
        asked = input[self.input_key] if isinstance(input, dict) and self.input_key in input else input
        if isinstance(asked, str):
            return Turn(asked)
        messages = _spoken(_messages(asked))
        if not messages:
            raise TypeError("there is no message to judge")
        *history, last = our_messages(messages)
        return Turn(last.content, tuple(history))

    def _with(self, input: Any, turn: Turn) -> Any:
        """The input with the texts as the rails left them."""
        if isinstance(input, dict) and self.input_key in input:
            return {**input, self.input_key: self._with(input[self.input_key], turn)}
        if isinstance(input, str):
            return turn.question
        if isinstance(input, StringPromptValue):
            return StringPromptValue(text=turn.question)
        judged = iter([*(message.content for message in turn.history), turn.question])
        messages = [
            m if isinstance(m, SystemMessage) else m.model_copy(update={"content": next(judged)})
            for m in _messages(input)
        ]
        return ChatPromptValue(messages=messages) if isinstance(input, PromptValue) else messages

    def _drafted(self, turn: Turn, output: Any) -> Turn:
        """The turn with the chain's answer. Raises TypeError where there is no text to judge."""
        said = output[self.output_key] if isinstance(output, dict) and self.output_key in output else output
        if not isinstance(said, (str, AIMessage)):
            raise TypeError(f"the chain gave {type(output).__name__}; what can be judged is text, or a message")
        return replace(turn, draft=said if isinstance(said, str) else text_of(said))

    def _answer(self, output: Any, asked: Verdict, turn: Turn, answered: Verdict) -> Any:
        if answered.action == "block":
            return self._refusal(turn, answered)
        verdict = answered if answered.action == "rewrite" or asked.action == "allow" else asked
        return self._said(output, turn.draft or "", verdict)

    def _said(self, output: Any, text: str, verdict: Verdict) -> Any:
        """The output with this text in place of the chain's."""
        if isinstance(output, dict) and self.output_key in output:
            return {**output, self.output_key: self._said(output[self.output_key], text, verdict)}
        if isinstance(output, str):
            return text
        metadata = {**output.response_metadata, "verdict": verdict_json(verdict)}
        return output.model_copy(update={"content": text, "response_metadata": metadata})

    def _refusal(self, turn: Turn, verdict: Verdict) -> Any:
        text = self.pipeline.policy.refusal(verdict, turn)
        if self.chain.OutputType is str:
            return text
        metadata = {"finish_reason": "content_filter", "verdict": verdict_json(verdict)}
        return AIMessage(content=text, response_metadata=metadata)


def our_messages(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    """LangChain's messages as ours. Raises ValueError on what is not text, or a role that there is not."""
    return tuple(Message(_role(message), text_of(message)) for message in messages)


def text_of(message: BaseMessage) -> str:
    """A message's text. Raises ValueError where it holds images or other things that cannot be judged."""
    if isinstance(message.content, str):
        return message.content
    texts = []
    for block in message.content:
        if isinstance(block, str):
            texts.append(block)
        elif block.get("type") == "text":
            texts.append(cast("str", block["text"]))
        else:
            raise ValueError(f"a message holds a block of type {block.get('type')!r}; only text is supported")
    return "".join(texts)


def document(passage: Passage) -> Document:
    """A passage as LangChain's document."""
    metadata = {
        **passage.metadata,
        "source": passage.source,
        "start": passage.start,
        "end": passage.end,
        "score": passage.score,
        "heading": passage.heading,
    }
    return Document(page_content=passage.text, metadata=metadata)


def _role(message: BaseMessage) -> Role:
    for kind, role in ROLES.items():
        if isinstance(message, kind):
            return role
    raise ValueError(f"messages of type {message.type!r} are not supported")


def _messages(value: Any) -> list[BaseMessage]:
    if isinstance(value, PromptValue):
        return value.to_messages()
    return convert_to_messages(value)


def _spoken(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    return [message for message in messages if not isinstance(message, SystemMessage)]


def _usage(completion: Completion) -> UsageMetadata:
    read, written = completion.usage
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
