"""The pipeline behind OpenAI's API: POST /v1/chat/completions, not streamed.

One table leads from errors to status codes. The server knows HTTP; it keeps no conversation, so every message
that a caller sends is judged each time. Neither logs nor errors hold what anybody wrote.
"""

import asyncio
import logging
import time
import uuid
from http import HTTPStatus

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from trackbed.apps.schemas import ChatRequest, Json, completion_json
from trackbed.llm.errors import EngineStopped, PromptTooLong
from trackbed.llm.types import Message, Role
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.types import Turn
from trackbed.retrieval.errors import RetrievalError

LOG = logging.getLogger("trackbed.server")
MAX_BODY = 1 << 20  # bytes
ROLES: dict[str, Role] = {"developer": "system", "system": "system", "assistant": "assistant", "tool": "tool"}

# The first that fits: status, OpenAI's error type, and what the caller is told.
ERRORS: tuple[tuple[type[Exception], int, str, str], ...] = (
    (PromptTooLong, 400, "invalid_request_error", "The conversation is longer than the model's context."),
    (EngineStopped, 503, "server_error", "The model has stopped."),
    (RetrievalError, 503, "server_error", "The documents cannot be searched."),
    (Exception, 500, "server_error", "Something went wrong; the server's log names the kind of error."),
)


def app(pipeline: Pipeline) -> Starlette:
    """The server's routes over one pipeline."""
    policy = pipeline.policy

    async def chat(request: Request) -> JSONResponse:
        body = await _body(request)
        if body is None:
            return _error(413, "invalid_request_error", f"The request is larger than {MAX_BODY} bytes.")
        try:
            asked = ChatRequest.model_validate_json(body)
            turn = _turn(asked)
        except ValidationError as error:
            return _error(400, "invalid_request_error", _words(error))
        except ValueError as error:
            return _error(400, "invalid_request_error", str(error))
        try:
            reply = await pipeline.respond(turn)
        except Exception as error:  # noqa: BLE001 - the last line: no error's own text may leave
            kind, status, type_, words = next(row for row in ERRORS if isinstance(error, row[0]))
            LOG.error("a turn failed with %s, answered as %s", type(error).__name__, kind.__name__)
            return _error(status, type_, words)
        id = f"chatcmpl-{uuid.uuid4().hex}"
        return JSONResponse(completion_json(reply, id=id, created=int(time.time()), model=policy.name))

    async def models(_: Request) -> JSONResponse:
        row = {"id": policy.name, "object": "model", "created": 0, "owned_by": "trackbed"}
        return JSONResponse({"object": "list", "data": [row]})

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/models", models),
            Route("/healthz", health),
        ]
    )


def serve(pipeline: Pipeline, host: str, port: int) -> None:
    """Answer requests until interrupted."""
    import uvicorn

    config = uvicorn.Config(app(pipeline), host=host, port=port, log_level="warning", access_log=False)
    asyncio.run(uvicorn.Server(config).serve())


async def _body(request: Request) -> bytes | None:
    """The request's body; None where it is too large, however large it says it is."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return bytes(body)


def _turn(asked: ChatRequest) -> Turn:
    """The turn that a request asks for. Raises ValueError when the last message is not the user's."""
    *history, last = asked.messages
    if last.role != "user":
        raise ValueError(f"messages: the last one is the {last.role}'s; it has to be the user's.")
    return Turn(last.content, tuple(Message(ROLES.get(m.role, "user"), m.content) for m in history))


def _words(error: ValidationError) -> str:
    """What is wrong with a request, without the values it holds."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the body'}: {e['msg']}" for e in error.errors()[:5])


def _error(status: int, type_: str, message: str) -> JSONResponse:
    body: Json = {"error": {"message": message, "type": type_, "code": HTTPStatus(status).phrase, "param": None}}
    return JSONResponse(body, status)
