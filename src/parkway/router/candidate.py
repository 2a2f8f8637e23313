"""A candidate: an endpoint together with what the router has learned about it while it runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from urllib.parse import quote, urlsplit

from parkway import __version__
from parkway.router.condition import Circuit, Condition, Ejection
from parkway.router.config import BreakerConfig
from parkway.router.connections import Origin
from parkway.router.endpoint import Endpoint
from parkway.router.intake import ANYTHING, Intake
from parkway.router.latency import PeakEwma

log = logging.getLogger(__name__)


def _nobody(*_: object) -> None:
    pass


class Candidate:
    """An endpoint that may be picked, its requests in flight and its condition.

    Args:
        endpoint: Replaced in place while its address stays the same, so that the counts survive.
        wake: Called when the endpoint ought to be checked at once.
        intake: What may be sent to it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        wake: Callable[[], None],
        config: BreakerConfig | None = None,
        intake: Intake = ANYTHING,
    ) -> None:
        self.endpoint = endpoint
        self.intake = intake
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
        self._heads: dict[tuple[str, str], bytes] = {}
        self.origin = Origin.of(endpoint.url)
        self.base_path = urlsplit(endpoint.base).path
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

    def has_room(self, limit: int) -> bool:
        """Whether one more request may be sent to it; `limit` is for those that say nothing themselves."""
        return self.outstanding < (self.intake.max_concurrency or limit)

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

    def head(self, method: str, path: str) -> bytes:
        """How a request for `path`, `base_path` included, begins at this endpoint: all that is always the same.

        Raises:
            RuntimeError: The endpoint's key is missing.
        """
        head = self._heads.get((method, path))
        if head is None:
            if self.headers is None:
                raise RuntimeError("an endpoint that is not usable was picked")
            target = quote(path, safe="/%:@!$&'()*+,;=-._~")
            start = f"{method} {target} HTTP/1.1\r\nhost: {self.origin.authority}\r\n"
            head = self._heads[method, path] = start.encode("ascii") + self.headers
        return head

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

    def _fixed_headers(self) -> bytes | None:
        """The headers that every request to this endpoint has; None, with the fault told, where its key is missing."""
        # Streams are relayed as bytes and read on the side, so nothing may compress them.
        headers = "content-type: application/json\r\naccept-encoding: identity\r\n"
        headers += f"user-agent: parkway/{__version__}\r\n"
        variable = self.endpoint.api_key_env
        if variable is None:
            return headers.encode()
        key = os.environ.get(variable, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            self._no_key = f"the environment variable {variable} (`api_key_env`) is not set to a key"
            log.warning("endpoint %s cannot be used: %s", self.endpoint.endpoint_id, self._no_key)
            return None
        return f"{headers}authorization: Bearer {key}\r\n".encode()
