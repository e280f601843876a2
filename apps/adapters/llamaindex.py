"""trackbed in LlamaIndex: our runtime as an LLM, our index as a retriever, and a query engine behind a policy."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import aclosing
from typing import Any, Self, TypeVar, cast

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.base.response.schema import RESPONSE_TYPE, Response
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.llms import LLM
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import AsyncBaseTool, BaseTool, FunctionTool
from pydantic import ConfigDict, Field, SkipValidation

from trackbed.apps.adapters.tools import Confirm, GuardedTool
from trackbed.apps.schemas import reply_json
from trackbed.apps.settings import Settings, load_settings
from trackbed.llm.catalogue import locate
from trackbed.llm.types import Completion, Generator, Message, Role, SamplingParams
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.sync import iterate_sync, run_sync
from trackbed.rails.types import Reply, Turn
from trackbed.retrieval.types import Embedder, Passage, Query, Retriever

ROLES: dict[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.TOOL: "tool",
}
PARAMETERS = ("temperature", "top_p", "max_tokens", "seed", "stop")
F = TypeVar("F", bound=Callable[..., Any])


def observed(call: F) -> F:
    """The call, of which LlamaIndex's callbacks, its instrumentation and its rate limiter are told."""
    return cast("F", llm_chat_callback()(call))


class TrackbedLLM(LLM):
    """An LLM over trackbed's runtime, or anything else that generates text. It has no rails of its own."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    generator: SkipValidation[Generator] = Field(exclude=True)  # pydantic cannot check a protocol
    model_name: str = "trackbed"
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop: list[str] = Field(default_factory=list)
    seed: int | None = None
    context_window: int = 8192

    @classmethod
    def from_model(cls, name: str, settings: Settings | None = None, **parameters: Any) -> Self:
        """The LLM of a catalogue name or a path, loaded. Raises LLMError, and ValueError for a parameter."""
        from trackbed.llm.engine import Engine  # here: who answers elsewhere does without PyTorch

        _refuse_unknown(parameters.keys() - LLM.model_fields.keys())
        settings = settings or load_settings()
        engine = Engine.open(locate(name, settings.models), settings.engine)
        return cls(generator=engine, model_name=name, context_window=engine.context, **parameters)

    def close(self) -> None:
        """Close the engine that `from_model` loaded; whoever still waits gets EngineStopped."""
        if close := getattr(self.generator, "close", None):
            close()

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex's name of the class."""
        return "TrackbedLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex plans its prompts by."""
        return LLMMetadata(
            model_name=self.model_name,
            context_window=self.context_window,
            num_output=self.max_tokens,
            is_chat_model=True,
        )

    @observed
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The answer to a conversation."""
        return run_sync(self._answer(messages, kwargs))

    @observed
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The answer to a conversation."""
        return await self._answer(messages, kwargs)

    @observed
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The answer piece by piece."""
        yield from iterate_sync(self._pieces(messages, kwargs))

    @observed
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """The answer piece by piece."""
        return self._pieces(messages, kwargs)

    async def _answer(self, messages: Sequence[ChatMessage], given: dict[str, Any]) -> ChatResponse:
        completion = await self.generator.generate(our_messages(messages), self._params(given))
        return _chat_response(completion.text, "", completion)

    async def _pieces(self, messages: Sequence[ChatMessage], given: dict[str, Any]) -> ChatResponseAsyncGen:
        said = ""
        async with aclosing(self.generator.stream(our_messages(messages), self._params(given))) as deltas:
            async for text, completion in deltas:
                said += text
                yield _chat_response(said, text, completion)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The answer to one message."""
        return _completion(self.chat([ChatMessage(prompt)], **kwargs))

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The answer to one message."""
        return _completion(await self.achat([ChatMessage(prompt)], **kwargs))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The answer to one message, piece by piece."""
        return (_completion(response) for response in self.stream_chat([ChatMessage(prompt)], **kwargs))

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """The answer to one message, piece by piece."""
        responses = await self.astream_chat([ChatMessage(prompt)], **kwargs)
        return (_completion(response) async for response in responses)

    def _params(self, given: dict[str, Any]) -> SamplingParams:
        """The call's own parameters over the LLM's. Raises ValueError on one that there is not."""
        _refuse_unknown(given.keys())
        chosen = {name: getattr(self, name) for name in PARAMETERS} | given
        return SamplingParams(**{**chosen, "stop": tuple(chosen["stop"] or ())})


class TrackbedEmbedding(BaseEmbedding):
    """Any embedder of trackbed as LlamaIndex's."""

    embedder: SkipValidation[Embedder] = Field(exclude=True)  # pydantic cannot check a protocol

    def __init__(self, embedder: Embedder) -> None:
        super().__init__(embedder=embedder, model_name=embedder.name)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.embedder.embed(texts).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await self._aget_text_embedding(query)


class TrackbedRetriever(BaseRetriever):
    """Any retriever of trackbed as LlamaIndex's. A node's metadata tell source and span.

    What only some groups may read is found where `principals` names one of them.
    """

    def __init__(self, retriever: Retriever, k: int = 4, principals: Collection[str] = ()) -> None:
        super().__init__()
        self.retriever = retriever
        self.k = k
        self.principals = frozenset(principals)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return run_sync(self._aretrieve(query_bundle))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        sought = Query(query_bundle.query_str, self.principals)
        return [node(passage) for passage in await self.retriever.search(sought, self.k)]


class GuardedQueryEngine(BaseQueryEngine):
    """A whole turn as a query engine: rails, search, answer, rails, citations.

    The response's source nodes are its citations; its metadata hold verdict, citations, claims, trace and usage.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(callback_manager=None)
        self.pipeline = pipeline

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        return run_sync(self._aquery(query_bundle))

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        return _response(await self.pipeline.respond(Turn(query_bundle.query_str)))

    def _get_prompt_modules(self) -> PromptMixinType:
        return {}


def guarded_tool(pipeline: Pipeline, tool: BaseTool, confirm: Confirm | None = None) -> FunctionTool:
    """The tool between the policy's `tools` rails; a refusal is what it returns.

    `confirm` asks the user about the calls that the policy wants confirmed; without it, none of these is made.
    """

    def run(arguments: dict[str, Any]) -> str:
        return tool(**arguments).content

    async def arun(arguments: dict[str, Any]) -> str:
        if isinstance(tool, AsyncBaseTool):
            return (await tool.acall(**arguments)).content
        return await asyncio.to_thread(run, arguments)

    about = tool.metadata
    guarded = GuardedTool(pipeline, about.get_name(), run, arun, confirm)
    return FunctionTool(fn=guarded.call, async_fn=guarded.acall, metadata=about)


def our_messages(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """LlamaIndex's messages as ours. Raises ValueError on a role that there is not, or on what is not text."""
    found = []
    for message in messages:
        if message.role not in ROLES:
            raise ValueError(f"messages of role {message.role.value!r} are not supported")
        if any(block.block_type != "text" for block in message.blocks):
            raise ValueError("a message holds something that is not text")
        found.append(Message(ROLES[message.role], message.content or ""))
    return tuple(found)


def node(passage: Passage) -> NodeWithScore:
    """A passage as LlamaIndex's node."""
    metadata = {**passage.metadata, **_metadata(passage.source, passage.heading, passage.page)}
    return NodeWithScore(
        node=_text_node(passage.text, passage.source, passage.start, passage.end, metadata), score=passage.score
    )


def _response(reply: Reply) -> Response:
    full = reply_json(reply)
    nodes = [
        NodeWithScore(
            node=_text_node(c.quote, c.source, c.start, c.end, _metadata(c.source, c.heading, c.page)), score=c.score
        )
        for c in reply.citations
    ]
    metadata = {key: full[key] for key in ("verdict", "citations", "claims", "trace", "usage")}
    return Response(response=reply.text, source_nodes=nodes, metadata=metadata)


def _metadata(source: str, heading: str, page: int | None) -> dict[str, Any]:
    return {"source": source, "heading": heading} | ({} if page is None else {"page": page})


def _text_node(text: str, source: str, start: int, end: int, metadata: dict[str, Any]) -> TextNode:
    """A node whose id is the same whenever the span is found."""
    return TextNode(id_=f"{source}:{start}-{end}", text=text, start_char_idx=start, end_char_idx=end, metadata=metadata)


def _refuse_unknown(names: Collection[str]) -> None:
    if unknown := sorted(set(names) - set(PARAMETERS)):
        raise ValueError(f"{unknown[0]!r} is not a parameter of TrackbedLLM; it has: {', '.join(PARAMETERS)}")


def _chat_response(text: str, delta: str, completion: Completion | None) -> ChatResponse:
    said = ChatMessage(content=text, role=MessageRole.ASSISTANT)
    if completion is None:
        return ChatResponse(message=said, delta=delta)
    usage = {"finish_reason": completion.finish_reason, **completion.usage._asdict()}
    return ChatResponse(message=said, delta=delta, additional_kwargs=usage)


def _completion(response: ChatResponse) -> CompletionResponse:
    return CompletionResponse(
        text=response.message.content or "", delta=response.delta, additional_kwargs=response.additional_kwargs
    )
