"""A candidate: an endpoint together with what the router has learned about it while it runs."""

from __future__ import annotations

import enum
import logging
import os
from collections.abc import Callable

from multidict import CIMultiDict
from yarl import URL

from parkway import __version__
from parkway.router.endpoint import Endpoint

log = logging.getLogger(__name__)


class Condition(enum.Enum):
    """What checks and live requests say about an endpoint. One that was never checked is healthy."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    """A live connection failed. Used only when nothing healthy is left, and checked again at once."""
    EJECTED = "ejected"
    """Health checks failed again and again. Not used until they pass."""


class Candidate:
    """An endpoint that may be picked, its requests in flight and its condition.

    Args:
        endpoint: Replaced in place while its address stays the same, so that the counts survive.
        wake: Called when the endpoint ought to be checked at once.
    """

    def __init__(self, endpoint: Endpoint, wake: Callable[[], None]) -> None:
        self.endpoint = endpoint
        self.outstanding = 0
        """Requests sent whose answer is not yet at its end."""
        self.credit = 0
        """The current weight of smooth weighted round-robin; see `balance.py`."""
        self.condition = Condition.HEALTHY
        self.check_at = 0.0
        """When to check its health next, in seconds of the monotonic clock."""
        self.checking = False
        self.failures = 0
        """Failed health checks in a row."""
        self.fault: str | None = None
        """Why the last check or connection failed, or what makes the endpoint impossible to use."""
        self._successes = 0
        self._wake = wake
        self._urls: dict[str, URL] = {}
        self.headers = self._fixed_headers()

    @property
    def usable(self) -> bool:
        return self.endpoint.state == "ready" and self.condition is not Condition.EJECTED and self.headers is not None

    def speaks_to(self, endpoint: Endpoint) -> bool:
        """Whether `endpoint` is still the same server, spoken to in the same way."""
        mine = self.endpoint
        return (mine.url, mine.api_key_env, mine.source) == (endpoint.url, endpoint.api_key_env, endpoint.source)

    def become(self, endpoint: Endpoint) -> None:
        """Takes over a changed weight or state. A return to `ready` is news: what was held against it is dropped."""
        if endpoint.state == "ready" != self.endpoint.state:
            self.passed(successes_to_restore=0)
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
        return f"{self.endpoint.endpoint_id}: {self.fault}"

    def suspect(self, fault: str) -> None:
        """A live connection failed: last in line from now on, and checked at once."""
        if self.condition is Condition.HEALTHY:
            self.condition, self.fault = Condition.SUSPECT, fault
            self.check_at = 0.0
            log.warning("endpoint %s (%s) is suspect: %s", self.endpoint.endpoint_id, self.endpoint.url, fault)
            self._wake()

    def passed(self, successes_to_restore: int = 1) -> None:
        """It answered. A suspect endpoint is healthy again at once, an ejected one after `successes_to_restore`."""
        self.failures = 0
        if self.condition is Condition.HEALTHY:
            return
        self._successes += 1
        if self.condition is Condition.SUSPECT or self._successes >= successes_to_restore:
            self.condition, self.fault, self._successes = Condition.HEALTHY, None, 0
            log.info("endpoint %s (%s) is healthy again", self.endpoint.endpoint_id, self.endpoint.url)

    def failed(self, fault: str, failures_to_eject: int) -> None:
        """A health check failed; `failures_to_eject` of them in a row eject the endpoint."""
        self.failures += 1
        self._successes = 0
        self.fault = fault
        if self.failures >= failures_to_eject and self.condition is not Condition.EJECTED:
            self.condition = Condition.EJECTED
            log.warning(
                "endpoint %s (%s) is ejected after %d failed checks: %s",
                self.endpoint.endpoint_id, self.endpoint.url, self.failures, fault,
            )  # fmt: skip

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
            self.fault = f"the environment variable {variable} (`api_key_env`) is not set to a key"
            log.warning("endpoint %s cannot be used: %s", self.endpoint.endpoint_id, self.fault)
            return None
        headers["authorization"] = f"Bearer {key}"
        return headers
