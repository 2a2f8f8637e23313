"""Telling the registry which engines of this machine can be asked: soon, and again until the store has it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from parkway.core.errors import StoreUnavailable
from parkway.core.tasks import start_thread
from parkway.launch.child import Say
from parkway.launch.settings import Settings
from parkway.router.endpoint import Endpoint

Write = Callable[[Sequence[Endpoint]], None]
"""Replaces all endpoints of local engines at once. Waits for the store."""


class Publication:
    """The endpoints of the local engines, and a thread that writes them down.

    Only the latest state matters, so there is no queue: while the store does not answer, changes replace one another
    in memory, and the supervisor never waits.
    """

    def __init__(self, say: Say, *, retry_s: float = 1.0) -> None:
        self._say = say
        self._retry_s = retry_s
        self._endpoints: dict[str, Endpoint] = {}
        self._changed = threading.Condition()
        self._version = 0
        self._written = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, *endpoints: Endpoint) -> None:
        """Adds endpoints, or replaces those with the same ids, all in one step."""
        with self._changed:
            if any(self._endpoints.get(endpoint.endpoint_id) != endpoint for endpoint in endpoints):
                self._endpoints |= {endpoint.endpoint_id: endpoint for endpoint in endpoints}
                self._notify()

    def remove(self, *endpoint_ids: str) -> None:
        """Forgets those of these endpoints that there are, all in one step."""
        with self._changed:
            if known := self._endpoints.keys() & endpoint_ids:
                for endpoint_id in known:
                    del self._endpoints[endpoint_id]
                self._notify()

    @property
    def written(self) -> bool:
        """Whether the store has all that is known by now."""
        return self._written == self._version

    def start(self, write: Write) -> None:
        """Writes what is known by now, then every change as it comes. Until this, changes are only collected.

        Raises:
            StoreUnavailable: The first write failed.
        """
        with self._changed:
            version, endpoints = self._version, list(self._endpoints.values())
        write(endpoints)
        self._written = version
        self._thread = start_thread(lambda: self._follow(write), name="publication")

    def close(self, timeout_s: float = 5.0) -> None:
        """Takes back all endpoints and ends the thread; waits at most `timeout_s` for the store."""
        with self._changed:
            self._endpoints.clear()
            self._closed = True
            self._notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _notify(self) -> None:
        self._version += 1
        self._changed.notify_all()

    def _follow(self, write: Write) -> None:
        away = False
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._version != self._written)
                version, endpoints, last = self._version, list(self._endpoints.values()), self._closed
            try:
                write(endpoints)
            except StoreUnavailable as error:
                if not away:
                    self._say(f"the state of the engines cannot be stored, trying again: {error.message}")
                away = True
                with self._changed:
                    self._changed.wait(self._retry_s)
                continue
            if away:
                self._say("the state of the engines is stored again")
                away = False
            self._written = version
            if last:
                return


def remote_endpoints(settings: Settings) -> list[Endpoint]:
    """The endpoints that the configuration gives by URL. Their ids stay the same from start to start."""
    return [
        Endpoint(
            endpoint_id=f"{name}@{number}",
            model=name,
            url=place.url,
            upstream_model=place.model or name,
            weight=place.weight,
            api_key_env=place.api_key_env,
            source="config",
        )
        for name, model in settings.models.items()
        for number, place in enumerate(model.all())
        if place.url
    ]
