"""Keeps what the router knows in step with etcd, and as it was while etcd is away."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import msgspec

from parkway.core.errors import StoreUnavailable
from parkway.router.config import RegistryConfig
from parkway.router.endpoint import Endpoint
from parkway.router.etcd_registry import entry_of, folder_of, pause_s
from parkway.router.registry import Entry, visible
from parkway.store.etcd import Etcd, Listing

log = logging.getLogger(__name__)

_QUIET_S = 1.0  # of a watch, after which we ask whether etcd is still there
_RELIST_S = 60.0  # whatever a watch may have missed is found after this


class Follower:
    """The endpoints in etcd, followed.

    What is deleted while we look goes at once. What is only found missing, after etcd was away or has lost its data,
    stays for `grace_s`: its publisher may be about to publish it again. The clock of the machine plays no part.

    Args:
        publisher: Ours: its endpoints keep their names, and those of this machine are used by it alone.
        load: Told everything whenever something has changed.
        kept: Where what is known is kept, so that a process that starts while etcd is away knows it too.

    Attributes:
        connected: Whether what is known is what etcd has.
        on_change: Called with each new `connected`.
    """

    def __init__(
        self,
        config: RegistryConfig,
        publisher: str,
        load: Callable[[list[Endpoint]], None],
        kept: Path | None = None,
    ) -> None:
        self.connected = False
        self.on_change: Callable[[bool], None] = lambda _: None
        self._config = config
        self._publisher = publisher
        self._load = load
        self._kept = kept
        self._folder = folder_of(config)
        self._etcd = Etcd(config)
        self._known: dict[str, Entry] = {}
        self._raw: dict[str, bytes] = {}
        self._missing: dict[str, float] = {}
        self._told: bool | None = None
        self._cluster = ""
        self._changed = False

    async def start(self) -> None:
        """Loads what there is: from etcd, or where that does not answer, what was known last."""
        try:
            self._adopt(await self._etcd.list(self._folder))
            self._become(True)
            await self._keep()
        except StoreUnavailable as error:
            self._recall()
            self._become(False, error.message)

    async def run(self) -> None:
        """Follows, without end."""
        failures = 0
        while True:
            try:
                listing = await self._etcd.list(self._folder)
                self._adopt(listing)
                self._become(True)
                await self._keep()
                began = time.monotonic()
                await self._watch(listing)
                # A member that lists and does not let us watch is not asked again and again without a pause.
                failures = 0 if time.monotonic() - began >= _QUIET_S else failures + 1
            except StoreUnavailable as error:
                failures += 1
                self._become(False, error.message)
            await asyncio.sleep(pause_s(failures))

    async def close(self) -> None:
        await self._etcd.close()

    async def _watch(self, listing: Listing) -> None:
        """Takes in changes until it is better to look at everything again.

        Raises:
            StoreUnavailable: etcd is away.
        """
        member, until = self._etcd.member, time.monotonic() + _RELIST_S
        looked = time.monotonic()
        async with aclosing(self._etcd.watch(self._folder, listing.revision + 1, quiet_s=_QUIET_S)) as watch:
            async for events in watch:
                for event in events:
                    self._missing.pop(event.key, None)
                    self._take(event.key, event.value)
                if events:
                    self._tell()
                    await self._keep()
                now = time.monotonic()
                if now - looked >= _QUIET_S:
                    looked = now
                    self._give_up_missing()
                    cluster, revision = await self._etcd.revision(self._folder)
                    # Another member than the one that we listen to, or other data than we began with.
                    if self._etcd.member != member or cluster != listing.cluster or revision < listing.revision:
                        return
                if now > until:
                    return

    def _adopt(self, listing: Listing) -> None:
        if self._cluster and listing.cluster != self._cluster:
            log.warning("etcd is another cluster than before; what it does not have yet stays for a while")
        self._cluster = listing.cluster
        before = dict(self._raw)
        for key, value in listing.values.items():
            self._missing.pop(key, None)
            self._take(key, value)
        now = time.monotonic()
        for key in self._raw.keys() - listing.values.keys():
            self._missing.setdefault(key, now)
        if before != self._raw or self._told is None:
            self._tell()
        self._give_up_missing()

    def _give_up_missing(self) -> None:
        now = time.monotonic()
        gone = [key for key, since in self._missing.items() if now - since >= self._config.grace_s]
        for key in gone:
            del self._missing[key]
            self._take(key, None)
        if gone:
            log.warning("%d endpoints have not come back to etcd and are gone", len(gone))
            self._tell()

    def _take(self, key: str, value: bytes | None) -> None:
        self._raw.pop(key, None)
        self._known.pop(key, None)
        if value is not None:
            self._raw[key] = value
            if (entry := entry_of(key, value)) is not None:
                self._known[key] = entry

    def _tell(self) -> None:
        self._load(visible(self._known.values(), self._publisher))
        self._changed = True

    async def _keep(self) -> None:
        """Writes down what is known, if it has changed. Whole or not at all."""
        if self._kept is None or not self._changed:
            return
        self._changed = False
        known = {key: self._raw[key].decode(errors="replace") for key in self._known}
        try:
            await asyncio.to_thread(_write, self._kept, msgspec.json.encode(known))
        except OSError as error:
            log.warning("what the registry has cannot be kept in %s: %s", self._kept, error)

    def _recall(self) -> None:
        try:
            found = msgspec.json.decode(self._kept.read_bytes(), type=dict[str, str]) if self._kept else {}
        except (OSError, msgspec.DecodeError):
            found = {}
        for key, value in found.items():
            self._take(key, value.encode())
        log.warning("etcd is away at the start; %d endpoints are known from before", len(self._known))
        self._load(visible(self._known.values(), self._publisher))

    def _become(self, connected: bool, why: str = "") -> None:
        self.connected = connected
        if self._told == connected:
            return
        if not connected:
            log.error("%s; the endpoints stay as they were known last", why)
        elif self._told is not None:
            log.warning("etcd is back; changes of endpoints are seen again")
        self._told = connected
        self.on_change(connected)


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_bytes(content)
    fresh.replace(path)
