"""In which condition an endpoint is, and how it gets from one into another."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from typing import Literal

from parkway.router.config import BreakerConfig, OutlierConfig
from parkway.router.window import Window

log = logging.getLogger(__name__)


class Condition(enum.Enum):
    """What checks and live requests say about an endpoint. One that was never asked is healthy."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    """A live connection failed. Used only when nothing healthy is left, and checked again at once."""
    RESTING = "resting"
    """It asked to be left alone for some time, by a 429 with `Retry-After`. Healthy again after it."""
    OPEN = "open"
    """Too many live requests failed. Not used for some time; then one request may try."""
    PROBING = "probing"
    """That one request is on its way. Its end decides."""
    EJECTED = "ejected"
    """Health checks failed again and again. Not used until they pass."""


Ejection = Literal["failures", "outlier", "checks"]
"""What took an endpoint out."""

_IN_USE = (Condition.HEALTHY, Condition.SUSPECT)


class Circuit:
    """The condition of one endpoint, and what is counted to decide it.

        a connection fails           healthy -> suspect
        requests fail, see `failed`  healthy, suspect, probing -> open
        far worse than its peers     healthy, suspect -> open, each time for longer
        429 with `Retry-After`       healthy, suspect, probing -> resting
        its time is over             resting -> healthy; open -> probing with the next request
        an answer begins             suspect, probing -> healthy
        the probe was given up       probing -> open, with its time over
        checks fail in a row         any -> ejected
        checks pass                  suspect, ejected -> healthy

    A check does not close a breaker: a server can list its models and fail at every answer.

    Sources: Nygard, "Release It!", 2nd ed., chapter 5 (circuit breaker); Envoy, "Outlier detection" (ejection that
    grows with each time).

    Args:
        name: For the log.
        moved: Called after each change of the condition, with what took the endpoint out if that is the change.
    """

    def __init__(self, name: str, config: BreakerConfig, moved: Callable[[Ejection | None], None]) -> None:
        self.condition = Condition.HEALTHY
        self.until = 0.0
        """When RESTING or OPEN is over, in seconds of the monotonic clock."""
        self.fault: str | None = None
        """Why it is not healthy."""
        self.failed_checks = 0
        """In a row."""
        self.window = Window(config.window_s)
        """Live requests, and those of them that failed."""
        self.ejections = 0
        """How often it was an outlier, less the times that it was found to be none."""
        self._streak = 0
        self._passed_checks = 0
        self._config = config
        self._name = name
        self._moved = moved

    def replace(self, config: BreakerConfig, now: float) -> None:
        """Judged by another configuration from now on; condition and counts stay. A time that runs, runs on."""
        if config != self._config:
            if config.window_s != self._config.window_s:
                self.window.stretch(config.window_s, now)
            self._config = config

    @property
    def in_use(self) -> bool:
        return self.condition in _IN_USE

    # Live requests

    def suspect(self, fault: str) -> bool:
        """A connection failed; whether that is news."""
        if self.condition is not Condition.HEALTHY:
            return False
        self._become(Condition.SUSPECT, fault)
        return True

    def begun(self) -> None:
        """An answer has begun. Only its end says whether it is one, so the failures in a row are not forgotten yet."""
        if self.condition is Condition.PROBING:
            self.window.clear()
            self._streak = self._config.failures - 1
            self._become(Condition.HEALTHY)
        elif self.condition is Condition.SUSPECT:
            self.failed_checks = 0
            self._become(Condition.HEALTHY)

    def succeeded(self, now: float) -> None:
        """An answer came to its end."""
        self._streak = 0
        self.window.add(now, all=1)

    def failed(self, fault: str, now: float) -> bool:
        """A request failed by the endpoint's fault; whether that opened the breaker."""
        config, window = self._config, self.window
        self._streak += 1
        window.add(now, all=1, some=1)
        if self.condition is Condition.PROBING:
            self._open(fault, now, config.retry_s, "failures")
            return True
        many = window.all >= config.requests and window.some >= config.failure_share * window.all
        if self.in_use and (self._streak >= config.failures or many):
            told = f"{fault}; {window.some} of its last {window.all} requests failed"
            self._open(told, now, config.retry_s, "failures")
            return True
        return False

    def rest(self, seconds: float, now: float) -> None:
        """It asked to be left alone for so long."""
        if self.in_use or self.condition is Condition.PROBING:
            self.until = now + min(seconds, self._config.max_rest_s)
            self._become(Condition.RESTING, "it asked for a pause (429 with Retry-After)")

    def given_up(self, now: float) -> None:
        """The probe ended without telling anything: another may go at once."""
        if self.condition is Condition.PROBING:
            self.until = now
            self._become(Condition.OPEN, self.fault)

    # Time

    def renew(self, now: float) -> bool:
        """Lets a rest that is over be over; whether the endpoint is due for a probe."""
        if self.condition is Condition.RESTING and now >= self.until:
            self._become(Condition.HEALTHY)
        return self.condition is Condition.OPEN and now >= self.until

    def probe(self) -> None:
        """The next request is the probe."""
        self._become(Condition.PROBING, self.fault)

    # Judged beside its peers

    def eject_outlier(self, fault: str, config: OutlierConfig, now: float) -> None:
        self.ejections += 1
        self._open(fault, now, min(config.eject_s * self.ejections, config.max_eject_s), "outlier")

    def is_no_outlier(self) -> None:
        self.ejections = max(0, self.ejections - 1)

    # Health checks

    def passed(self, successes_to_restore: int = 1) -> None:
        """A check passed. A suspect endpoint is healthy again at once, an ejected one after `successes_to_restore`."""
        self.failed_checks = 0
        if self.condition not in (Condition.SUSPECT, Condition.EJECTED):
            return
        self._passed_checks += 1
        if self.condition is Condition.SUSPECT or self._passed_checks >= successes_to_restore:
            self._become(Condition.HEALTHY)

    def failed_check(self, fault: str, failures_to_eject: int) -> bool:
        """A check failed; `failures_to_eject` of them in a row eject the endpoint. Whether this one did."""
        self.failed_checks += 1
        self._passed_checks = 0
        if self.failed_checks < failures_to_eject or self.condition is Condition.EJECTED:
            if self.condition in (Condition.SUSPECT, Condition.EJECTED):
                self.fault = fault
            return False
        self._become(Condition.EJECTED, f"{self.failed_checks} failed checks: {fault}", "checks")
        self.fault = fault
        return True

    def forget(self) -> None:
        """Drops all that is held against it."""
        self.failed_checks = self.ejections = self._streak = 0
        self.window.clear()
        self._become(Condition.HEALTHY)

    def _open(self, fault: str, now: float, seconds: float, ejection: Ejection) -> None:
        self.until = now + seconds
        self._become(Condition.OPEN, fault, ejection)

    def _become(self, condition: Condition, fault: str | None = None, ejection: Ejection | None = None) -> None:
        before, self.condition, self.fault = self.condition, condition, fault
        if condition is Condition.HEALTHY:
            self._passed_checks = 0
            if before is Condition.EJECTED:
                self._streak = 0
        if before is condition:
            return
        if condition is Condition.HEALTHY:
            log.info("endpoint %s is healthy again", self._name)
        elif condition is Condition.PROBING:
            log.info("endpoint %s gets one request to try", self._name)
        else:
            log.warning("endpoint %s is %s: %s", self._name, condition.value, fault)
        self._moved(ejection)
