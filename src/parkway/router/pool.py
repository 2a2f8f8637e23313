"""The endpoints of one model, or of one length of prompts: which may be picked, and what is counted for them all."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Collection, Iterable, Sequence

from parkway.core.errors import NoEndpoint, Overloaded
from parkway.router.balance import BALANCERS
from parkway.router.candidate import Candidate
from parkway.router.condition import Condition, Ejection
from parkway.router.config import Balance, RouterConfig
from parkway.router.counts import Counts
from parkway.router.intake import ANYTHING, Intake
from parkway.router.latency import Percentile
from parkway.router.window import Allowance

# Short, because most outages of an endpoint are restarts; a client that is early is told so again.
RETRY_AFTER_S = 1.0

# So many endpoints are looked at to find another one; in a larger fleet a sample of them.
_LOOKED_AT = 32


class Pool:
    """The endpoints of `model` that take prompts of the same lengths: those of `accepts`.

    What may be picked is arranged anew only when an endpoint changes its condition or its time is over, so that a pick
    costs the same for one endpoint and for a thousand.
    """

    def __init__(
        self, model: str, balance: Balance, config: RouterConfig, counts: Counts, accepts: Intake = ANYTHING
    ) -> None:
        self.model = model
        self.accepts = accepts
        self.takes_anything = accepts == ANYTHING
        self.counts = counts
        self.balance: Balance = balance
        self.in_flight = 0
        self._config = config
        self._limit = config.connections_per_endpoint
        self._balancer = BALANCERS[balance](config)
        self._everyone: Sequence[Candidate] = ()
        self._preferred: list[Candidate] = []
        self._due: list[Candidate] = []
        self._stale = True
        self._stale_at = 0.0
        retries, hedge = config.retries, config.hedge
        self.retries = Allowance(retries.share, retries.min_per_s, retries.window_s)
        self.hedges = Allowance(hedge.max_share if hedge else 0.0, 0.0, retries.window_s)
        self.usual_s = Percentile(hedge.after_percentile) if hedge and hedge.after_percentile else None

    def replace(self, balance: Balance, config: RouterConfig, now: float) -> None:
        """Another configuration from now on. What was counted stays counted, and a balancer that is still the right
        one keeps what it knows."""
        if balance != self.balance or (balance == "prefix_affinity" and config.affinity != self._config.affinity):
            self._balancer = BALANCERS[balance](config)
        self.balance, self._config, self._limit = balance, config, config.connections_per_endpoint
        retries, hedge = config.retries, config.hedge
        self.retries.replace(retries.share, retries.min_per_s, retries.window_s, now)
        self.hedges.replace(hedge.max_share if hedge else 0.0, 0.0, retries.window_s, now)
        if hedge is None or hedge.after_percentile is None:
            self.usual_s = None
        elif self.usual_s is None:
            self.usual_s = Percentile(hedge.after_percentile)
        else:
            self.usual_s.replace(hedge.after_percentile)
        self._stale = True

    @property
    def everyone(self) -> Sequence[Candidate]:
        """All endpoints in whatever state."""
        return self._everyone

    def adopt(self, candidates: Sequence[Candidate]) -> None:
        """Makes `candidates` the endpoints of this pool."""
        for candidate in self._everyone:
            candidate.on_load = candidate.on_change = _ignore
        self._everyone = candidates
        for candidate in candidates:
            candidate.on_load, candidate.on_change = self._loaded, self._changed
        self.in_flight = sum(candidate.outstanding for candidate in candidates)
        self._stale = True

    def pick(self, body: bytes = b"") -> Candidate:
        """The endpoint for a request. One whose breaker is open is picked once when its time is over: as its probe.

        Raises:
            NoEndpoint: All are down, draining, resting or ejected; the message says which is what.
            Overloaded: Every usable endpoint has as many requests as it may have.
        """
        self._renew()
        if self._due:
            return self._probe(self._due.pop())
        preferred = self._preferred
        if not preferred:
            raise self._nobody()
        chosen = preferred[0] if len(preferred) == 1 else self._balancer.pick(body, self.in_flight)
        if chosen.has_room(self._limit):
            return chosen
        another = self._least_of(preferred, ()) or self.pick_another(())
        if another is None:
            raise Overloaded(
                f"all {len(preferred)} endpoints of model {self.model!r} have as many requests in flight as they may "
                f"(`max_concurrency` of each, or `router.connections_per_endpoint`: {self._limit}); try again",
                retry_after_s=RETRY_AFTER_S,
            )
        return another

    def pick_another(self, tried: Collection[Candidate]) -> Candidate | None:
        """An endpoint that is not in `tried`; None where there is no other that could take the request."""
        self._renew()
        healthy = self._least_of(self._preferred, tried)
        if healthy is not None or (self._preferred and self._preferred[0].condition is Condition.SUSPECT):
            return healthy
        return self._least_of([candidate for candidate in self._everyone if candidate.usable], tried)

    @property
    def awake(self) -> bool:
        """Whether something can answer now."""
        self._renew()
        return bool(self._preferred or self._due)

    @property
    def sleeps(self) -> bool:
        """Whether nothing can answer now, and something could once it is woken."""
        return not self.awake and any(candidate.endpoint.state == "asleep" for candidate in self._everyone)

    def eject_outliers(self, now: float) -> int:
        """Takes out what does far worse than its peers; how many. See `OutlierConfig`."""
        config = self._config.outliers
        judged = [
            candidate
            for candidate in self._everyone
            if candidate.usable and _requests(candidate, now) >= config.requests
        ]
        out = sum(candidate.condition in (Condition.OPEN, Condition.EJECTED) for candidate in self._everyone)
        room = max(1, int(config.max_share * len(self._everyone))) - out if config.max_share else 0
        found = 0
        for candidate, fault in sorted(self._outliers(judged, now), key=lambda each: -each[0].circuit.window.some):
            if found < room:
                candidate.circuit.eject_outlier(fault, config, now)
                found += 1
        for candidate in judged:
            if candidate.usable:
                candidate.circuit.is_no_outlier()
        return found

    def _outliers(self, judged: Sequence[Candidate], now: float) -> Iterable[tuple[Candidate, str]]:
        if len(judged) < 2:
            return
        config = self._config.outliers
        shares = {candidate: candidate.circuit.window.some / candidate.circuit.window.all for candidate in judged}
        times = {candidate: candidate.latency.at(now) for candidate in judged}
        # With one left out the median of the others hardly moves; so it is taken once for all but small groups.
        common_share, common_s = statistics.median(shares.values()), statistics.median(times.values())
        for candidate in judged:
            if len(judged) <= _LOOKED_AT:
                peers = [other for other in judged if other is not candidate]
                common_share = statistics.median(shares[other] for other in peers)
                common_s = statistics.median(times[other] for other in peers)
            if shares[candidate] >= common_share + config.failure_margin:
                yield candidate, f"{shares[candidate]:.0%} of its requests fail, of its peers' {common_share:.0%}"
            elif config.slow_times is not None and times[candidate] > config.slow_times * common_s > 0:
                yield candidate, f"it takes {times[candidate]:.3g} s to answer, its peers {common_s:.3g} s"

    def _renew(self) -> None:
        """Arranges anew what may be picked, if that may have changed."""
        if not self._stale and (not self._stale_at or time.monotonic() < self._stale_at):
            return
        now = time.monotonic()
        reachable = [candidate for candidate in self._everyone if candidate.reachable]
        self._due = [candidate for candidate in reachable if candidate.circuit.renew(now)]
        usable = [candidate for candidate in reachable if candidate.circuit.in_use]
        self._preferred = [each for each in usable if each.condition is Condition.HEALTHY] or usable
        waiting = [
            candidate.circuit.until
            for candidate in reachable
            if candidate.condition in (Condition.RESTING, Condition.OPEN) and candidate.circuit.until > now
        ]
        self._stale, self._stale_at = False, min(waiting, default=0.0)
        if self._preferred:
            self._balancer.arrange(self._everyone, self._preferred)

    def _probe(self, candidate: Candidate) -> Candidate:
        candidate.circuit.probe()
        return candidate

    def _least_of(self, candidates: Sequence[Candidate], tried: Collection[Candidate]) -> Candidate | None:
        """The one with the fewest requests for its weight among a bounded number that have room."""
        looked_at = candidates
        if len(candidates) > _LOOKED_AT:
            looked_at = random.sample(candidates, _LOOKED_AT)
        free = [each for each in looked_at if each.has_room(self._limit) and each not in tried]
        if not free and looked_at is not candidates:
            free = [each for each in candidates if each.has_room(self._limit) and each not in tried]
        return min(free, key=lambda each: each.outstanding / each.endpoint.weight, default=None)

    def _nobody(self) -> NoEndpoint:
        """The error that tells what is wrong with each, and when the first may be asked again."""
        reasons = "; ".join([candidate.why_not() for candidate in self._everyone[:5]])
        wait_s = max(RETRY_AFTER_S, self._stale_at - time.monotonic()) if self._stale_at else RETRY_AFTER_S
        return NoEndpoint(f"no endpoint of model {self.model!r} can answer now: {reasons}", retry_after_s=wait_s)

    def _loaded(self, candidate: Candidate, change: int) -> None:
        self.in_flight += change
        if len(self._preferred) > 1:  # of one there is nothing to choose, and with another all is arranged anew
            self._balancer.moved(candidate)

    def _changed(self, _: Candidate, ejection: Ejection | None) -> None:
        self._stale = True
        if ejection is not None:
            self.counts.add(f"ejections_{ejection}", self.model)


def _ignore(*_: object) -> None:
    """What a candidate tells that is in no pool any more."""


def _requests(candidate: Candidate, now: float) -> int:
    window = candidate.circuit.window
    window.add(now)
    return window.all
