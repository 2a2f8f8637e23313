"""The supervisor's share of a changed configuration: the hosts in the registry, and the copy for its children."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from parkway.core.errors import ConfigurationError, InvalidRequest, StoreUnavailable
from parkway.core.tasks import Tasks
from parkway.launch.child import Say
from parkway.launch.family import write_snapshot
from parkway.launch.publication import remote_endpoints
from parkway.launch.reload import HOSTS, INTERVAL_S, Commit, Outcome, Prepare, Reload, Source, Watcher, permission_files
from parkway.launch.settings import Settings
from parkway.launch.trouble import CONFIGURATION, Troubles, refusal, the_collection
from parkway.router.endpoint import Endpoint
from parkway.store.home import Home

Write = Callable[[Sequence[Endpoint]], None]
"""Replaces all endpoints that the configuration gives by URL. Waits for the store."""

_RETRY_S = 1.0

# What the supervisor itself was started with. Of everything else the gateway knows when it takes effect.
_AT_START = (
    "gateway.host", "gateway.port", "gateway.workers", "registry.*", "store.*", "engine.*",
    "models.*.path", "models.*.load", "models.*.keep_alive_s",
    "start_timeout_s", "liveness_s", "memory_bytes", "pulled_models",
    "knowledge.*.model", "knowledge.*.index", "knowledge.*.index.*", "knowledge_partitions", "knowledge_replicas",
)  # fmt: skip


class Followed:
    """A configuration whose changes the supervisor follows."""

    def __init__(
        self, settings: Settings, source: Source, home: Home, write: Write, own: Prepare, say: Say, troubles: Troubles
    ) -> None:
        """
        Args:
            own: Has the owners of documents started where there is something to own now.
            troubles: Tells that the configuration cannot be used.
        """
        self._home = home
        self._write = write
        self._say = say
        self._troubles = troubles
        self._path = source.path
        self._endpoints: list[Endpoint] = []
        self._changed = asyncio.Event()
        self._reload = Reload(settings)
        self._reload.register(self._publish, HOSTS)
        self._reload.register(own, "knowledge")
        self._reload.register(_check_permissions, files=permission_files)
        self._watcher = Watcher(self._reload, source, self._tell)

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self._reload.settings

    def start(self, tasks: Tasks, *, look_s: float = INTERVAL_S) -> None:
        """Begins to look."""
        tasks.every(look_s, self._watcher.look, name="configuration")
        tasks.start(self._keep_published(), name="hosts")

    def _publish(self, settings: Settings) -> Commit:
        try:
            endpoints = remote_endpoints(settings)
        except InvalidRequest as error:
            raise ConfigurationError(error.message) from error

        def commit() -> None:
            self._endpoints = endpoints
            self._changed.set()

        return commit

    async def _keep_published(self) -> None:
        """Writes the latest hosts down, and again until the store has them."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await asyncio.to_thread(self._write, self._endpoints)
            except StoreUnavailable as error:
                self._say(f"the hosts of the configuration cannot be stored, trying again: {error.message}")
                await asyncio.sleep(_RETRY_S)
                self._changed.set()

    def _tell(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._troubles.hear("", {CONFIGURATION: refusal(outcome.error, self._path)})
            return
        self._troubles.hear("", {})
        self._say(f"the configuration was read again; changed: {', '.join(outcome.changed) or 'nothing'}")
        if pending := [key for key in outcome.changed if self._waits(key)]:
            self._say(f"takes effect at the next start: {', '.join(pending)}")
        try:
            write_snapshot(self._reload.settings, self._home)
        except OSError as error:
            self._say(f"a restarted gateway would begin with the old configuration: {self._home.path}: {error}")

    def _waits(self, key: str) -> bool:
        """Whether it takes effect at the next start. What could not be opened is opened as it is configured now."""
        closed = [name for name in self.settings.knowledge if self._troubles.concerns(the_collection(name))]
        return any(fnmatchcase(key, pattern) for pattern in _AT_START) and not any(
            key.startswith(f"knowledge.{name}.") for name in closed
        )


def _check_permissions(settings: Settings) -> Commit:
    settings.permissions.policies()
    return lambda: None
