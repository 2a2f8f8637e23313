"""Connections to all endpoints, kept alive."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from typing import NamedTuple
from urllib.parse import urlsplit

from parkway.router.config import RouterConfig
from parkway.router.connection import Broken, Connection, Headers, Late

_MOST_ADDRESSES = 1024  # host names whose addresses are remembered


class Unreachable(Exception):
    """No connection came to be; the text says why, as a clause, without the address: that is no business of clients."""


class Origin(NamedTuple):
    """Where a connection leads to. Connections of one origin are as good as each other."""

    host: str
    port: int
    tls: bool

    @classmethod
    def of(cls, url: str) -> Origin:
        """Of an http:// or https:// URL that was checked already."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        return cls(parts.hostname or "", parts.port or (443 if tls else 80), tls)

    @property
    def authority(self) -> str:
        """What belongs into the header `host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class Connections:
    """Connections that are kept alive between exchanges; a new one wherever none is idle.

    It bounds nothing: the fleet bounds the requests of each endpoint and refuses what is more, where a pool would let
    them queue. The connection that was used last is used first, so that the others come to rest and are closed.
    """

    def __init__(self, config: RouterConfig) -> None:
        self._config = config
        self._idle: dict[Origin, deque[Connection]] = {}
        self._busy: set[Connection] = set()
        self._addresses: dict[tuple[str, int], tuple[float, list[str]]] = {}
        self._tls: ssl.SSLContext | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    def replace(self, config: RouterConfig) -> None:
        """Other times from now on: what has rested longer is closed, and every address looked up anew."""
        self._config = config
        self._addresses.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweep()

    async def ask(self, origin: Origin, request: bytes, deadline: float) -> Answer:
        """Sends a whole request, and waits for the headers of its answer, which the caller closes.

        Args:
            deadline: Of the whole exchange, on the loop's clock; connecting has a time-out of its own besides.

        Raises:
            Unreachable: There is no connection to be had.
            Broken: The connection ended before the answer, or what came is not HTTP.
            Late: The deadline passed first.
        """
        connection = self._rested(origin) or await self._connect(origin, deadline)
        self._busy.add(connection)
        try:
            headers = await connection.send(request, deadline)
        except Broken as error:
            error.kept_alive = connection.exchanges > 1
            self._put(origin, connection)
            if error.kept_alive:
                self._drop_idle(origin)  # the others have rested for longer: the next attempt gets a new one
            raise
        except BaseException:  # whoever leaves, leaves nothing behind
            self._put(origin, connection)
            raise
        return Answer(self, origin, connection, headers)

    def _rested(self, origin: Origin) -> Connection | None:
        """A connection that is idle and good for another exchange."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.reusable:
                return connection
            connection.abort()
        return None

    def _put(self, origin: Origin, connection: Connection) -> None:
        """Takes a connection back. What was not read to its end is cut off at the socket, at once."""
        self._busy.discard(connection)
        if not connection.reusable:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        idle = self._idle.get(origin)
        if idle is None:
            idle = self._idle[origin] = deque()
        idle.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._config.keepalive_s, self._sweep)

    def _drop_idle(self, origin: Origin) -> None:
        for connection in self._idle.pop(origin, ()):
            connection.abort()

    def close(self) -> None:
        """Closes every connection, busy ones too."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in (*self._busy, *(each for idle in self._idle.values() for each in idle)):
            connection.abort()
        self._idle.clear()
        self._busy.clear()

    def _sweep(self) -> None:
        """Closes what has rested for too long, and comes again while anything rests."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._config.keepalive_s
        for origin, idle in list(self._idle.items()):
            while idle and (idle[0].idle_since <= oldest or not idle[0].reusable):
                idle.popleft().abort()
            if not idle:
                del self._idle[origin]
        self._sweeper = loop.call_later(self._config.keepalive_s / 2, self._sweep) if self._idle else None

    async def _connect(self, origin: Origin, deadline: float) -> Connection:
        loop = asyncio.get_running_loop()
        until = min(deadline, loop.time() + self._config.connect_timeout_s)
        try:
            async with asyncio.timeout_at(until):
                return await self._connect_to_any(loop, origin, await self._resolve(loop, origin))
        except TimeoutError:
            if loop.time() >= deadline:
                raise Late from None
            raise Unreachable("connecting took too long") from None

    async def _connect_to_any(
        self, loop: asyncio.AbstractEventLoop, origin: Origin, addresses: list[str]
    ) -> Connection:
        """To the first of a name's addresses that answers."""
        failure = Unreachable("its host name has no address")
        for address in addresses:
            try:
                _, connection = await loop.create_connection(
                    lambda: Connection(loop),
                    address,
                    origin.port,
                    ssl=self._context() if origin.tls else None,
                    server_hostname=origin.host if origin.tls else None,
                )
            except ssl.SSLCertVerificationError:
                raise Unreachable("its certificate is not trusted") from None
            except ssl.SSLError:
                raise Unreachable("no TLS at its https address") from None
            except OSError as error:
                failure = Unreachable(f"no connection ({_reason(error)})")
            else:
                return connection
        # The next attempt looks the name up anew: the addresses may have changed.
        self._addresses.pop((origin.host, origin.port), None)
        raise failure

    async def _resolve(self, loop: asyncio.AbstractEventLoop, origin: Origin) -> list[str]:
        """The addresses of a host name, looked up in a thread and remembered for `dns_ttl_s`."""
        place = (origin.host, origin.port)
        known = self._addresses.get(place)
        if known is not None and known[0] > loop.time():
            return known[1]
        try:
            found = await loop.getaddrinfo(*place, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError):
            raise Unreachable("its host name is not known") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if len(self._addresses) >= _MOST_ADDRESSES:
            self._addresses.clear()
        self._addresses[place] = (loop.time() + self._config.dns_ttl_s, addresses)
        return addresses

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


class Answer:
    """An endpoint's answer, whose headers have arrived.

    Attributes:
        status: Its HTTP status.
        headers: Names in any case.
    """

    __slots__ = ("_closed", "_connection", "_connections", "_origin", "headers", "status")

    def __init__(self, connections: Connections, origin: Origin, connection: Connection, headers: Headers) -> None:
        self._connections = connections
        self._origin = origin
        self._connection = connection
        self._closed = False
        self.headers = headers
        self.status = connection.status

    async def read(self) -> bytes:
        """What has arrived of the body since the last time, once there is something; empty at its end.

        Raises:
            Broken: The connection ended first, or it was closed here.
            Late: The deadline of the exchange passed first.
        """
        if self._closed:
            raise Broken("the answer was closed", answered=True)
        return await self._connection.read()

    def rest(self) -> bytes | None:
        """What has not been read of the body yet, if all of it has arrived."""
        return None if self._closed else self._connection.rest()

    def close(self) -> None:
        """Gives the connection back: for the next exchange where the body was read to its end, else to be cut."""
        if not self._closed:
            self._closed = True
            self._connections._put(self._origin, self._connection)


def _reason(error: OSError) -> str:
    """Not the error's own text: it names the address."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else type(error).__name__
