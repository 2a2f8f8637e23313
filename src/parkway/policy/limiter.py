"""The limiter: holds every request to the limits and budgets that apply to it, all of them or none."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from parkway.core.errors import ParkwayError, RateLimited, StoreUnavailable
from parkway.policy.budgets import BudgetConfig, counter_name
from parkway.policy.caller import Caller
from parkway.policy.counters import Counters, Grant, MemoryCounters, Refusal, Standing
from parkway.policy.estimate import Estimate
from parkway.policy.ledger import Account, Ledger, Spent
from parkway.policy.limits import LimitsConfig
from parkway.policy.periods import end_of
from parkway.policy.prices import Price
from parkway.policy.rate_limit_headers import Headers, rate_limit_headers
from parkway.policy.refusals import money, outgrown, refused
from parkway.policy.rule import Charge, Rule
from parkway.policy.rulebook import Party, Rulebook

log = logging.getLogger(__name__)

MAX_NAMES = 100_000
"""Agents and tasks that are counted apart; clients may name any, and those beyond share one account."""

OTHERS = "(others)"

_MOST_MICRO_USD = 2**52  # what a double, and so every counter, holds exactly
_ONE_REQUEST: Mapping[str, float] = {"requests": 1}
_CALLERS = ("key", "user", "team")


class Taken(NamedTuple):
    """What a request has used, as it was counted."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class _Shut(NamedTuple):
    """Who is refused until a moment without that anything is counted, and how its limits stood."""

    until: float
    refusal: Refusal
    party: Party
    limits: Grant | None


@dataclass(slots=True)
class Reservation:
    """What a request has taken, until it is settled, which happens once."""

    party: Party
    expected: Estimate
    grants: list[Grant] = field(default_factory=list)
    settled: bool = False
    step: int = 0  # how much it may grow by at once, where there was no room for a usual step

    @property
    def hard(self) -> bool:
        """Whether there is a budget that refuses what it has no room for."""
        return any(charge.rule.budget and charge.rule.hard for charge in self.grants[0].charges)

    def headers(self) -> Headers:
        """`x-ratelimit-*`: what is left once it is taken."""
        first = self.grants[0]
        return rate_limit_headers(first.charges, first.standings)


class BudgetState(msgspec.Struct, kw_only=True):
    """How a subject stands with a budget; tokens, or US dollars where `unit` is `usd`. `renews_ms` None: never."""

    kind: str
    subject: str
    period: str
    unit: str
    limit: float
    spent: float
    reserved: float
    left: float
    hard: bool
    renews_ms: int | None


class Limiter:
    """Holds callers to limits and budgets.

    Args:
        counters: Where it is counted; by default in the memory of this process.
        prices: Of models, by name.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        config: LimitsConfig,
        counters: Counters | None = None,
        *,
        budgets: Sequence[BudgetConfig] = (),
        prices: Mapping[str, Price] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters: Counters = MemoryCounters(clock) if counters is None else counters
        self.ledger: Ledger | None = None
        self._clock = clock
        self._shut: dict[str, _Shut] = {}  # by key id
        self._sweep_at = 1024
        self._names: set[str] = set()
        self._warned: set[tuple[str, str, int]] = set()
        self._leases = itertools.count()
        self.replace(config, budgets, prices or {})

    def replace(self, config: LimitsConfig, budgets: Sequence[BudgetConfig], prices: Mapping[str, Price]) -> None:
        """Goes by other rules from now on; what was used stays counted."""
        self.config = config
        self.rulebook = Rulebook(config, budgets)
        self._prices = dict(prices)
        self._shut.clear()

    def knock(self, caller: Caller) -> None:
        """Refuses at once who was refused before and told to wait longer: before the body is read, say.

        Raises:
            RateLimited: A limit of requests, by which nothing that the caller sends can pass yet.
        """
        shut = self._shut.get(caller.key_id)
        if shut is None:
            return
        wait_s = shut.until - self._clock()
        if wait_s > 0:
            raise _refused(shut.refusal, shut.party, shut.limits, wait_s)
        del self._shut[caller.key_id]

    async def admit(self, caller: Caller) -> None:
        """Counts a request that asks no model for anything.

        Raises:
            RateLimited: Not now; after `retry_after_s` it passes, if nobody sends anything in between.
        """
        self.knock(caller)
        await self._take(Party.of(caller), _ONE_REQUEST, lease_s=1.0)

    async def reserve(self, party: Party, expected: Estimate, lease_s: float = 600.0) -> Reservation:
        """Takes a request, its place among those in flight, and what it is expected to use.

        Args:
            lease_s: The longest that the request can take.

        Raises:
            RateLimited, BudgetExceeded: Not now. Nothing was taken.
            InvalidRequest: It is too much for a limit at any time.
        """
        if party.agent is not None or party.task is not None:
            party = self._bounded(party)
        amounts = self._amounts(party, expected)
        amounts["requests"] = amounts["concurrency"] = 1
        charges = self.rulebook.charges(party, amounts)
        taken = await self.counters.take(charges, next(self._leases), lease_s)
        if isinstance(taken, Refusal):
            raise await self._refuse(taken, party, charges)
        return Reservation(party, expected, [taken])

    async def extend(self, reservation: Reservation, prompt_tokens: int, lease_s: float = 600.0) -> None:
        """Takes more of what is counted in tokens and money: the prompt has become longer. Raises like `reserve`."""
        more = Estimate(prompt_tokens)
        grant = await self._take(reservation.party, self._amounts(reservation.party, more), lease_s)
        reservation.grants.append(grant)
        expected = reservation.expected
        reservation.expected = Estimate(expected.prompt_tokens + prompt_tokens, expected.completion_tokens)

    async def grow(self, reservation: Reservation, completion_tokens: int, lease_s: float = 600.0) -> None:
        """Takes more of the budgets that refuse, for an answer that has become longer than was expected.

        It takes a quarter more than there is already, so that it need not be asked often; where there is no room for
        that, as much as there is. Limits are not asked again: of them the request has its place.

        Args:
            completion_tokens: What has to be covered.

        Raises:
            BudgetExceeded: There is no room for that. Nothing more was taken.
        """
        expected, party = reservation.expected, reservation.party
        least = completion_tokens - expected.completion_tokens
        step = max(least, reservation.step or expected.completion_tokens // 4)
        while not reservation.settled:
            charges = self.rulebook.charges(party, self._amounts(party, Estimate(0, step)))
            charges = [charge for charge in charges if charge.rule.budget and charge.rule.hard]
            taken = await self.counters.take(charges, next(self._leases), lease_s)
            if isinstance(taken, Refusal):
                if step <= least:
                    raise outgrown(taken, party)
                reservation.step = step = max(least, step // 2)
                continue
            reservation.grants.append(taken)
            reservation.expected = Estimate(expected.prompt_tokens, expected.completion_tokens + step)
            if reservation.settled:  # while the store was asked
                self.counters.settle(taken, [0.0] * len(charges))
            return

    def settle(self, reservation: Reservation, taken: Taken, model: str | None = None) -> int | None:
        """Puts what was used in the place of what was expected, and gives the rest back. The second time does nothing.

        Args:
            model: Who answered, where that is not whom the client asked.

        Returns:
            What it cost in micro-dollars; None where the model has no price.
        """
        price = self._prices.get(model or reservation.party.model or "")
        cost = None if price is None else price.micro_usd(*taken)
        if reservation.settled:
            return cost
        reservation.settled = True
        tokens = taken.prompt_tokens + taken.completion_tokens
        amounts = {"tokens": tokens, "micro_usd": cost or 0}
        for grant in reservation.grants:
            self.counters.settle(grant, [amounts.get(charge.rule.measure, charge.amount) for charge in grant.charges])
            amounts = {"tokens": 0, "micro_usd": 0}  # what was taken later is given back whole: the first has it all
        if self.rulebook.budgets and (tokens or cost):
            self._enter(reservation, tokens, cost or 0)
        return cost

    async def budgets(self, caller: Caller) -> list[BudgetState]:
        """The budgets that hold for `caller`, whatever it asks for, and how it stands with each."""
        charges = self.rulebook.budgets_of(Party.of(caller))
        if not charges:
            return []
        found = await self._look(charges)
        if found is None:
            return []
        return [_state(charge, standing) for charge, standing in zip(charges, found.standings, strict=True)]

    def learn(self, account: Account, spent: Spent) -> None:
        """Takes over what the store has of an account."""
        for measure, amount in zip(("tokens", "micro_usd"), spent, strict=True):
            name = counter_name(account.kind, account.period, measure)
            self.counters.learn(name, account.subject, account.start_ms, amount)

    async def _take(self, party: Party, amounts: Mapping[str, float], lease_s: float) -> Grant:
        charges = self.rulebook.charges(party, amounts)
        taken = await self.counters.take(charges, next(self._leases), lease_s)
        if isinstance(taken, Grant):
            return taken
        raise await self._refuse(taken, party, charges)

    async def _refuse(self, refusal: Refusal, party: Party, charges: Sequence[Charge]) -> ParkwayError:
        rule, wait_s = refusal.charge.rule, refusal.wait_s
        if wait_s is None or rule.budget:
            return refused(refusal, party, wait_s)
        refused_at = self._clock()
        told = [Charge(each.rule, each.subject, 0) for each in charges if each.rule.told is not None]
        try:
            limits = await self._look(told)
        except StoreUnavailable:
            limits = None
        if rule.measure == "requests" and rule.kind in _CALLERS:
            if len(self._shut) >= self._sweep_at:
                self._shut = {key_id: shut for key_id, shut in self._shut.items() if shut.until > refused_at}
                self._sweep_at = max(1024, 2 * len(self._shut))
            self._shut[party.key] = _Shut(refused_at + wait_s, refusal, party, limits)
        return _refused(refusal, party, limits, wait_s)

    async def _look(self, nothing: Sequence[Charge]) -> Grant | None:
        """How things stand: who takes nothing is told so, in every store."""
        found = await self.counters.take(nothing, next(self._leases), lease_s=1.0)
        if not isinstance(found, Grant):
            return None
        self.counters.settle(found, [0.0] * len(nothing))
        return found

    def _amounts(self, party: Party, expected: Estimate) -> dict[str, float]:
        price = self._prices.get(party.model or "")
        prompt, completion = expected.prompt_tokens, expected.completion_tokens
        return {
            "tokens": prompt + completion,
            "micro_usd": 0 if price is None else min(_MOST_MICRO_USD, price.micro_usd(prompt, completion)),
        }

    def _enter(self, reservation: Reservation, tokens: int, micro_usd: int) -> None:
        """Writes what was spent into the ledger, and warns of budgets that are nearly spent."""
        grant = reservation.grants[0]
        for charge, standing in zip(grant.charges, grant.standings, strict=True):
            rule = charge.rule
            if not rule.budget or rule.period is None:
                continue
            if rule.enters and self.ledger is not None:
                account = Account(rule.kind, charge.subject, rule.period, standing.start_ms)
                self.ledger.add(account, tokens, micro_usd)
            spent = standing.spent + (tokens if rule.measure == "tokens" else micro_usd)
            if spent >= rule.warn_from:
                self._warn(rule, charge.subject, standing.start_ms, spent)

    def _warn(self, rule: Rule, subject: str, start_ms: int, spent: float) -> None:
        """Once for each subject and period."""
        once = (rule.name, subject, start_ms)
        if once in self._warned:
            return
        if len(self._warned) >= MAX_NAMES:
            self._warned.clear()
        self._warned.add(once)
        limit = money(rule, rule.limit)
        log.warning("budget of %s %r: %s of %s spent (%s)", rule.kind, subject, money(rule, spent), limit, rule.period)

    def _bounded(self, party: Party) -> Party:
        """`party` with agents and tasks that are too many put together; where nobody counts them, as it is."""
        names = {}
        for kind in ("agent", "task"):
            name = getattr(party, kind)
            if name is None or kind not in self.rulebook.kinds or (known := f"{kind} {name}") in self._names:
                continue
            if len(self._names) < MAX_NAMES:
                self._names.add(known)
            else:
                names[kind] = OTHERS
        return party._replace(**names) if names else party


def _refused(refusal: Refusal, party: Party, limits: Grant | None, wait_s: float) -> ParkwayError:
    """The error for a refusal by a limit, of which `wait_s` of the wait are left, with how the limits stand."""
    error = refused(refusal, party, wait_s)
    if isinstance(error, RateLimited) and limits is not None and refusal.wait_s is not None:
        error.limits = rate_limit_headers(limits.charges, limits.standings, passed_s=refusal.wait_s - wait_s)
    return error


def _state(charge: Charge, standing: Standing) -> BudgetState:
    rule = charge.rule
    usd = rule.measure == "micro_usd"
    unit = 1_000_000 if usd else 1
    return BudgetState(
        kind=rule.kind,
        subject=charge.subject,
        period=rule.period or "total",
        unit="usd" if usd else "tokens",
        limit=rule.limit / unit,
        spent=standing.spent / unit,
        reserved=(standing.used - standing.spent) / unit,
        left=max(0.0, rule.limit - standing.used) / unit,
        hard=rule.hard,
        renews_ms=end_of(rule.period or "total", standing.start_ms),
    )
