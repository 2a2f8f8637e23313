"""How long answers take: the figures by which an endpoint is preferred, and a second one asked."""

from __future__ import annotations

import math

_DECAY_S = 10.0

_SAMPLES = 512
_FEWEST = 50
_RENEW_EVERY = 64


class PeakEwma:
    """The time to an answer of one endpoint: rises at once with a slow answer, falls over `_DECAY_S`.

    Sensitive to the peak, because a server that begins to fail is slow before it is gone; it also falls while nothing
    is sent, so that a server that was slow once is tried again.
    Source: Finagle, `com.twitter.finagle.loadbalancer.PeakEwma`, as in linkerd ("Beyond Round Robin", 2016).
    """

    __slots__ = ("_at", "_value")

    def __init__(self) -> None:
        self._value = 0.0
        self._at = 0.0

    def observe(self, seconds: float, now: float) -> None:
        """An answer had begun after `seconds`."""
        if seconds > self._value:
            self._value = seconds
        else:
            kept = math.exp((self._at - now) / _DECAY_S)
            self._value = self._value * kept + seconds * (1.0 - kept)
        self._at = now

    def at(self, now: float) -> float:
        """Seconds; 0 where nothing is known."""
        return self._value * math.exp((self._at - now) / _DECAY_S) if self._value else 0.0


class Percentile:
    """One percentile of the last 512 times; renewed with every 64th, so that it costs next to nothing."""

    def __init__(self, percent: float) -> None:
        self._share = percent / 100
        self._times: list[float] = []
        self._count = 0
        self.value: float | None = None
        """Seconds; None until there were 50."""

    def replace(self, percent: float) -> None:
        """Another percentile of the same times, from the next renewal on."""
        self._share = percent / 100

    def observe(self, seconds: float) -> None:
        if len(self._times) < _SAMPLES:
            self._times.append(seconds)
        else:
            self._times[self._count % _SAMPLES] = seconds
        self._count += 1
        if self._count == _FEWEST or self._count % _RENEW_EVERY == 0:
            ordered = sorted(self._times)
            self.value = ordered[min(len(ordered) - 1, int(self._share * len(ordered)))]
