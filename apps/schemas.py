"""What goes in and out in JSON: the chat completions of OpenAI's API, and a reply as programs read it."""

from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trackbed.rails.trace import trace_json
from trackbed.rails.types import Reply, Trace, Verdict

Json = dict[str, Any]  # Any: JSON values


class ChatMessage(BaseModel):
    """A message of the caller. Roles are claims: whatever the caller says is judged as a user's text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str
    name: str | None = None


class ChatRequest(BaseModel):
    """POST /v1/chat/completions. The policy chooses model and sampling; what it cannot honour is refused.

    `user`, `metadata` and `store` are accepted and mean nothing here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: list[ChatMessage] = Field(min_length=1, max_length=1000)
    model: str = ""
    stream: Literal[False] = False
    n: Literal[1] = 1
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None


def reply_json(reply: Reply) -> Json:
    """A reply as `trackbed chat --json` prints it."""
    return {
        "text": reply.text,
        "verdict": verdict_json(reply.verdict),
        "citations": [asdict(citation) for citation in reply.citations],
        "trace": trace_json(reply.trace),
        "usage": usage_json(reply.trace),
    }


def verdict_json(verdict: Verdict) -> Json:
    """A verdict without the texts it speaks of."""
    return {
        "action": verdict.action,
        "stage": verdict.stage,
        "rail": verdict.rail or None,
        "reason": verdict.reason,
        "detail": verdict.detail,
        "categories": list(verdict.categories),
    }


def usage_json(trace: Trace) -> Json:
    """The tokens of all of a turn's answers, with OpenAI's names."""
    usage = trace.usage
    return {**usage._asdict(), "total_tokens": usage.prompt_tokens + usage.completion_tokens}


def completion_json(reply: Reply, *, id: str, created: int, model: str) -> Json:
    """A reply as a chat completion; `trackbed` holds what OpenAI's API has no place for."""
    full = reply_json(reply)
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": reply.text},
                "finish_reason": "content_filter" if reply.verdict.action == "block" else "stop",
            }
        ],
        "usage": full["usage"],
        "trackbed": {key: full[key] for key in ("verdict", "citations", "trace")},
    }
