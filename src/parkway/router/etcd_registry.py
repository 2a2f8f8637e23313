"""The registry in etcd: what this publisher has stands under a lease, and goes away with whoever kept it alive."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import TypeVar
from urllib.parse import quote

import msgspec

from parkway.core.errors import InvalidRequest, StoreUnavailable
from parkway.core.tasks import start_thread
from parkway.router.config import RegistryConfig
from parkway.router.endpoint import Endpoint, EndpointSource
from parkway.router.registry import Entry, distinct, visible
from parkway.store.etcd import Etcd

log = logging.getLogger(__name__)

T = TypeVar("T")

API = "-"
"""Stands for the publisher of endpoints that nobody keeps alive: those of the source `api`."""

_LONGEST_PAUSE_S = 1.0


def folder_of(config: RegistryConfig) -> str:
    """The prefix of the keys of all endpoints: `FOLDER PUBLISHER/ID`."""
    return f"{config.prefix.rstrip('/')}/endpoints/"


def pause_s(failures: int) -> float:
    """How long to wait after so many failures in a row: at most a second, and never the same for all."""
    return min(_LONGEST_PAUSE_S, 0.05 * 2.0 ** min(failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


def entry_of(key: str, value: bytes) -> Entry | None:
    """What stands under a key; None where it makes no sense, which is logged: it must not take the others away."""
    try:
        publisher = key.rsplit("/", 2)[1]
        fields = msgspec.json.decode(value)
        return Entry(publisher if publisher != API else "", Endpoint(**fields))
    except (msgspec.DecodeError, InvalidRequest, TypeError, IndexError) as error:
        log.error("the registry has an entry that cannot be used: %s: %s", key[:200], error)
        return None


class EtcdRegistry:
    """The endpoints in etcd, as one publisher writes them. The methods wait for etcd; none is for an event loop.

    A thread of its own keeps the lease alive from the first `replace` on, writes again what was lost, and goes on
    trying while etcd is away.

    Args:
        publisher: Whose endpoints these are; stays the same from start to start.
        say: Told once that etcd is away, and once that it is back.
    """

    def __init__(self, config: RegistryConfig, publisher: str, say: Callable[[str], None] = log.warning) -> None:
        self._config = config
        self._publisher = publisher
        self._say = say
        self._folder = folder_of(config)
        self._changed = threading.Condition()
        self._own: dict[str, Endpoint] = {}
        self._version = 0
        self._written = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        self._wake: Callable[[], None] = lambda: None

    def put(self, endpoint: Endpoint) -> None:
        """Adds `endpoint`, or replaces the one that has its id. One of the source `api` stays until it is removed.

        Raises:
            StoreUnavailable: etcd does not answer, and the source is `api`; others are written when it does.
        """
        if endpoint.source == "api":
            self._once(lambda etcd: etcd.write({self._key(API, endpoint.endpoint_id): _value(endpoint)}))
            return
        with self._changed:
            self._own[endpoint.endpoint_id] = endpoint
        self._publish()

    def remove(self, endpoint_id: str) -> bool:
        """Forgets an endpoint of ours or of the source `api`; whether there was one.

        Raises:
            StoreUnavailable: etcd does not answer.
        """

        async def remove(etcd: Etcd) -> bool:
            key = self._key(API, endpoint_id)
            found = key in (await etcd.list(key)).values
            await etcd.write({}, [key])
            return found

        with self._changed:
            known = self._own.pop(endpoint_id, None) is not None
        if known:
            self._publish()
        return self._once(remove) or known

    def replace(self, source: EndpointSource, endpoints: Iterable[Endpoint]) -> None:
        """Makes `endpoints` all that we have of `source`.

        While etcd is away this returns after a while; what was asked for is written as soon as etcd is back.
        """
        wanted = distinct(replace(endpoint, source=source) for endpoint in endpoints)
        with self._changed:
            kept = {name: each for name, each in self._own.items() if each.source != source}
            self._own = kept | {each.endpoint_id: each for each in wanted}
        self._publish()

    def list(self) -> list[Endpoint]:
        """Every endpoint that we can use, by model and id.

        Raises:
            StoreUnavailable: etcd does not answer.
        """
        values = self._once(lambda etcd: etcd.list(self._folder)).values
        entries = [entry for key, value in values.items() if (entry := entry_of(key, value)) is not None]
        return visible(entries, self._publisher)

    def close(self, timeout_s: float = 5.0) -> None:
        """Takes back what we published; waits at most `timeout_s` for it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._wake()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _publish(self) -> None:
        with self._changed:
            self._version += 1
            version = self._version
            if self._thread is None and not self._closed:
                self._thread = start_thread(lambda: asyncio.run(self._keep()), name="registry")
        self._wake()
        with self._changed:
            self._changed.wait_for(lambda: self._written >= version or self._closed, self._config.timeout_s)

    def _once(self, work: Callable[[Etcd], Awaitable[T]]) -> T:
        async def run() -> T:
            etcd = Etcd(self._config)
            try:
                return await work(etcd)
            finally:
                await etcd.close()

        return asyncio.run(run())

    async def _keep(self) -> None:
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(changed.set)

        self._wake = wake
        etcd = Etcd(self._config)
        lease: str | None = None
        failures = 0
        try:
            while not self._closed:
                changed.clear()
                try:
                    lease = await self._round(etcd, lease)
                    if failures:
                        self._say("etcd is back; the endpoints of this Parkway are published")
                    failures = 0
                except StoreUnavailable as error:
                    failures += 1
                    if failures == 1:
                        self._say(f"{error.message}; the endpoints are published when it does, traffic goes on")
                rest_s = pause_s(failures) if failures else self._config.lease_s / 3
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rest_s):
                        await changed.wait()
            if lease is not None:
                with contextlib.suppress(StoreUnavailable):
                    await etcd.revoke(lease)
        finally:
            await etcd.close()

    async def _round(self, etcd: Etcd, lease: str | None) -> str | None:
        """Keeps the lease and makes etcd have what we have, whatever happened to it; the lease."""
        fresh = lease is None or not await etcd.keep_alive(lease)
        lease = await etcd.grant(self._config.lease_s) if fresh else lease
        with self._changed:
            version, own = self._version, list(self._own.values())
        wanted = {self._key(self._publisher, each.endpoint_id): _value(each) for each in own}
        there = (await etcd.list(f"{self._folder}{self._publisher}/")).values
        # What an earlier life of this publisher wrote belongs to a lease that ends soon: under ours it stays.
        puts = wanted if fresh else {key: value for key, value in wanted.items() if there.get(key) != value}
        deletes = there.keys() - wanted.keys()
        if (puts or deletes) and not await etcd.write(puts, deletes, lease):
            raise StoreUnavailable("etcd has ended the lease already")
        with self._changed:
            self._written = version
            self._changed.notify_all()
        return lease

    def _key(self, publisher: str, endpoint_id: str) -> str:
        return f"{self._folder}{publisher}/{quote(endpoint_id, safe='')}"


def _value(endpoint: Endpoint) -> bytes:
    return msgspec.json.encode(endpoint)
