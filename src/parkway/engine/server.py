"""The engine's HTTP server: an OpenAI-compatible server for one model."""

import asyncio
import hmac
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from parkway.core import wire
from parkway.core.child_server import ChildServer
from parkway.core.errors import (
    ConfigurationError,
    Draining,
    InvalidKey,
    InvalidRequest,
    MethodNotAllowed,
    MissingKey,
    NotFound,
    ParkwayError,
    StartupError,
)
from parkway.core.models import Model, ModelList
from parkway.core.tasks import Tasks
from parkway.engine import builtin, machine
from parkway.engine.call import Call, Operation, request_id_of
from parkway.engine.config import EngineConfig
from parkway.engine.directory import ModelDirectory
from parkway.engine.embedder import Embedder
from parkway.engine.follower import leading
from parkway.engine.generator import Generator
from parkway.engine.service import EmbeddingService, Service, TextService

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "PARKWAY_ENGINE_TOKEN"  # noqa: S105 - the name of a variable, not a token
"""Where it is set, every route but /healthz needs `Authorization: Bearer` with its value."""

_SMALL_MATRIX = 1 << 19
"""Elements. Measured with 2 threads: at 384 x 1024 no gain even on an idle machine, at 512 x 1536 half the time."""

_PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
)


def run(config: EngineConfig) -> None:
    """Serve until SIGTERM or SIGINT; prints `ready http://HOST:PORT` once the first request would succeed.

    Raises:
        ParkwayError: the model cannot be loaded, or the port is taken.
    """
    uvloop.run(serve(config, lambda url: print(f"ready {url}", flush=True)))


async def serve(config: EngineConfig, announce: Callable[[str], None]) -> None:
    """Load the model and serve it until the process is told to stop; then drain.

    Args:
        announce: called with the server's URL once it is ready.
    """
    with ExitStack() as stack, _listen(config.host, config.port) as listener:
        name = _name_of(config)
        service = load_service(config, name, stack)
        await service.warm_up()
        app = create_app(service, config, name, token=os.environ.get(TOKEN_VARIABLE))
        server = ChildServer(_uvicorn_config(app, config), lambda: announce(_url(listener)))
        try:
            async with Tasks("engine") as tasks:
                tasks.start(_end_after_drain(server, service, config.drain_s), name="drain")
                await server.serve(sockets=[listener])
        finally:
            await service.close()


def _name_of(config: EngineConfig) -> str:
    return config.name or Path(config.model).expanduser().resolve().name


def load_service(config: EngineConfig, name: str, stack: ExitStack) -> Service:
    """The model of `config`, loaded.

    Args:
        stack: ends the other processes of a divided model.

    Raises:
        ModelFilesError: it cannot be loaded.
        ConfigurationError: it is a sentence encoder, and there are adapters for it.
    """
    directory = ModelDirectory(builtin.resolve(config.model))
    threads = config.threads or max(1, _threads_for(directory.config) // config.tensor_parallel)
    torch.set_num_threads(threads)
    if directory.kind == "encoder":
        if config.adapters:
            raise ConfigurationError(f"{directory.path}: a sentence encoder takes no adapters; start it without them")
        return EmbeddingService(Embedder(directory, config), name)
    group = stack.enter_context(leading(directory.path, config, threads)) if config.tensor_parallel > 1 else None
    return TextService(Generator.load(directory, config, group), name)


def _threads_for(config: dict[str, Any]) -> int:
    """One a core, but a single one where matrices are so small that a second thread would mostly wait."""
    hidden, inner = config.get("hidden_size"), config.get("intermediate_size")
    small = isinstance(hidden, int) and isinstance(inner, int) and hidden * inner < _SMALL_MATRIX
    return 1 if small else machine.cores()


def create_app(service: Service, config: EngineConfig, name: str, *, token: str | None) -> ASGIApp:
    """The routes around a loaded model.

    Args:
        token: what callers must present; None lets everybody in.
    """
    started_s = int(time.time())
    calls_limit = config.queue_limit + config.max_sequences

    async def alive(_: Request) -> Response:
        return _json({"status": "ok"})

    async def list_models(_: Request) -> Response:
        return _json(ModelList(data=[Model(id=each, created=started_s) for each in service.models()]))

    async def metrics(_: Request) -> Response:
        return Response(service.metrics.page(), media_type="text/plain; version=0.0.4")

    def operation(path: str) -> Operation:
        answer = service.operations.get(path) or _missing(path, name, list(service.operations))
        return Operation(answer, max_body_bytes=config.max_body_bytes, calls_limit=calls_limit)

    return Starlette(
        routes=[
            Route("/healthz", alive),
            Route("/readyz", alive),
            Route("/metrics", metrics),
            Route("/v1/models", list_models),
            *(Route(path, operation(path), methods=["POST"]) for path in _PATHS),
        ],
        middleware=[Middleware(_Door, token=token)] if token else [],
        exception_handlers={HTTPException: _http_error},
    )


class _Door:
    """Lets in who presents the token, and everybody to /healthz."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/healthz":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if hmac.compare_digest(given, self._expected):
            await self._app(scope, receive, send)
            return
        error = (
            InvalidKey("the token is not this engine's")
            if given
            else MissingKey("this engine needs a token: send `Authorization: Bearer ...`")
        )
        await Call(request_id_of(scope), b"", send).fail(error)


async def _end_after_drain(server: ChildServer, service: Service, drain_s: float) -> None:
    """Once the time to drain is over, end what still runs with an error rather than in silence."""
    await server.stopping.wait()
    await asyncio.sleep(drain_s)
    service.abort(Draining(f"the engine stops, and {drain_s:g} s were not enough to finish this answer"))


def _uvicorn_config(app: ASGIApp, config: EngineConfig) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        # A little longer than ours, so that aborted answers still get their last event out.
        timeout_graceful_shutdown=int(config.drain_s) + 3,
    )


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket. Bound before the model is loaded: a taken port should not cost that time."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StartupError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _missing(path: str, name: str, answered: list[str]) -> Callable[[Call], Awaitable[None]]:
    async def answer(_: Call) -> None:
        raise InvalidRequest(f"the model {name!r} has no {path}; it answers {', '.join(answered)}")

    return answer


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    path = request.url.path
    told: ParkwayError = (
        MethodNotAllowed(f"{request.method} is not allowed on {path}")
        if status == MethodNotAllowed.status
        else NotFound(f"no such path: {path}; try /v1/models")
    )
    return _json(told.to_body(request_id_of(request.scope)), status=told.status)


def _json(value: object, status: int = 200) -> Response:
    return Response(wire.encode(value), status, media_type="application/json")
