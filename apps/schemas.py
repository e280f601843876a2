"""What goes in and out as JSON: the bodies of OpenAI's chat completions, and a reply as programs read it."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from trackbed.llm.types import Message, Role
from trackbed.rails.trace import trace_json
from trackbed.rails.types import Reply, Trace, Turn, Verdict

Json = dict[str, Any]  # Any: JSON values
ROLES: dict[str, Role] = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}


def _joined(value: object) -> object:
    """A content in parts as one text."""
    if not isinstance(value, list):
        return value
    texts = []
    for part in value:
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise ValueError("only parts of the type 'text' are read")
        texts.append(part["text"])
    return "".join(texts)


def _whole(value: object) -> object:
    if value:
        raise ValueError("answers are not streamed; leave it out, or give false")
    return False


def _one(value: object) -> object:
    if value not in (None, 1):
        raise ValueError("a request has one answer; leave it out, or give 1")
    return 1


class ChatMessage(BaseModel):
    """A message as the caller claims it; whoever is said to have written it, the rails judge it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_joined)]
    name: str | None = None  # not read


def _asks(messages: list[ChatMessage]) -> list[ChatMessage]:
    if messages[-1].role != "user":
        raise ValueError("the last of them has to be the user's")
    return messages


class ChatRequest(BaseModel):
    """The body of POST /v1/chat/completions. What cannot be honoured is an error.

    How an answer is drafted is the policy's to say. So what follows `n` is accepted, since many clients always send
    it, and has no effect.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=500), AfterValidator(_asks)]
    model: str | None = None  # the policy's name
    stream: Annotated[bool, BeforeValidator(_whole)] = False
    n: Annotated[int, BeforeValidator(_one)] = 1

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None

    def turn(self) -> Turn:
        """The turn that is asked for."""
        *history, last = self.messages
        return Turn(last.content, tuple(Message(ROLES[m.role], m.content) for m in history))


def reply_json(reply: Reply) -> Json:
    """A reply as `trackbed chat --json` prints it."""
    return {
        "text": reply.text,
        "verdict": verdict_json(reply.verdict),
        "citations": [asdict(citation) for citation in reply.citations],
        "claims": [asdict(claim) for claim in reply.claims],
        "trace": trace_json(reply.trace),
        "usage": usage_json(reply.trace),
    }


def verdict_json(verdict: Verdict) -> Json:
    """A verdict without the texts that it speaks of."""
    return {
        "action": verdict.action,
        "stage": verdict.stage,
        "rail": verdict.rail or None,
        "reason": verdict.reason,
        "detail": verdict.detail,
        "categories": list(verdict.categories),
    }


def usage_json(trace: Trace) -> Json:
    """The tokens of all answers that models gave in the turn, under OpenAI's names."""
    usage = trace.usage
    return {**usage._asdict(), "total_tokens": usage.prompt_tokens + usage.completion_tokens}


def completion_json(reply: Reply, *, id: str, created: int, model: str) -> Json:
    """A reply as a chat completion; `trackbed` holds what OpenAI's API has no place for."""
    whole = reply_json(reply)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": reply.text},
        "finish_reason": "content_filter" if reply.verdict.action == "block" else "stop",
    }
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,  # seconds since 1970
        "model": model,
        "choices": [choice],
        "usage": whole["usage"],
        "trackbed": {key: whole[key] for key in ("verdict", "citations", "claims", "trace")},
    }
