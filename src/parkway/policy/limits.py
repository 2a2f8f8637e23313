"""How many requests a key may send: a token bucket for each."""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import Field

from parkway.core.configuration import Section
from parkway.core.errors import InvalidRequest, RateLimited


class LimitsConfig(Section):
    """The limit of every key. Each gateway process counts for itself."""

    rate_per_s: float = Field(default=100.0, gt=0, le=1e6, allow_inf_nan=False)
    burst: int = Field(default=1000, ge=1, le=10_000_000)


class Limiter:
    """Holds each key to `rate_per_s`, with up to `burst` at once after a rest.

    In any span of t seconds a key gets at most burst + rate_per_s * t through, and nobody below that is refused
    (source: the Generic Cell Rate Algorithm in its leaky-bucket form, ITU-T I.371, annex A). What a key has used
    drains at rate_per_s; a key that has used nothing is not held in memory. `clock` is in seconds and never goes back.
    """

    def __init__(self, config: LimitsConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate_per_s = config.rate_per_s
        self._burst = config.burst
        # Rounding: a clock in floating-point seconds is off by up to a nanosecond, and a large count by its last
        # digits. Without this room a key that waits exactly as long as it was told would be refused again.
        self._full = config.burst * (1 + 1e-12) + config.rate_per_s * 1e-9
        self._clock = clock
        self._used: dict[str, tuple[float, float]] = {}  # key id: requests not yet drained, at which time
        self._sweep_at = 1024

    def admit(self, key_id: str, cost: float = 1.0) -> None:
        """Counts a request of `key_id` that weighs `cost` requests. One that is refused costs nothing.

        Raises:
            RateLimited: Not now; after `retry_after_s` it passes, if the key sends nothing in between.
            InvalidRequest: Its cost is over the whole burst, so that it never passes.
        """
        now = self._clock()
        used, at = self._used.get(key_id, (0.0, now))
        used = max(0.0, used - (now - at) * self._rate_per_s) + cost
        if used > self._full:
            self._refuse(cost, wait_s=(used - self._burst) / self._rate_per_s)
        self._used[key_id] = (used, now)
        if len(self._used) > self._sweep_at:
            self._sweep(now)

    def __len__(self) -> int:
        """How many keys are held in memory."""
        return len(self._used)

    def _refuse(self, cost: float, *, wait_s: float) -> None:
        if cost > self._full:
            raise InvalidRequest(
                f"This request counts as {cost:g} requests and can never pass: `limits.burst` is {self._burst}."
            )
        raise RateLimited(
            f"This key is over its limit of {self._rate_per_s:g} requests a second (burst {self._burst}); "
            f"try again in {wait_s:.3g} s. The limit: `limits` in the configuration.",
            retry_after_s=wait_s,
        )

    def _sweep(self, now: float) -> None:
        """Forgets keys that have drained. The next sweep comes when the rest has doubled: a constant cost a request."""
        self._used = {
            key_id: (used, at) for key_id, (used, at) in self._used.items() if used > (now - at) * self._rate_per_s
        }
        self._sweep_at = max(1024, 2 * len(self._used))
