"""The endpoints of every model: kept in step with the view, picked from by the router, checked by health."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping

from parkway.core.errors import ModelNotFound, nearest
from parkway.router.candidate import Candidate
from parkway.router.config import Balance, RouterConfig
from parkway.router.counts import Counts
from parkway.router.pool import Pool
from parkway.router.view import View


class Fleet:
    """Every endpoint of `view` as a candidate, in one pool for each model.

    Args:
        view: Followed: each `load` adds, changes and drops candidates. One that keeps its id and address keeps its
            counts and its condition.
        balance: The models that are balanced in another way than `config.balance`.
    """

    def __init__(self, view: View, config: RouterConfig, balance: Mapping[str, Balance] | None = None) -> None:
        self._view = view
        self._config = config
        self._balance = balance or {}
        self._pools: dict[str, Pool] = {}
        self.counts = Counts()
        self.changed = asyncio.Event()
        """Set when a candidate is new or ought to be checked at once."""
        view.subscribe(self._adopt)
        self._adopt()

    def candidates(self) -> list[Candidate]:
        return [candidate for pool in self._pools.values() for candidate in pool.everyone]

    def pool(self, model: str) -> Pool:
        """The endpoints of `model`.

        Raises:
            ModelNotFound: Nothing serves it; the message names the nearest model that exists.
        """
        pool = self._pools.get(model)
        if pool is None:
            hint = nearest(model, self._view.models()) or " `GET /v1/models` lists those that do."
            raise ModelNotFound(f"the model {model[:200]!r} does not exist.{hint}", param="model")
        return pool

    def pick(self, model: str, body: bytes = b"") -> Candidate:
        """The endpoint for a request. Raises like `pool` and `Pool.pick`."""
        return self.pool(model).pick(body)

    def sleeps(self, model: str) -> bool:
        """Whether nothing can answer for `model` now, and something could once it is woken."""
        pool = self._pools.get(model)
        return pool is not None and pool.sleeps

    def pick_another(self, model: str, tried: Collection[Candidate]) -> Candidate | None:
        """An endpoint that is not in `tried`; None where there is no other that could take the request."""
        pool = self._pools.get(model)
        return None if pool is None else pool.pick_another(tried)

    def eject_outliers(self) -> dict[str, int]:
        """Judges the endpoints of each model beside each other; how many were taken out, by model."""
        now = time.monotonic()
        return {model: found for model, pool in self._pools.items() if (found := pool.eject_outliers(now))}

    def _adopt(self) -> None:
        """Brings the candidates into step with the view."""
        known = {candidate.endpoint.endpoint_id: candidate for candidate in self.candidates()}
        by_model: dict[str, list[Candidate]] = {}
        for endpoint in self._view.all():
            candidate = known.get(endpoint.endpoint_id)
            if candidate is not None and candidate.speaks_to(endpoint):
                candidate.become(endpoint)
            else:
                candidate = Candidate(endpoint, self.changed.set, self._config.breaker)
            by_model.setdefault(endpoint.model, []).append(candidate)
        for pool in self._pools.values():
            pool.adopt(())
        self._pools = {
            model: self._pools.get(model)
            or Pool(model, self._balance.get(model, self._config.balance), self._config, self.counts)
            for model in by_model
        }
        for model, candidates in by_model.items():
            self._pools[model].adopt(candidates)
        self.changed.set()
