"""The pipeline behind OpenAI's API: POST /v1/chat/completions, not streamed; GET /v1/models; GET /healthz.

It keeps no conversation: a caller sends all of it, and since it could be forged, the rails judge all of it. One table
leads from errors to status codes. Neither logs nor errors hold what anybody wrote.
"""

import asyncio
import logging
import socket
import time
import traceback
import uuid
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from trackbed.apps.schemas import ChatRequest, Json, completion_json
from trackbed.llm.errors import EndpointFailed, EngineStopped, PromptTooLong
from trackbed.rails.errors import TooBusy
from trackbed.rails.pipeline import Pipeline
from trackbed.rails.types import Reply, Turn
from trackbed.retrieval.errors import RetrievalError

LOG = logging.getLogger("trackbed.server")
MAX_BODY = 1 << 20  # bytes
CLIENT_LEFT = 499  # nobody reads it; the number is what others log in this case

# The first that fits: status, and what the caller is told.
ERRORS: tuple[tuple[type[Exception], int, str], ...] = (
    (PromptTooLong, 400, "The conversation is longer than the model's context."),
    (TooBusy, 503, "Too many questions are being answered; try again later."),
    (EndpointFailed, 502, "The model behind this server did not answer."),
    (EngineStopped, 503, "The model has stopped."),
    (RetrievalError, 503, "The documents cannot be searched."),
    (Exception, 500, "Something went wrong; the server's log names the kind of error."),
)


class Refused(Exception):
    """A request that is not a question to the pipeline: its status, and what to do, in words for the caller."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


def application(pipeline: Pipeline, groups_header: str = "") -> Starlette:
    """The server over one pipeline, whose policy is what callers call the model.

    `groups_header` is where a trusted proxy names the groups of whoever asks; without it, everybody reads only what
    everybody may read.
    """
    policy = pipeline.policy

    async def chat(request: Request) -> JSONResponse:
        try:
            asked = _read(await _body(request))
            if asked.model not in (None, policy.name):
                raise Refused(404, f"There is no such model; this server has {policy.name!r}.", "model")
            turn = replace(asked.turn(), principals=_groups(request, groups_header))
            reply = await _reply(request, pipeline, turn)
        except Refused as error:
            return _error(error.status, str(error), error.param)
        except ClientLeft:
            return _error(CLIENT_LEFT, "The client left.")
        except Exception as error:  # noqa: BLE001  no error's own text may leave, nor reach the log
            status, message = next(row[1:] for row in ERRORS if isinstance(error, row[0]))
            place = traceback.extract_tb(error.__traceback__)[-1]
            LOG.error("%d: %s in %s, line %s", status, type(error).__name__, place.filename, place.lineno)
            return _error(status, message)
        id = f"chatcmpl-{uuid.uuid4().hex}"
        return JSONResponse(completion_json(reply, id=id, created=int(time.time()), model=policy.name))

    async def models(_: Request) -> JSONResponse:
        model = {"id": policy.name, "object": "model", "created": 0, "owned_by": "trackbed"}
        return JSONResponse({"object": "list", "data": [model]})

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def elsewhere(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return _error(error.status_code, f"{error.detail}; there are POST /v1/chat/completions and GET /v1/models.")

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/models", models),
            Route("/healthz", health),
        ],
        exception_handlers={HTTPException: elsewhere},
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket for `run`. Raises OSError, which names the address, where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(error.errno, error.strerror or "cannot listen there", f"{host}:{port}") from None


def run(pipeline: Pipeline, listening: socket.socket, groups_header: str = "") -> None:
    """Answer requests until interrupted."""
    config = uvicorn.Config(application(pipeline, groups_header), log_level="warning", access_log=False)
    with suppress(KeyboardInterrupt):
        asyncio.run(uvicorn.Server(config).serve([listening]))


def _groups(request: Request, header: str) -> frozenset[str]:
    """The groups that the proxy names; none where it names none, or where the header stands twice, which is doubt."""
    said = request.headers.getlist(header) if header else []
    return frozenset(filter(None, (group.strip() for group in said[0].split(",")))) if len(said) == 1 else frozenset()


async def _body(request: Request) -> bytes:
    """The request's body, not taken further than the limit whatever length it claims. Raises Refused."""
    # A page in a browser cannot send this type to another site unasked, so none can use a server on this machine.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "Send JSON, with the header Content-Type: application/json.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise Refused(413, f"The request is larger than {MAX_BODY} bytes.")
    return bytes(body)


def _read(body: bytes) -> ChatRequest:
    """The request. Raises Refused with its first mistake, without the value that is wrong."""
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(map(str, first["loc"]))[:100]
        words = "not supported" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        raise Refused(400, f"{param or 'The body'}: {words}.", param or None) from None


async def _reply(request: Request, pipeline: Pipeline, turn: Turn) -> Reply:
    """The pipeline's reply; when the client leaves before, the work stops. Raises ClientLeft."""
    answer = asyncio.ensure_future(pipeline.respond(turn))
    left = asyncio.ensure_future(request.receive())  # after the body, the only message is that the client has left
    try:
        await asyncio.wait({answer, left}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientLeft
        return answer.result()
    finally:
        answer.cancel()
        left.cancel()


def _error(status: int, message: str, param: str | None = None) -> JSONResponse:
    """An error in OpenAI's shape."""
    known = status in set(HTTPStatus)
    body: Json = {
        "message": message,
        "type": "invalid_request_error" if status < 500 else "server_error",
        "param": param,
        "code": HTTPStatus(status).name.lower() if known else None,
    }
    return JSONResponse({"error": body}, status)
