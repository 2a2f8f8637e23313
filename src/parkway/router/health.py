"""Active health checks: asks every endpoint at an interval, and a suspect one at once."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import suppress

from parkway.core.tasks import Tasks
from parkway.router.candidate import Candidate
from parkway.router.condition import Condition
from parkway.router.config import RouterConfig
from parkway.router.connection import Broken, Late
from parkway.router.connections import Answer, Connections, Unreachable
from parkway.router.fleet import Fleet

# A suspect endpoint is asked again after this, then twice this, and so on up to the interval.
FIRST_RECHECK_S = 0.2

# Between two looks at what is due: in a fleet of a thousand something always is, and each look walks all of it.
_LOOK_PAUSE_S = 0.02

# What a proxy says of a server that is gone, and a server of one that is still loading its model. Any other answer
# shows that somebody lives there: `transformers serve` generates well while its list of models is a plain 500.
_GONE_STATUSES = frozenset({502, 503, 504})

_MOST_READ_BYTES = 64 * 1024


log = logging.getLogger(__name__)


class HealthChecks:
    """Keeps the condition of each candidate in `fleet` true.

    At most one check of a candidate runs at a time, and each ends within `health_timeout_s`.
    """

    def __init__(self, fleet: Fleet, config: RouterConfig, connections: Connections, tasks: Tasks) -> None:
        self._fleet = fleet
        self._config = config
        self._connections = connections
        self._tasks = tasks

    def replace(self, config: RouterConfig) -> None:
        """Another interval, time limit and counts from the next check on, which comes sooner if it ought to."""
        latest = time.monotonic() + config.health_interval_s
        for candidate in self._fleet.candidates():
            candidate.check_at = min(candidate.check_at, latest)
        self._config = config
        self._fleet.changed.set()

    async def run(self) -> None:
        """Checks what is due, again and again, until cancelled."""
        while True:
            self._fleet.changed.clear()
            now = time.monotonic()
            waiting = [
                candidate
                for candidate in self._fleet.candidates()
                if candidate.endpoint.state == "ready" and candidate.headers is not None and not candidate.checking
            ]
            for candidate in waiting:
                if candidate.check_at <= now:
                    candidate.checking = True
                    self._tasks.start(self._check(candidate), name=f"check {candidate.endpoint.endpoint_id}")
            next_at = min((candidate.check_at for candidate in waiting if not candidate.checking), default=now + 60)
            with suppress(TimeoutError):
                async with asyncio.timeout(next_at - now):
                    await self._fleet.changed.wait()
            await asyncio.sleep(_LOOK_PAUSE_S)

    async def _check(self, candidate: Candidate) -> None:
        """Asks once, and says when to ask next."""
        try:
            fault = await self._fault_of(candidate)
        finally:
            candidate.checking = False
        if fault is None:
            candidate.circuit.passed(self._config.successes_to_restore)
        else:
            candidate.circuit.failed_check(fault, self._config.failures_to_eject)
        candidate.check_at = time.monotonic() + self._pause_s(candidate)
        self._fleet.changed.set()

    def _pause_s(self, candidate: Candidate) -> float:
        interval_s = self._config.health_interval_s
        if candidate.condition is Condition.SUSPECT:
            return min(interval_s, FIRST_RECHECK_S * 2 ** min(candidate.circuit.failed_checks, 10))
        # A tenth of spread, so that gateways started together do not ask together for ever.
        return interval_s * random.uniform(0.9, 1.1)  # noqa: S311 - spread, not a secret

    async def _fault_of(self, candidate: Candidate) -> str | None:
        """Why the endpoint is not healthy; None if it is."""
        endpoint = candidate.endpoint
        deadline = time.monotonic() + self._config.health_timeout_s
        request = candidate.head("GET", path_of_health(candidate)) + b"\r\n"
        try:
            answer = await self._connections.ask(candidate.origin, request, deadline)
            try:
                await _read(answer)
            finally:
                answer.close()
        except Late:
            return f"its health check had no answer after {self._config.health_timeout_s:g} s"
        except (Unreachable, Broken) as error:
            log.info("health check of %s: %s", endpoint.endpoint_id, error)
            return f"its health check failed: {error}"
        healthy = answer.status == 200 if endpoint.source == "local" else answer.status not in _GONE_STATUSES
        return None if healthy else f"its health check answered {answer.status}"


async def _read(answer: Answer) -> None:
    """To its end, if that is near, so that the connection can be kept."""
    size = 0
    while size < _MOST_READ_BYTES and (part := await answer.read()):
        size += len(part)


def path_of_health(candidate: Candidate) -> str:
    """Parkway's own engines say whether they are ready; any other server is asked for its models, the one thing that
    they all understand and that costs nothing."""
    if candidate.endpoint.source == "local":
        return candidate.base_path.removesuffix("/v1") + "/readyz"
    return candidate.base_path + "/models"
