"""The endpoints of every model: kept in step with the view, picked from by the router, checked by health."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from parkway.core.errors import ModelNotFound, PromptTooLong, nearest
from parkway.router.candidate import Candidate
from parkway.router.config import Balance, RouterConfig
from parkway.router.counts import Counts
from parkway.router.endpoint import Endpoint
from parkway.router.intake import ANYTHING, Intake
from parkway.router.pool import Pool
from parkway.router.view import View


class Fleet:
    """Every endpoint of `view` as a candidate, in one pool for each model, or in one for each range of lengths of
    prompts that its endpoints take.

    Args:
        view: Followed: each `load` adds, changes and drops candidates. One that keeps its id and address keeps its
            counts and its condition.
        balance: The models that are balanced in another way than `config.balance`.
        intake_of: What may be sent to an endpoint.
    """

    def __init__(
        self,
        view: View,
        config: RouterConfig,
        balance: Mapping[str, Balance] | None = None,
        intake_of: Callable[[Endpoint], Intake] = lambda _: ANYTHING,
    ) -> None:
        self._intake_of = intake_of
        self._view = view
        self._config = config
        self._balance = balance or {}
        self._pools: dict[str, list[Pool]] = {}
        self.counts = Counts()
        self.changed = asyncio.Event()
        """Set when a candidate is new or ought to be checked at once."""
        view.subscribe(self._adopt)
        self._adopt()

    def replace(
        self, config: RouterConfig, balance: Mapping[str, Balance], intake_of: Callable[[Endpoint], Intake]
    ) -> None:
        """Another configuration from now on. Endpoints keep their condition and everything that was counted."""
        now = time.monotonic()
        self._config, self._balance, self._intake_of = config, balance, intake_of
        for candidate in self.candidates():
            candidate.circuit.replace(config.breaker, now)
            candidate.intake = intake_of(candidate.endpoint)
        for pool in self._all():
            pool.replace(self._balance_of(pool.model), config, now)
        self._adopt()

    def candidates(self) -> list[Candidate]:
        return [candidate for pool in self._all() for candidate in pool.everyone]

    def intakes(self, model: str) -> list[Intake] | None:
        """What the endpoints of `model` take that can answer now, or once they are awake; None if there is no such
        model."""
        pools = self._pools.get(model)
        if pools is None:
            return None
        everyone = (each for pool in pools for each in pool.everyone)
        return [each.intake for each in everyone if each.usable or each.endpoint.state == "asleep"]

    def pool(self, model: str, prompt_tokens: int = 0) -> Pool:
        """The endpoints of `model` that take a prompt of about `prompt_tokens`.

        Raises:
            ModelNotFound: Nothing serves it; the message names the nearest model that exists.
            PromptTooLong: It has endpoints, and none that takes prompts of this length.
        """
        pools = self._pools.get(model)
        if pools is None:
            hint = nearest(model, self._view.models()) or " `GET /v1/models` lists those that do."
            raise ModelNotFound(f"the model {model[:200]!r} does not exist.{hint}", param="model")
        if pools[0].takes_anything and len(pools) == 1:
            return pools[0]
        for pool in pools:
            if pool.accepts.takes(prompt_tokens):
                return pool
        raise PromptTooLong(
            f"no endpoint of model {model!r} takes a prompt of about {prompt_tokens} tokens; "
            "what they take is set by `accepts` of its endpoints"
        )

    def current(self, pool: Pool, prompt_tokens: int) -> Pool:
        """`pool`, or the one that takes such a prompt now, where its endpoints were put into others."""
        if not pool.everyone:
            with suppress(ModelNotFound, PromptTooLong):
                return self.pool(pool.model, prompt_tokens)
        return pool

    def pick(self, model: str, body: bytes = b"", prompt_tokens: int = 0) -> Candidate:
        """The endpoint for a request. Raises like `pool` and `Pool.pick`."""
        return self.pool(model, prompt_tokens).pick(body)

    def sleeps(self, model: str) -> bool:
        """Whether nothing can answer for `model` now, and something could once it is woken."""
        pools = self._pools.get(model, [])
        return not any(pool.awake for pool in pools) and any(pool.sleeps for pool in pools)

    def pick_another(self, model: str, tried: Collection[Candidate], prompt_tokens: int = 0) -> Candidate | None:
        """An endpoint that is not in `tried`; None where there is no other that could take the request."""
        return None if model not in self._pools else self.pool(model, prompt_tokens).pick_another(tried)

    def eject_outliers(self) -> dict[str, int]:
        """Judges the endpoints of each model beside each other; how many were taken out, by model."""
        now = time.monotonic()
        found = Counter[str]()
        for pool in self._all():
            found[pool.model] += pool.eject_outliers(now)
        return {model: count for model, count in found.items() if count}

    def _adopt(self) -> None:
        """Brings the candidates into step with the view."""
        known = {candidate.endpoint.endpoint_id: candidate for candidate in self.candidates()}
        by_pool: dict[tuple[str, Intake], list[Candidate]] = {}
        for endpoint in self._view.all():
            candidate = known.get(endpoint.endpoint_id)
            if candidate is not None and candidate.speaks_to(endpoint):
                candidate.become(endpoint)
            else:
                candidate = Candidate(endpoint, self.changed.set, self._config.breaker, self._intake_of(endpoint))
            lengths = replace(candidate.intake, max_concurrency=None)
            by_pool.setdefault((endpoint.model, lengths), []).append(candidate)
        known_pools = {(pool.model, pool.accepts): pool for pool in self._all()}
        for pool in known_pools.values():
            pool.adopt(())
        self._pools = {}
        for (model, lengths), candidates in sorted(by_pool.items(), key=lambda item: item[0][1].least_first):
            pool = known_pools.get((model, lengths))
            if pool is None:
                pool = Pool(model, self._balance_of(model), self._config, self.counts, lengths)
            pool.adopt(candidates)
            self._pools.setdefault(model, []).append(pool)
        self.changed.set()

    def _balance_of(self, model: str) -> Balance:
        return self._balance.get(model, self._config.balance)

    def _all(self) -> Iterator[Pool]:
        return (pool for pools in self._pools.values() for pool in pools)
