"""The routes that models are asked through: chat, completions, embeddings, rerank."""

from __future__ import annotations

import math
import time

from starlette.types import Receive, Scope, Send

from parkway.core.errors import InvalidRequest
from parkway.gateway.client import AsgiClient
from parkway.gateway.config import GatewayConfig
from parkway.pipeline.answer import answer
from parkway.pipeline.exchange import Exchange, Surface
from parkway.pipeline.parts import Parts


class ModelRoute:
    """An ASGI app that takes one request through the pipeline."""

    def __init__(self, surface: Surface, parts: Parts, config: GatewayConfig) -> None:
        self._surface = surface
        self._parts = parts
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsgiClient(scope, receive, send, self._config.body_timeout_s) as client:
            exchange = Exchange(
                request_id=scope["state"]["request_id"],
                surface=self._surface,
                client=client,
                authorization=client.header(b"authorization"),
                traceparent=client.header(b"traceparent"),
                deadline=time.monotonic() + self._timeout_s(client),
            )
            with self._parts.metrics.in_flight.track_inprogress():
                await answer(exchange, self._parts)

    def _timeout_s(self, client: AsgiClient) -> float:
        """The client's own time-out where it sends one, never over the configured one."""
        asked = client.header(b"x-parkway-timeout-s")
        if asked is None:
            return self._config.timeout_s
        try:
            seconds = float(asked)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise InvalidRequest(f"header `x-parkway-timeout-s`: {asked[:40]!r} is not a positive number of seconds")
        return min(seconds, self._config.timeout_s)
