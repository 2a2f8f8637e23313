"""The router: sends a call to the best endpoint of its model, and to another one if that fails early enough."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

from parkway.core.tasks import Tasks
from parkway.router.call import Call
from parkway.router.candidate import Candidate
from parkway.router.config import Balance, RouterConfig
from parkway.router.connections import Connections
from parkway.router.counts import Counts
from parkway.router.endpoint import Endpoint
from parkway.router.fleet import Fleet
from parkway.router.health import HealthChecks
from parkway.router.hedge import Attempt, race
from parkway.router.intake import ANYTHING, Intake
from parkway.router.pool import Pool
from parkway.router.reply import Reply
from parkway.router.sender import LATE_CODE, Sender, Unanswered
from parkway.router.view import View
from parkway.router.waking import Wake, Waking

# Answers with which an endpoint says that another one may do better.
_FAILED_STATUSES = frozenset({429, 500, 502, 503, 504})


class Router:
    """Sends calls to endpoints.

    Args:
        view: What there is; may change at any time.
        wake: Wakes a model whose endpoints are asleep. Without it they are as good as down.
        balance: The models that are balanced in another way than `config.balance`.
        fallbacks: Which models answer in place of one whose endpoints cannot, the first of them first.
        intake_of: What may be sent to an endpoint.
    """

    def __init__(
        self,
        view: View,
        config: RouterConfig,
        *,
        wake: Wake | None = None,
        balance: Mapping[str, Balance] | None = None,
        fallbacks: Mapping[str, Sequence[str]] | None = None,
        intake_of: Callable[[Endpoint], Intake] = lambda _: ANYTHING,
    ) -> None:
        self._view = view
        self._config = config
        self._fleet = Fleet(view, config, balance, intake_of)
        self._fallbacks = fallbacks or {}
        self._connections = Connections(config)
        self._sender: Sender | None = None
        self._tasks = Tasks("router")
        self._checks: HealthChecks | None = None
        self._waking = Waking(view, wake, self._tasks) if wake is not None else None

    async def start(self) -> None:
        """Opens the pool of connections and begins to check the endpoints' health."""
        self._sender = Sender(self._connections, self._config)
        self._checks = HealthChecks(self._fleet, self._config, self._connections, self._tasks)
        self._tasks.start(self._checks.run(), name="health")
        self._tasks.every(lambda: self._config.outliers.interval_s, self._judge, name="outliers")

    def replace(
        self,
        config: RouterConfig,
        *,
        balance: Mapping[str, Balance] | None = None,
        fallbacks: Mapping[str, Sequence[str]] | None = None,
        intake_of: Callable[[Endpoint], Intake] = lambda _: ANYTHING,
    ) -> None:
        """Another configuration from now on, with arguments as for the class. Connections, requests in flight, the
        condition of endpoints and what was counted about them stay."""
        self._config = config
        self._fallbacks = fallbacks or {}
        self._fleet.replace(config, balance or {}, intake_of)
        self._connections.replace(config)
        if self._sender is not None and self._checks is not None:
            self._sender.replace(config)
            self._checks.replace(config)

    async def close(self) -> None:
        """Stops the checks and closes every connection, answers in flight included."""
        await self._tasks.close()
        self._connections.close()

    def models(self) -> list[str]:
        """The names of all models, sorted."""
        return self._view.models()

    def intakes(self, model: str) -> list[Intake] | None:
        """What the endpoints of `model` take; see `Fleet.intakes`."""
        return self._fleet.intakes(model)

    @property
    def counts(self) -> Counts:
        """What was done beyond sending each request once."""
        return self._fleet.counts

    def conditions(self) -> Iterator[tuple[str, str, str]]:
        """Model, endpoint and condition of all endpoints; where the registry has it as not ready, its state there."""
        for candidate in self._fleet.candidates():
            endpoint = candidate.endpoint
            state = candidate.condition.value if endpoint.state == "ready" else endpoint.state
            yield endpoint.model, endpoint.endpoint_id, state

    def models_for(self, model: str, allowed: Callable[[str], bool]) -> list[str]:
        """The model that was asked for, then those that may answer in its place and that are `allowed`."""
        return [model, *filter(allowed, self._fallbacks.get(model, ()))]

    @property
    def falls_back_on_long_context(self) -> bool:
        return self._config.fall_back_on_long_context

    @asynccontextmanager
    async def send(self, call: Call) -> AsyncIterator[Reply]:
        """`open`, with the reply closed at the end of the context."""
        reply = await self.open(call)
        try:
            yield reply
        finally:
            reply.close()

    async def open(self, call: Call, model: str | None = None) -> Reply:
        """Sends `call`. The caller closes the reply; to close it early frees the endpoint at once.

        Args:
            model: Who shall answer, if not `call.model`; the endpoint sees its own name in the body.

        Raises:
            ModelNotFound, NoEndpoint, Overloaded: See `Pool.pick`. NoEndpoint also where a model that sleeps cannot
                be woken, or not before the deadline.
            EndpointFailed: No endpoint answered, after as many attempts as make sense.
            DeadlineExceeded: The call's deadline passed before an endpoint answered.
        """
        model = model or call.model
        if self._waking is not None and self._fleet.sleeps(model):
            await self._until_awake(model, call.deadline)
        pool = self._fleet.pool(model, call.prompt_tokens)
        candidate = pool.pick(call.body)
        now = time.monotonic()
        pool.retries.request(now)
        if self._config.hedge is not None:
            pool.hedges.request(now)
        return await self._travel(call, pool, [candidate])

    def could_be_another(self, reply: Reply) -> bool:
        """Whether another endpoint of its model might answer instead."""
        # By the view: the model may have gone while its endpoint answers, and the answer is none the worse for it.
        return len(reply.tried) < self._config.max_attempts and len(self._view.endpoints(reply.endpoint.model)) > 1

    async def open_another(self, call: Call, reply: Reply) -> Reply | None:
        """The answer of another endpoint of the same model, where `reply` turned out to be none before anything of it
        was handed on; None where there is no other, or no retry left. Closes `reply`; raises like `open`."""
        reply.close()
        pool = self._fleet.pool(reply.endpoint.model, call.prompt_tokens)
        another = await self._another(call, pool, reply.tried)
        return None if another is None else await self._travel(call, pool, [*reply.tried, another])

    async def _travel(self, call: Call, pool: Pool, tried: list[Candidate]) -> Reply:
        """The answer of the last of `tried`, or of others if it has none; they are added to `tried`."""
        repeated = False
        while True:
            try:
                reply = await self._ask(call, pool, tried)
            except Unanswered as failure:
                candidate = tried[-1]
                another = await self._another(call, pool, tried, free=not failure.counts)
                if another is None:
                    told = failure.told(candidate, len(tried))
                    if len(tried) >= self._config.max_attempts or not failure.unseen:
                        raise told from failure
                    if repeated and not await self._hears_of(candidate, call):
                        raise told from failure
                    if not repeated:
                        if failure.counts and not pool.retries.take(time.monotonic()):
                            raise told from failure
                        await self._pause(call, 1)
                        self.counts.add("retries", pool.model)
                    repeated = True
                    await self._until_awake(pool.model, call.deadline)
                    another = self._fleet.pick(pool.model, call.body, call.prompt_tokens)
            else:
                reply.tried = tried
                if reply.status not in _FAILED_STATUSES:
                    return reply
                another = await self._instead_of(reply, call, pool)
                if another is None:
                    return reply
                reply.close()
            tried.append(another)

    async def _instead_of(self, reply: Reply, call: Call, pool: Pool) -> Candidate | None:
        """Another endpoint where `reply` says that its own cannot; the reply remains whole."""
        try:
            if await reply.refusal_code() == LATE_CODE:
                return None
            return await self._another(call, pool, reply.tried)
        except BaseException:
            reply.close()
            raise

    async def _another(self, call: Call, pool: Pool, tried: list[Candidate], *, free: bool = False) -> Candidate | None:
        """An endpoint for one more attempt, after the pause before it; None where there is none or no retry is left.

        The first goes out at once: it is not the one that is in trouble. `free` costs nothing of the budget.
        """
        if len(tried) >= self._config.max_attempts:
            return None
        pool = self._fleet.current(pool, call.prompt_tokens)
        if pool.pick_another(tried) is None or not (free or pool.retries.take(time.monotonic())):
            return None
        if len(tried) > 1:
            await self._pause(call, len(tried) - 1)
        self.counts.add("retries", pool.model)
        return pool.pick_another(tried)

    async def _pause(self, call: Call, number: int) -> None:
        """Waits before the retry of that `number`, never past the deadline.

        Full jitter: anything between nothing and a bound that doubles. Source: Brooker, "Exponential Backoff And
        Jitter", AWS Architecture Blog, 2015.
        """
        bound = min(self._config.retries.max_pause_s, self._config.retry_pause_s * 2 ** (number - 1))
        pause_s = random.uniform(0, bound)  # noqa: S311 - spread, not a secret
        await asyncio.sleep(min(pause_s, max(0.0, call.deadline - time.monotonic())))

    def _ask(self, call: Call, pool: Pool, tried: list[Candidate]) -> Awaitable[Reply]:
        """The answer of the last of `tried`; of a second endpoint, added to it, where that one is late and hedging is
        configured. To await it raises like `Sender.send`."""
        sender, hedge = self._sender, self._config.hedge
        if sender is None:
            raise RuntimeError("Router.open before Router.start")
        after_s = None if hedge is None else hedge.after_s or (pool.usual_s and pool.usual_s.value)
        if after_s is None or len(pool.everyone) < 2:
            return sender.send(call, pool, tried[-1])

        def second() -> Attempt | None:
            another = pool.pick_another(tried)
            if another is None or not pool.hedges.take(time.monotonic()):
                return None
            tried.append(another)
            self.counts.add("hedges", pool.model)
            return lambda: sender.send(call, pool, another)

        first = tried[-1]
        return race(lambda: sender.send(call, pool, first), second, after_s, self._tasks)

    async def _until_awake(self, model: str, deadline: float) -> None:
        """Has a model woken that sleeps. Raises like `open`."""
        while self._waking is not None and self._fleet.sleeps(model):
            await self._waking.wake(model, deadline)

    async def _hears_of(self, candidate: Candidate, call: Call) -> bool:
        """Whether the supervisor of a local engine that nobody can reach says what became of it: it may sleep."""
        if self._waking is None or candidate.endpoint.source != "local":
            return False
        return await self._waking.hears_of(candidate.endpoint, call.deadline)

    async def _judge(self) -> None:
        """Takes out endpoints that do far worse than their peers."""
        self._fleet.eject_outliers()
