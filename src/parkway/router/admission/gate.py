"""The gate of a model: lets in what its endpoints can work on, has the rest wait fairly, refuses the hopeless."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from parkway.core.errors import Draining, Overloaded, ParkwayError
from parkway.router.admission.concurrency import AdaptiveLimit
from parkway.router.admission.config import GateConfig
from parkway.router.admission.fair_queue import FairQueue
from parkway.router.admission.turn import OVER, RUNNING, WAITING, Turn

Shed = Literal["queue_full", "key_queue_full", "wait_too_long", "waited_too_long", "pushed_out", "draining", "left"]
"""Why a request was not let in. `left` is the client's own doing."""

WAIT_BUCKETS_S = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

_SMOOTHING = 0.1
_FIRST_ANSWER_TOKENS = 256.0
_MOST_RETRY_AFTER_S = 300.0
_BOOKED_AHEAD_S = 30.0


@dataclass(slots=True)
class ClassFigures:
    """What became of the requests of one class. `waits` counts by `WAIT_BUCKETS_S`, one more for what is above."""

    shed: Counter[Shed] = field(default_factory=Counter[Shed])
    waits: list[int] = field(default_factory=lambda: [0] * (len(WAIT_BUCKETS_S) + 1))
    waited_s: float = 0.0


class Gate:
    """Who is let in to the endpoints of one model, and when. Nothing here waits: a `Turn` does.

    How long a request would wait is known before it does: what stands before it in the fair queue, over what the
    endpoints get done (by Little's law the limit on concurrency x mean cost / mean time). A request whose wait would
    be too long is refused at once, with the time after which it would not be; so the queue never holds what nobody
    will wait for, and is neither turned round (last in, first out) nor thinned out by its age (CoDel): both would
    make it untrue what others were told.

    Args:
        model: For messages.
        classes: Their names and weights, most urgent first.
        initial_concurrency: Where the search for the limit begins, if `set_capacity` knows none.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        model: str,
        config: GateConfig,
        classes: Sequence[tuple[str, float]],
        initial_concurrency: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.clock = clock
        self.running = 0
        self.limit: float = initial_concurrency
        self.mean_s = 0.0
        """How long a request takes from its turn to its end, on average."""
        self.classes = [name for name, _ in classes]
        self.figures = [ClassFigures() for _ in classes]
        self.mean_answer_tokens = _FIRST_ANSWER_TOKENS
        self._config = config
        self._queue = FairQueue([weight for _, weight in classes])
        self._search: AdaptiveLimit | None = None
        self._initial = initial_concurrency
        self._ended = 0
        self._mean_cost = 0.0
        self._booked = [0.0] * len(classes)
        self._weights = [weight for _, weight in classes]
        self._default = 0

    def replace(
        self,
        config: GateConfig,
        classes: Sequence[tuple[str, float]],
        default_class: str,
        initial_concurrency: int,
    ) -> None:
        """Another configuration from now on. Who waits goes on waiting, for as long as was said when it came.

        Args:
            default_class: The class of those who wait in one that is gone.
        """
        self._config, self._initial = config, initial_concurrency
        names, weights = [name for name, _ in classes], [weight for _, weight in classes]
        if names == self.classes and weights == self._weights:
            return
        before = [self.classes.index(name) if name in self.classes else None for name in names]
        self._queue.reorder(weights, before, names.index(default_class))
        self.figures = [ClassFigures() if number is None else self.figures[number] for number in before]
        self._booked = [0.0 if number is None else self._booked[number] for number in before]
        self._default = names.index(default_class)
        for turn in self._queue:
            if isinstance(turn, Turn):
                turn.classes = names
        self.classes, self._weights = names, weights

    def _renumber(self, turn: Turn) -> None:
        """Puts `turn`, which began when there were other classes, into the one of its name."""
        name = turn.classes[turn.lane]
        turn.lane = self.classes.index(name) if name in self.classes else self._default
        turn.classes = self.classes

    @property
    def waiting(self) -> int:
        return self._queue.waiting

    @property
    def waiting_tokens(self) -> int:
        return self._queue.tokens

    def waiting_of(self, lane: int) -> int:
        """How many requests of the class with this index wait."""
        return self._queue.waiting_of(lane)

    def set_capacity(self, known: int | None, most: int) -> None:
        """Says how many requests the endpoints take.

        Args:
            known: All together; None where somebody does not say, and it has to be found out.
            most: What cannot be exceeded in any case; 0 if there is no endpoint that could answer. Then everybody is
                let in, and the router says why not.
        """
        if not most:
            self.limit = float("inf")
        elif known is not None:
            self.limit, self._search = known, None
        else:
            self._search = self._search or AdaptiveLimit(self._initial, most)
            self._search.bound(most)
            self.limit = self._search.value
        self._let_in()

    def enter(
        self,
        key_id: str,
        lane: int,
        *,
        cost: float,
        tokens: int,
        deadline: float,
        weight: float = 1.0,
        max_key_requests: int | None = None,
    ) -> Turn:
        """A place for a request: at once where there is room, else in the queue.

        Args:
            key_id: Whose request it is.
            lane: The index of its class.
            cost: What it will take, as estimated, in tokens of an answer.
            tokens: What it counts against the bounds of the queue.
            deadline: When its turn must have come.
            weight: The share of its key, relative to others of the class.
            max_key_requests: How many may wait of this key; by default what the configuration says.

        Raises:
            Overloaded: It would wait longer than until `deadline`, or there is no room in the queue. After
                `retry_after_s` there is, unless more comes than is answered.
        """
        now = self.clock()
        turn = Turn(
            key_id=key_id, lane=lane, cost=cost, tokens=tokens, weight=weight,
            gate=self, entered=now, deadline=deadline, classes=self.classes,
        )  # fmt: skip
        if self.running < self.limit and not self._queue.waiting:
            self._queue.charge(turn)
            self._begin(turn, now)
        else:
            self._make_room(turn, now, max_key_requests or self._config.max_key_queue_requests)
            self._queue.push(turn)
        return turn

    def leave(self, turn: Turn, *, cost: float | None, ended_well: bool, refused: bool) -> None:
        """See `Turn.leave`."""
        stage, turn.stage = turn.stage, OVER
        if stage is WAITING:
            self._queue.remove(turn)
            turn.begun = self.clock()
            self.figures[turn.lane].shed["left"] += 1
        elif stage is RUNNING:
            now = self.clock()
            self._learn(turn, now, turn.cost if cost is None else cost, ended_well, refused)
            if cost is not None:
                if turn.classes is not self.classes:
                    self._renumber(turn)
                self._queue.correct(turn, cost)
            self.running -= 1
            self._let_in()

    def answered(self, tokens: float) -> None:
        """Takes note of how long an answer was, for the estimates of those to come."""
        self.mean_answer_tokens += _SMOOTHING * (tokens - self.mean_answer_tokens)

    def expire(self, turn: Turn) -> None:
        """Takes `turn` out of the queue if it has waited as long as it may."""
        if turn.stage is WAITING:
            now = self.clock()
            again_s = self._book(turn, now, max(0.0, self._wait_s(turn) - (turn.deadline - turn.entered)))
            reason = f"waited {now - turn.entered:.3g} s for its turn, the longest that it may"
            self._take_out(turn, "waited_too_long", self._overloaded(turn, reason, again_s))

    def drain(self, within_s: float) -> None:
        """The process stops after `within_s`: refuses now who would still wait then."""
        rate = self._rate()
        cost = sum(entry.cost for entry in self._queue)
        while rate and self._queue.waiting and cost / rate > within_s:
            last = self._queue.longest()
            cost -= last.cost
            if isinstance(last, Turn):
                error = Draining(
                    "the gateway stops before this request's turn would come; send it again", retry_after_s=1
                )
                self._take_out(last, "draining", error)

    def _make_room(self, turn: Turn, now: float, max_key_requests: int) -> None:
        """Sees that `turn` can wait, and not in vain. Raises `Overloaded`."""
        config = self._config
        wait_s = self._wait_s(turn)
        requests, tokens = self._queue.of_key(turn)
        if requests and (requests >= max_key_requests or tokens + turn.tokens > config.max_key_queue_tokens):
            raise self._refusal(
                turn, "key_queue_full",
                f"finds {requests} requests ({tokens} tokens) of its key waiting; {max_key_requests} requests and "
                f"{config.max_key_queue_tokens} tokens may (`admission.max_key_queue_requests`, `_tokens`, and tiers)",
                self._book(turn, now, each_s=wait_s / (requests + 1)),
            )  # fmt: skip
        allowed_s = max(0.0, turn.deadline - now)
        if wait_s > allowed_s:
            reason = f"would wait {wait_s:.3g} s for its turn, and may {allowed_s:.3g} s"
            raise self._refusal(turn, "wait_too_long", reason, self._book(turn, now, wait_s - allowed_s))
        while self._full(turn):
            last = self._queue.pushed_out_by(turn)
            if not isinstance(last, Turn):
                reason = (
                    f"finds {self.waiting} requests ({self.waiting_tokens} tokens) waiting; "
                    f"{config.max_queue_requests} requests and {config.max_queue_tokens} tokens may "
                    "(`admission.max_queue_requests`, `_tokens`)"
                )
                raise self._refusal(turn, "queue_full", reason, self._book(turn, now))
            reason = "was pushed out of the full queue by one of a class or a key that has less in it"
            self._take_out(last, "pushed_out", self._overloaded(last, reason, self._book(last, now)))

    def _full(self, turn: Turn) -> bool:
        """Whether there is no room for `turn`. One that is alone has room, however long it is."""
        config, queue = self._config, self._queue
        return queue.waiting > 0 and (
            queue.waiting >= config.max_queue_requests or queue.tokens + turn.tokens > config.max_queue_tokens
        )

    def _rate(self) -> float:
        """What the endpoints get done in a second, in the unit of costs; 0 if nothing was measured yet."""
        return self.limit * self._mean_cost / self.mean_s if self.mean_s else 0.0

    def _wait_s(self, turn: Turn) -> float:
        """How long `turn` would wait if it came now."""
        rate = self._rate()
        return self._queue.cost_until(turn) / rate if rate else 0.0

    def _book(self, turn: Turn, now: float, at_least_s: float = 0.0, each_s: float = 0.0) -> float:
        """After how long to come again: each who is told gets a time of its own, so that not all come together.

        Args:
            at_least_s: When there will be room for one.
            each_s: How long it then takes until there is room for one more; by default what one of the class takes.
        """
        each_s = each_s or self._each_s(turn)
        # All that run may have begun together, and then none ends until all do: a rate says nothing within that time.
        first = now + at_least_s + self.mean_s * (1 - 1 / self.limit)
        booked = max(self._booked[turn.lane], first) + each_s
        if booked > first + max(each_s, _BOOKED_AHEAD_S):
            booked = first + each_s  # those who come again too early must not drive it up without end
        self._booked[turn.lane] = booked
        return min(booked - now, _MOST_RETRY_AFTER_S)

    def _each_s(self, turn: Turn) -> float:
        """How long one more request of the class takes to get through, beside the classes that wait."""
        rate = self._rate()
        if not rate:
            return 1.0
        own = self._weights[turn.lane]
        others = sum(weight for lane, weight in enumerate(self._weights) if lane != turn.lane and self.waiting_of(lane))
        return max(turn.cost, self._mean_cost) / rate * (own + others) / own

    def _refusal(self, turn: Turn, why: Shed, reason: str, retry_after_s: float) -> Overloaded:
        self.figures[turn.lane].shed[why] += 1
        return self._overloaded(turn, reason, retry_after_s)

    def _overloaded(self, turn: Turn, reason: str, retry_after_s: float) -> Overloaded:
        return Overloaded(
            f"model {self.model!r} is overloaded: this {self.classes[turn.lane]} request {reason}; "
            f"try again in {retry_after_s:.3g} s",
            retry_after_s=retry_after_s,
        )

    def _take_out(self, turn: Turn, why: Shed, error: ParkwayError) -> None:
        self._queue.remove(turn)
        turn.stage, turn.error, turn.begun = OVER, error, self.clock()
        self.figures[turn.lane].shed[why] += 1
        turn.settle()

    def _let_in(self) -> None:
        while self._queue.waiting and self.running < self.limit:
            turn = self._queue.pop()
            if isinstance(turn, Turn):
                self._begin(turn, self.clock())
                turn.settle()

    def _begin(self, turn: Turn, now: float) -> None:
        turn.stage, turn.begun = RUNNING, now
        self.running += 1
        figures = self.figures[turn.lane]
        waited_s = now - turn.entered
        figures.waits[bisect_left(WAIT_BUCKETS_S, waited_s) if waited_s else 0] += 1
        figures.waited_s += waited_s

    def _learn(self, turn: Turn, now: float, cost: float, ended_well: bool, refused: bool) -> None:
        """Takes note of a request that has ended."""
        taken_s = now - turn.begun
        share = max(_SMOOTHING, 1 / (self._ended + 1))
        self._ended += 1
        self.mean_s += share * (taken_s - self.mean_s)
        self._mean_cost += share * (cost - self._mean_cost)
        if self._search is not None:
            if refused:
                self._search.refused(now)
            elif ended_well:
                self._search.sample(now, taken_s, cost, self.running)
            if self.limit != float("inf"):
                self.limit = self._search.value
