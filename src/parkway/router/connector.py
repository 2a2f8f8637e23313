"""The pool of connections to all endpoints."""

from __future__ import annotations

import weakref
from contextvars import ContextVar

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from parkway.router.config import RouterConfig

_kept_alive: ContextVar[bool] = ContextVar("kept_alive", default=False)
_only_new: ContextVar[bool] = ContextVar("only_new", default=False)


class Connector(aiohttp.TCPConnector):
    """aiohttp's pool, which also remembers whether a connection had been used before.

    A server may close an idle connection at the very moment at which we send on it. That says nothing about the
    server, and the request was never seen; so the router has to tell this case from a server that broke.
    """

    def __init__(self, config: RouterConfig) -> None:
        super().__init__(
            # The fleet bounds the requests of each endpoint and refuses what is more; the pool would let it queue.
            limit=0,
            keepalive_timeout=config.keepalive_s,
            ttl_dns_cache=int(config.dns_ttl_s) or 1,
        )
        self._used: weakref.WeakSet[ResponseHandler] = weakref.WeakSet()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Like aiohttp's; afterwards `was_kept_alive` tells of this connection, within the same task."""
        connection = await super().connect(req, traces, timeout)
        protocol = connection.protocol
        if protocol in self._used:
            _kept_alive.set(True)
        elif protocol is not None:
            _kept_alive.set(False)
            self._used.add(protocol)
        return connection

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        """aiohttp's look into the pool for a connection to use again."""
        return None if _only_new.get() else await super()._get(key, traces)


def use_only_new(only_new: bool) -> None:
    """Whether requests of this task from now on leave the connections alone that have carried a request before.

    Where a server has closed one idle connection it has closed the others too, and each would fail in its turn.
    """
    _only_new.set(only_new)


def was_kept_alive() -> bool:
    """Whether the connection that this task got last had carried a request before."""
    return _kept_alive.get()


def new_session(config: RouterConfig) -> aiohttp.ClientSession:
    """A session that adds nothing of its own to a request: no cookies, no headers, no decompression."""
    return aiohttp.ClientSession(
        connector=Connector(config),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("accept", "accept-encoding", "user-agent", "content-type"),
    )
