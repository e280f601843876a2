"""trackbed in LlamaIndex: our runtime as an LLM, our index as a retriever, and a query engine behind a policy."""

from collections.abc import Sequence
from typing import Any, Self

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
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import ConfigDict

from trackbed.apps.adapters.threads import iterate, wait_for
from trackbed.apps.schemas import reply_json
from trackbed.apps.settings import Settings, load_settings
from trackbed.llm.catalogue import locate
from trackbed.llm.engine import Engine
from trackbed.llm.types import Completion, Generator, Message, Role, SamplingParams
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.types import Reply, Turn
from trackbed.retrieval.types import Passage, Retriever

ROLES: dict[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.TOOL: "tool",
}


class TrackbedLLM(LLM):
    """An LLM over trackbed's runtime, or anything else that generates text. It has no rails of its own."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    generator: Any  # a Generator, which pydantic cannot check
    model_name: str = "trackbed"
    temperature: float = 0.0
    max_tokens: int = 256
    context_window: int = 8192

    @classmethod
    def from_model(cls, name: str, settings: Settings | None = None, **parameters: Any) -> Self:
        """The LLM of a catalogue name or a path, loaded. Raises LLMError."""
        settings = settings or load_settings()
        engine = Engine.open(locate(name, settings.models), settings.engine)
        return cls(generator=engine, model_name=name, context_window=engine.context, **parameters)

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

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The answer to a conversation."""
        return wait_for(lambda: self.achat(messages, **kwargs))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The answer to a conversation."""
        generator: Generator = self.generator
        completion = await generator.generate(our_messages(messages), self._params(kwargs))
        return _chat_response(completion.text, "", completion)

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The answer piece by piece."""
        generator: Generator = self.generator
        said = ""
        for text, completion in iterate(generator.stream(our_messages(messages), self._params(kwargs))):
            said += text
            yield _chat_response(said, text, completion)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """The answer piece by piece."""
        generator: Generator = self.generator
        deltas = generator.stream(our_messages(messages), self._params(kwargs))

        async def pieces() -> ChatResponseAsyncGen:
            said = ""
            async for text, completion in deltas:
                said += text
                yield _chat_response(said, text, completion)

        return pieces()

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
        known = {"temperature": self.temperature, "max_tokens": self.max_tokens, "top_p": 1.0, "stop": (), "seed": None}
        if unknown := sorted(given.keys() - known):
            raise ValueError(f"{unknown[0]!r} is not a parameter of TrackbedLLM; it has: {', '.join(known)}")
        chosen = known | given
        return SamplingParams(**{**chosen, "stop": tuple(chosen["stop"] or ())})  # type: ignore[arg-type]


class TrackbedEmbedding(BaseEmbedding):
    """Any embedder of trackbed as LlamaIndex's."""

    embedder: Any  # an Embedder, which pydantic cannot check

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.embedder.embed(texts).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class TrackbedRetriever(BaseRetriever):
    """Any retriever of trackbed as LlamaIndex's. A node's metadata tell source and span."""

    def __init__(self, retriever: Retriever, k: int = 4) -> None:
        super().__init__()
        self.retriever = retriever
        self.k = k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return wait_for(lambda: self._aretrieve(query_bundle))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [node(passage) for passage in await self.retriever.search(query_bundle.query_str, self.k)]


class GuardedQueryEngine(BaseQueryEngine):
    """A whole turn as a query engine: rails, search, answer, rails, citations.

    The response's source nodes are its citations; its metadata hold verdict, citations, trace and usage.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(callback_manager=None)
        self.pipeline = pipeline

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        return wait_for(lambda: self._aquery(query_bundle))

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        return _response(await self.pipeline.respond(Turn(query_bundle.query_str)))

    def _get_prompt_modules(self) -> PromptMixinType:
        return {}


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
    metadata = {**passage.metadata, "source": passage.source, "heading": passage.heading}
    found = TextNode(text=passage.text, metadata=metadata, start_char_idx=passage.start, end_char_idx=passage.end)
    return NodeWithScore(node=found, score=passage.score)


def _response(reply: Reply) -> Response:
    full = reply_json(reply)
    nodes = [
        NodeWithScore(
            node=TextNode(text=c.quote, metadata={"source": c.source}, start_char_idx=c.start, end_char_idx=c.end)
        )
        for c in reply.citations
    ]
    metadata = {key: full[key] for key in ("verdict", "citations", "trace", "usage")}
    return Response(response=reply.text, source_nodes=nodes, metadata=metadata)


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
