"""A candidate: an endpoint together with what the router has learned about it while it runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from multidict import CIMultiDict
from yarl import URL

from parkway import __version__
from parkway.router.condition import Circuit, Condition, Ejection
from parkway.router.config import BreakerConfig
from parkway.router.endpoint import Endpoint
from parkway.router.latency import PeakEwma

log = logging.getLogger(__name__)


def _nobody(*_: object) -> None:
    pass


class Candidate:
    """An endpoint that may be picked, its requests in flight and its condition.

    Args:
        endpoint: Replaced in place while its address stays the same, so that the counts survive.
        wake: Called when the endpoint ought to be checked at once.
    """

    def __init__(self, endpoint: Endpoint, wake: Callable[[], None], config: BreakerConfig | None = None) -> None:
        self.endpoint = endpoint
        self.outstanding = 0
        """Requests sent whose answer is not yet at its end."""
        self.circuit = Circuit(endpoint.endpoint_id, config or BreakerConfig(), self._changed)
        self.latency = PeakEwma()
        """From sending a request to the beginning of its answer."""
        self.check_at = 0.0
        """When to check its health next, in seconds of the monotonic clock."""
        self.checking = False
        self.on_load: Callable[[Candidate, int], None] = _nobody
        """Called when `outstanding` has changed, with by how much."""
        self.on_change: Callable[[Candidate, Ejection | None], None] = _nobody
        """Called when it may have become usable or stopped being so, with what took it out."""
        self._wake = wake
        self._urls: dict[str, URL] = {}
        self._no_key: str | None = None
        self.headers = self._fixed_headers()

    @property
    def condition(self) -> Condition:
        return self.circuit.condition

    @property
    def reachable(self) -> bool:
        """Whether it takes requests at all, whatever its condition."""
        return self.endpoint.state == "ready" and self.headers is not None

    @property
    def usable(self) -> bool:
        return self.reachable and self.circuit.in_use

    def take(self) -> None:
        """A request is on its way."""
        self.outstanding += 1
        self.on_load(self, 1)

    def give_back(self) -> None:
        """It is over, however it ended."""
        self.outstanding -= 1
        self.on_load(self, -1)

    def speaks_to(self, endpoint: Endpoint) -> bool:
        """Whether `endpoint` is still the same server, spoken to in the same way."""
        mine = self.endpoint
        return (mine.url, mine.api_key_env, mine.source) == (endpoint.url, endpoint.api_key_env, endpoint.source)

    def become(self, endpoint: Endpoint) -> None:
        """Takes over a changed weight or state. A return to `ready` is news: what was held against it is dropped."""
        if endpoint.state == "ready" != self.endpoint.state:
            self.circuit.forget()
            self.check_at = 0.0
        self.endpoint = endpoint

    def url(self, path: str) -> URL:
        """The address of `path` (such as `/chat/completions`) at this endpoint."""
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = URL(self.endpoint.base + path)
        return url

    def why_not(self) -> str:
        """One clause that says why it is not usable."""
        if self.endpoint.state != "ready":
            return f"{self.endpoint.endpoint_id} is {self.endpoint.state}"
        return f"{self.endpoint.endpoint_id}: {self._no_key or self.circuit.fault}"

    def suspect(self, fault: str) -> None:
        """A live connection failed: last in line from now on, and checked at once."""
        if self.circuit.suspect(fault):
            self.check_at = 0.0
            self._wake()

    def _changed(self, ejection: Ejection | None) -> None:
        self.on_change(self, ejection)

    def _fixed_headers(self) -> CIMultiDict[str] | None:
        """The headers that every request to this endpoint has; None, with the fault told, where its key is missing."""
        headers = CIMultiDict({
            "content-type": "application/json",
            # Streams are relayed as bytes and read on the side, so nothing may compress them.
            "accept-encoding": "identity",
            "user-agent": f"parkway/{__version__}",
        })  # fmt: skip
        variable = self.endpoint.api_key_env
        if variable is None:
            return headers
        key = os.environ.get(variable, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            self._no_key = f"the environment variable {variable} (`api_key_env`) is not set to a key"
            log.warning("endpoint %s cannot be used: %s", self.endpoint.endpoint_id, self._no_key)
            return None
        headers["authorization"] = f"Bearer {key}"
        return headers
