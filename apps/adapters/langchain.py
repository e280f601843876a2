"""trackbed in LangChain: our runtime as a chat model, our index as a retriever, a policy around any chain.

```
guarded = Rails.from_policy("support.yaml") | model
```

Input rails judge the prompt before the model sees it, output rails judge the answer before the caller does.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import replace
from functools import reduce
from operator import or_
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
from langchain_core.runnables.base import coerce_to_runnable
from langchain_core.runnables.config import ensure_config, get_callback_manager_for_config
from langchain_core.tools import BaseTool, StructuredTool

# Not public, and yet how LangGraph too knows the handlers that stream.
from langchain_core.tracers._streaming import _StreamingCallbackHandler, _V2StreamingCallbackHandler
from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from trackbed.apps.adapters.tools import Confirm, GuardedTool
from trackbed.apps.build import build_judge
from trackbed.apps.schemas import verdict_json
from trackbed.apps.settings import Settings, load_settings
from trackbed.llm.catalogue import locate
from trackbed.llm.types import Completion, Generator, Message, Role, SamplingParams
from trackbed.rails.errors import PolicyError
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.policy import Policy, load_policy
from trackbed.rails.stage import merge
from trackbed.rails.sync import iterate_sync, run_sync
from trackbed.rails.types import Turn, Verdict
from trackbed.retrieval.types import Embedder, Passage, Query, Retriever

ROLES: dict[type[BaseMessage], Role] = {
    SystemMessage: "system",
    HumanMessage: "user",
    AIMessage: "assistant",
    ToolMessage: "tool",
}
PARAMETERS = ("temperature", "top_p", "max_tokens", "seed", "stop")
# Of a model's response metadata, what is not made of its text, as log-probabilities are.
KEPT = {"model_name", "model_provider", "finish_reason", "stop_reason"}


class ChatTrackbed(BaseChatModel):
    """A chat model over trackbed's runtime, or anything else that generates text. Its rails are `Rails`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    generator: SkipValidation[Generator]  # pydantic cannot check a protocol
    model_name: str = "trackbed"
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop: list[str] = Field(default_factory=list)
    seed: int | None = None

    @classmethod
    def from_model(cls, name: str, settings: Settings | None = None, **parameters: Any) -> Self:
        """The chat model of a catalogue name or a path, loaded. Raises LLMError, and ValueError for a parameter."""
        from trackbed.llm.engine import Engine  # here: who only judges does without PyTorch

        _refuse_unknown(parameters.keys() - BaseChatModel.model_fields.keys())
        settings = settings or load_settings()
        engine = Engine.open(locate(name, settings.models), settings.engine)
        return cls(generator=engine, model_name=name, **parameters)

    def close(self) -> None:
        """Close the engine that `from_model` loaded; whoever still waits gets EngineStopped."""
        if close := getattr(self.generator, "close", None):
            close()

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
        return run_sync(self._agenerate(messages, stop, None, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        completion = await self.generator.generate(our_messages(messages), self._params(stop, kwargs))
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
        for text, completion in iterate_sync(self.generator.stream(our_messages(messages), self._params(stop, kwargs))):
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
        async with aclosing(self.generator.stream(our_messages(messages), self._params(stop, kwargs))) as deltas:
            async for text, completion in deltas:
                chunk = self._chunk(text, completion)
                if run_manager:
                    await run_manager.on_llm_new_token(text, chunk=chunk)
                yield chunk

    def _params(self, stop: list[str] | None, given: dict[str, Any]) -> SamplingParams:
        """The call's own parameters over the model's. Raises ValueError on one that there is not."""
        _refuse_unknown(given.keys())
        chosen = {name: getattr(self, name) for name in PARAMETERS} | given
        return SamplingParams(**{**chosen, "stop": tuple(self.stop if stop is None else stop)})

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
    """Any retriever of trackbed as LangChain's. A document's metadata tell source, span and score.

    What only some groups may read is found for a call that names one of them: `invoke(question, principals={"staff"})`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    retriever: SkipValidation[Retriever]  # pydantic cannot check a protocol
    k: int = 4
    principals: frozenset[str] = frozenset()

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        principals: Collection[str] | None = None,
    ) -> list[Document]:
        return run_sync(self._found(query, k, principals))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        principals: Collection[str] | None = None,
    ) -> list[Document]:
        return await self._found(query, k, principals)

    async def _found(self, query: str, k: int | None, principals: Collection[str] | None) -> list[Document]:
        sought = Query(query, self.principals if principals is None else frozenset(principals))
        return [document(p) for p in await self.retriever.search(sought, self.k if k is None else k)]


class Rails(Runnable[Any, Any]):
    """A policy's rails, to be put around a chat model or a chain: `rails | model`, or `rails.wrap(chain)`.

    In `rails | prompt | model` all that follows is inside the rails; what is to follow after them goes behind
    `rails.wrap(chain)`. `prompt | rails | model` would leave the output unjudged and is refused: write
    `prompt | (rails | model)`.

    `rails.tool(tool)` is a tool whose calls and results are judged. Around a chain only the input and output rails
    run; a grounding rail has no passages here and lets no claim pass. The system messages of a chain are its
    developer's and are not judged. A policy with a dialog cannot stand around a chain.
    """

    def __init__(self, pipeline: Pipeline, close: ExitStack | None = None) -> None:
        _refuse_dialog(pipeline.policy)
        self.pipeline = pipeline
        self._close = close or ExitStack()

    @classmethod
    def from_policy(cls, policy: str | Path, settings: Settings | None = None) -> Self:
        """The rails of a policy, by its name or its file; models that its rails ask are loaded. Raises PolicyError."""
        stack = ExitStack()
        loaded = load_policy(policy)
        _refuse_dialog(loaded)
        return cls(
            stack.enter_context(build_judge(settings or load_settings(), loaded, "input", "tools", "output")), stack
        )

    def close(self) -> None:
        """Close the models that the rails ask."""
        self._close.close()

    def tool(self, tool: BaseTool, confirm: Confirm | None = None) -> StructuredTool:
        """The tool between the policy's `tools` rails; a refusal is what it returns.

        `confirm` asks the user about the calls that the policy wants confirmed; without it, none of these is made.
        """
        schema = tool.tool_call_schema
        if not isinstance(schema, dict) and issubclass(schema, BaseModel):
            # As JSON, so that what is judged is what the model wrote; the tool itself reads it after that.
            schema = schema.model_json_schema()
        guarded = GuardedTool(self.pipeline, tool.name, tool.invoke, tool.ainvoke, confirm)
        return StructuredTool(
            name=tool.name,
            description=tool.description,
            args_schema=schema,
            func=guarded.call,
            coroutine=guarded.acall,
            return_direct=tool.return_direct,
        )

    def wrap(self, chain: Runnable[Any, Any], *, input_key: str = "input", output_key: str | None = None) -> "Guarded":
        """The chain between the rails. Where it takes or gives a mapping, the keys name the one text that is judged.

        A history beside that text is not judged; rails directly around the model, `prompt | (rails | model)`, judge
        every message.
        """
        return Guarded(self.pipeline, chain, input_key, output_key)

    def __or__(self, other: Any) -> Any:
        """The rails around this, and around what is piped on."""
        return Guarded(self.pipeline, coerce_to_runnable(other), "input", None, grows=True)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Refuse to be a step of a sequence, where what comes after would not be judged."""
        raise TypeError(
            "Rails go around a model: write `rails | model`, `prompt | (rails | model)` or `rails.wrap(chain)`"
        )


class Guarded(Runnable[Any, Any]):
    """A chain between a policy's rails: what goes in and what comes out is judged.

    A refused input never reaches the chain, and the answer is the policy's words of refusal. Streaming waits
    until the whole answer is judged, and `astream_events` shows nothing of what happens inside; callbacks that
    the developer gives, such as tracers, see all of it. A message tells the verdict in `response_metadata`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        chain: Runnable[Any, Any],
        input_key: str,
        output_key: str | None,
        *,
        grows: bool = False,
    ) -> None:
        self.pipeline = pipeline
        self.chain = chain
        self.input_key = input_key
        self.output_key = output_key
        self.grows = grows  # whether what is piped on becomes a part of the chain

    @property
    def OutputType(self) -> Any:
        """What the chain gives."""
        return self.chain.OutputType

    def __or__(self, other: Any) -> Any:
        """`rails | a | b` is `(rails | a) | b` to Python, and b belongs inside too."""
        if self.grows:
            return Guarded(self.pipeline, self.chain | other, self.input_key, self.output_key, grows=True)
        return super().__or__(other)

    def pipe(self, *others: Any, name: str | None = None) -> Any:
        """The same as `|`, for several at once."""
        return reduce(or_, others, self) if self.grows else super().pipe(*others, name=name)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The chain's answer to the judged input, judged; or words of refusal."""
        # It hands over `config` by name, which its type does not tell.
        return self._call_with_config(self._invoke, input, _quiet(config), **kwargs)  # type: ignore[arg-type]

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The chain's answer to the judged input, judged; or words of refusal."""
        return await self._acall_with_config(self._ainvoke, input, _quiet(config), **kwargs)  # type: ignore[arg-type]

    def _invoke(self, input: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        turn, asked, _ = run_sync(self.pipeline.judge("input", self._turn(input)))
        if asked.action == "block":
            return self._refusal(turn, asked)
        output = self.chain.invoke(self._with(input, turn), config, **kwargs)
        said = self._said(output)
        turn, answered, _ = run_sync(self.pipeline.judge("output", replace(turn, draft=_draft(said))))
        return self._answer(output, said, turn, merge([asked, answered]))

    async def _ainvoke(self, input: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        turn, asked, _ = await self.pipeline.judge("input", self._turn(input))
        if asked.action == "block":
            return self._refusal(turn, asked)
        output = await self.chain.ainvoke(self._with(input, turn), config, **kwargs)
        said = self._said(output)
        turn, answered, _ = await self.pipeline.judge("output", replace(turn, draft=_draft(said)))
        return self._answer(output, said, turn, merge([asked, answered]))

    def _turn(self, input: Any) -> Turn:
        """What is asked. Raises TypeError where there is no text to judge."""
        asked = _under(self.input_key, input, "input_key") if isinstance(input, dict) else input
        if isinstance(asked, str):
            return Turn(asked)
        messages = [message for message in _messages(asked) if not isinstance(message, SystemMessage)]
        if not messages:
            raise TypeError("there is no message to judge")
        *history, last = our_messages(messages)
        return Turn(last.content, tuple(history))

    def _with(self, input: Any, turn: Turn) -> Any:
        """The input with the texts as the rails left them."""
        if isinstance(input, dict):
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

    def _said(self, output: Any) -> str | AIMessage:
        """The part of the chain's output that is judged. Raises TypeError where there is no text."""
        said = _under(self.output_key, output, "output_key") if self.output_key else output
        if not isinstance(said, (str, AIMessage)):
            raise TypeError(
                f"the chain gave {type(said).__name__}; what can be judged is text, or a message: put what comes after "
                "behind `rails.wrap(chain)`, or name the key with output_key="
            )
        return said

    def _answer(self, output: Any, said: str | AIMessage, turn: Turn, verdict: Verdict) -> Any:
        """The output with the judged text in place of what was said, and nothing else that a model wrote."""
        if verdict.action == "block":
            return self._refusal(turn, verdict, said)
        judged: str | AIMessage = turn.draft or ""
        if isinstance(said, AIMessage):
            kept = {key: said.response_metadata[key] for key in KEPT & said.response_metadata.keys()}
            judged = AIMessage(
                content=turn.draft or "",
                id=said.id,
                usage_metadata=said.usage_metadata,
                response_metadata={**kept, "verdict": verdict_json(verdict)},
            )
        return {**output, self.output_key: judged} if self.output_key else judged

    def _refusal(self, turn: Turn, verdict: Verdict, said: str | AIMessage | None = None) -> Any:
        """The words of refusal as the chain would have said them: as text, or in a message."""
        words = self.pipeline.policy.refusal(verdict, turn)
        metadata = {"finish_reason": "content_filter", "verdict": verdict_json(verdict)}
        speaks_text = isinstance(said, str) if said is not None else self.output_key or self.chain.OutputType is str
        refusal = words if speaks_text else AIMessage(content=words, response_metadata=metadata)
        return {self.output_key: refusal} if self.output_key else refusal


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
        **({} if passage.page is None else {"page": passage.page}),
    }
    return Document(id=f"{passage.source}:{passage.start}-{passage.end}", page_content=passage.text, metadata=metadata)


def _role(message: BaseMessage) -> Role:
    for kind, role in ROLES.items():
        if isinstance(message, kind):
            return role
    raise ValueError(f"messages of type {message.type!r} are not supported")


def _messages(value: Any) -> list[BaseMessage]:
    if isinstance(value, PromptValue):
        return value.to_messages()
    if not isinstance(value, Sequence):
        raise TypeError(f"the rails judge text, messages or a prompt; this is {type(value).__name__}")
    return convert_to_messages(value)


def _refuse_unknown(names: Collection[str]) -> None:
    if unknown := sorted(set(names) - set(PARAMETERS)):
        raise ValueError(f"{unknown[0]!r} is not a parameter of ChatTrackbed; it has: {', '.join(PARAMETERS)}")


def _under(key: str, value: Any, parameter: str) -> Any:
    if not isinstance(value, dict) or key not in value:
        found = ", ".join(map(str, value)) if isinstance(value, dict) else type(value).__name__
        raise TypeError(f"there is no {key!r} in it, but {found}; name the key with {parameter}=")
    return value[key]


def _draft(said: str | AIMessage) -> str:
    """The text of an answer. Raises TypeError where it is more than text."""
    if isinstance(said, str):
        return said
    if said.tool_calls or said.invalid_tool_calls:
        raise TypeError(
            "the model calls a tool, which no rail here judges; put the rails around the chain that runs its tools, "
            "and around each of these by rails.tool(tool)"
        )
    return text_of(said)


def _quiet(config: RunnableConfig | None) -> RunnableConfig:
    """The config under which whoever streams a run's events sees a step's result, and nothing of what is inside it."""
    config = ensure_config(config)
    manager = get_callback_manager_for_config(config)
    streaming = (_StreamingCallbackHandler, _V2StreamingCallbackHandler)
    manager.inheritable_handlers = [h for h in manager.inheritable_handlers if not isinstance(h, streaming)]
    return {**config, "callbacks": manager}


def _usage(completion: Completion) -> UsageMetadata:
    read, written = completion.usage
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)


def _refuse_dialog(policy: Policy) -> None:
    """Raise PolicyError where a part of the policy would be left out and nobody told."""
    if policy.dialog:
        words = "the flows of a dialog do not run around a chain; give a policy without 'dialog', or answer by Pipeline"
        raise PolicyError(words, policy.dialog.place)
