"""The candidates of every model: kept in step with the view, picked from by the router, checked by health."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from parkway.core.errors import ModelNotFound, NoEndpoint, Overloaded, nearest
from parkway.router.balance import BALANCERS
from parkway.router.candidate import Candidate, Condition
from parkway.router.config import RouterConfig
from parkway.router.view import View

# Short, because most outages of an endpoint are restarts; a client that is early is told so again.
RETRY_AFTER_S = 1.0


class Fleet:
    """Every endpoint of `view` as a candidate.

    Args:
        view: Followed: each `load` adds, changes and drops candidates. One that keeps its id and address keeps its
            counts and its condition.
    """

    def __init__(self, view: View, config: RouterConfig) -> None:
        self._view = view
        self._limit = config.connections_per_endpoint
        self._balancer = BALANCERS[config.balance]()
        self._by_model: dict[str, list[Candidate]] = {}
        self.changed = asyncio.Event()
        """Set when a candidate is new or ought to be checked at once."""
        view.subscribe(self._adopt)
        self._adopt()

    def candidates(self) -> list[Candidate]:
        return [candidate for candidates in self._by_model.values() for candidate in candidates]

    def pick(self, model: str) -> Candidate:
        """The endpoint for a request.

        Raises:
            ModelNotFound: Nothing serves `model`; the message names the nearest model that exists.
            NoEndpoint: All its endpoints are down, draining or ejected; the message says which is what.
            Overloaded: Every usable endpoint has as many requests as it may have.
        """
        candidates = self._by_model.get(model)
        if candidates is None:
            hint = nearest(model, self._view.models()) or " `GET /v1/models` lists those that do."
            raise ModelNotFound(f"the model {model[:200]!r} does not exist.{hint}", param="model")
        usable = [candidate for candidate in candidates if candidate.usable]
        if not usable:
            reasons = "; ".join([candidate.why_not() for candidate in candidates[:5]])
            raise NoEndpoint(f"no endpoint of model {model!r} can answer now: {reasons}", retry_after_s=RETRY_AFTER_S)
        chosen = self._choose(usable)
        if chosen is None:
            raise Overloaded(
                f"all {len(usable)} endpoints of model {model!r} have {self._limit} requests in flight "
                f"(`router.connections_per_endpoint`); try again",
                retry_after_s=RETRY_AFTER_S,
            )
        return chosen

    def sleeps(self, model: str) -> bool:
        """Whether nothing can answer for `model` now, and something could once it is woken."""
        candidates = self._by_model.get(model, [])
        return not any(candidate.usable for candidate in candidates) and any(
            candidate.endpoint.state == "asleep" for candidate in candidates
        )

    def pick_another(self, model: str, tried: Collection[Candidate]) -> Candidate | None:
        """An endpoint that is not in `tried`; None where there is no other that could take the request."""
        candidates = self._by_model.get(model, [])
        return self._choose([candidate for candidate in candidates if candidate.usable and candidate not in tried])

    def _choose(self, usable: Sequence[Candidate]) -> Candidate | None:
        free = [candidate for candidate in usable if candidate.outstanding < self._limit]
        if len(free) > 1:
            preferred = [candidate for candidate in free if candidate.condition is Condition.HEALTHY] or free
            return self._balancer.pick(preferred)
        return free[0] if free else None

    def _adopt(self) -> None:
        """Brings the candidates into step with the view."""
        known = {candidate.endpoint.endpoint_id: candidate for candidate in self.candidates()}
        by_model: dict[str, list[Candidate]] = {}
        for endpoint in self._view.all():
            candidate = known.get(endpoint.endpoint_id)
            if candidate is not None and candidate.speaks_to(endpoint):
                candidate.become(endpoint)
            else:
                candidate = Candidate(endpoint, self.changed.set)
            by_model.setdefault(endpoint.model, []).append(candidate)
        self._by_model = by_model
        self.changed.set()
