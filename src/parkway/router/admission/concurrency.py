"""How many requests a server that says nothing of itself should have at one moment."""

from __future__ import annotations

import math

_ELASTICITY = 1 / 3
"""What a percent more of concurrency has to bring in throughput, in percent, to be worth its latency."""

_LEAST_SAMPLES = 20
_MOST_SAMPLES = 200
_MOST_DISCARDED = 50
_SATURATED = 0.9
_AT_EASE = 0.5

_FREE = 1.15
_BURIED = 4.0
_FORGET = 1.001
"""By how much the time that a unit of work takes at the least is raised with each window: servers change."""

_BACK_OFF = 0.8
_FINE = 0.08
"""The step, as a share of the limit, once the search has come to where it goes to and fro."""
_TURNS_TO_SETTLE = 2


class AdaptiveLimit:
    """Looks for the concurrency at which a server does most: climbs while throughput pays for it, else descends.

    What is climbed is throughput / concurrency^(1/3). By Little's law that is Kleinrock's "power", throughput^r /
    latency, with r = 2: its top is where a percent more of concurrency brings a third of a percent more of
    throughput. A server with a fixed number of slots is driven at that number, whatever happens to it beyond; one
    that batches, whose answers get slower with each that joins while it does more in all, well into its batch. Ways
    that go by latency alone (Vegas, gradient) starve the second kind or bury the first. Latency only settles what is
    clear: where work takes hardly longer than it ever did, more of it costs nothing; where it takes four times as
    long, there is too much.

    The limit changes after each window of requests, in steps that grow while the direction proves right and shrink
    when it turns. Only windows count in which the limit was what held requests back; from those in which at most half
    of it was used the latency of a server at its ease is learned. A refusal for overload lowers the limit at once, at
    most once a window.

    Sources: Heiss, Wagner, 1991, "Adaptive Load Control in Transaction Processing Systems" (incremental steps);
    Kleinrock, 1979, "Power and Deterministic Rules of Thumb for Probabilistic Problems in Computer Communications";
    for what else there is, Netflix's concurrency-limits.

    Args:
        initial: Where the search begins.
        most: It never goes beyond.
    """

    def __init__(self, initial: int, most: int) -> None:
        self._limit = float(min(initial, most))
        self._most = most
        self._step = self._limit / 2
        self._direction = 1
        self._turns = 0
        self._last_score = -math.inf
        self._least = math.inf
        self._discard = 0
        self.value = int(self._limit)
        self._begin(0.0)

    def sample(self, now: float, taken_s: float, work: float, running: int) -> None:
        """A request has ended well.

        Args:
            now: In seconds.
            taken_s: How long it took.
            work: How much it was, in any unit.
            running: How many ran, this one included.
        """
        if self._discard > 0:  # begun under the limit before
            self._discard -= 1
            self._since = now
            return
        self._count += 1
        self._taken_s += taken_s
        self._work += work
        self._saturated += running >= _SATURATED * self.value
        if running > self._most_running:
            self._most_running = running
        if self._count >= self._window and now > self._since:
            self._judge(now)

    def refused(self, now: float) -> None:
        """The server refused a request because it has too many."""
        if not self._backed_off:
            self._last_score = -math.inf
            self._change(self._limit * _BACK_OFF, now)
            self._direction, self._step = 1, max(1.0, self._limit * _FINE)
            self._backed_off = True

    def bound(self, most: int) -> None:
        """Changes the most that the limit can be."""
        if most != self._most:
            self._most = most
            self._limit = min(self._limit, float(most))
            self.value = round(self._limit)

    def _judge(self, now: float) -> None:
        slowness = self._taken_s / self._work
        if self._most_running <= _AT_EASE * self.value or self.value == 1:
            at_ease = self._least if self._least < math.inf else slowness
            self._least = at_ease + 0.2 * (slowness - at_ease)
        if self._saturated < self._count / 2:
            self._begin(now)
            return
        self._least = min(self._least * _FORGET, slowness)
        score = math.log(self._work / (now - self._since)) - _ELASTICITY * math.log(self._limit)
        settled = self._turns >= _TURNS_TO_SETTLE
        if slowness > _BURIED * self._least:
            self._turn(-1)
            self._step = self._limit / 3
        elif self._last_score == -math.inf:
            self._direction = 1 if slowness < 2 * self._least else -1
        elif slowness < _FREE * self._least and settled:
            self._turn(1)
        elif score >= self._last_score:
            self._step = self._limit * _FINE if settled else min(self._step * 1.5, self._limit / 2)
        else:
            self._turn(-self._direction)
        self._last_score = score
        self._change(self._limit + self._direction * max(1.0, self._step), now)

    def _turn(self, direction: int) -> None:
        """Goes in `direction` from now on, more carefully if that is not the one up to now."""
        if direction != self._direction:
            self._direction = direction
            self._turns += 1
            self._step = self._step / 2 if self._turns < _TURNS_TO_SETTLE else self._limit * _FINE

    def _change(self, limit: float, now: float) -> None:
        self._limit = min(max(limit, 1.0), float(self._most))
        if self._limit != limit:
            self._direction = -self._direction
        self.value = round(self._limit)
        self._begin(now)
        self._discard = min(self.value, _MOST_DISCARDED)

    def _begin(self, now: float) -> None:
        self._since = now
        self._count = 0
        self._taken_s = 0.0
        self._work = 0.0
        self._saturated = 0
        self._most_running = 0
        self._backed_off = False
        self._window = min(max(_LEAST_SAMPLES, round(2 * self._limit)), _MOST_SAMPLES)
