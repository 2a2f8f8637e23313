"""What a caller is told who is over a limit or a budget: which, how much, whose, and until when."""

from __future__ import annotations

import time

from parkway.core.errors import BudgetExceeded, InvalidRequest, ParkwayError, RateLimited
from parkway.policy.counters import Refusal
from parkway.policy.periods import end_of, start_of
from parkway.policy.rule import SLOTS, WINDOW, Rule
from parkway.policy.rulebook import Party

NEVER_RETRY_S = 86_400.0
"""For a budget that does not begin anew by itself: tomorrow somebody may have raised it."""


def refused(refusal: Refusal, party: Party, wait_s: float | None) -> ParkwayError:
    """The error for a refusal.

    Args:
        wait_s: What is left of the wait; None: it never passes.
    """
    rule = refusal.charge.rule
    if rule.budget:
        return _over_budget(
            refusal, party, wait_s,
            f"this request: {money(rule, refusal.spent)} spent, {money(rule, refusal.reserved)} reserved by requests "
            f"in flight, up to {money(rule, refusal.charge.amount)} needed for this one",
        )  # fmt: skip
    whose = _whose(refusal, party)
    where = f"The limit: `{rule.setting}` in the configuration."
    if wait_s is None:
        much = f"{refusal.charge.amount:g} {rule.measure}"
        less = "; ask for less with `max_tokens`, or send a shorter prompt" if rule.measure == "tokens" else ""
        return InvalidRequest(
            f"This request counts as {much} and can never pass: {whose} has {limit_of(rule)}{less}. {where}"
        )
    if rule.form is SLOTS:
        message = f"{whose} has {limit_of(rule)}, and as many are in flight; try again when one has ended. {where}"
    else:
        message = f"{whose} is over its limit of {limit_of(rule)}; try again in {wait_s:.3g} s. {where}"
    return RateLimited(message[:1].upper() + message[1:], retry_after_s=wait_s)


def limit_of(rule: Rule) -> str:
    """The limit in words."""
    if rule.form is SLOTS:
        return f"{rule.limit:g} requests at once"
    if rule.form is WINDOW:
        return f"{rule.limit:g} {rule.measure} a day" if rule.limit < 1e6 else f"{rule.limit:.0f} {rule.measure} a day"
    if rule.name.endswith("_per_minute"):
        return f"{rule.limit:.0f} {rule.measure} a minute"
    return f"{rule.per_s:g} {rule.measure} a second (burst {rule.limit:g})"


def money(rule: Rule, amount: float) -> str:
    """An amount of what a budget counts."""
    return f"${amount / 1_000_000:.6f}" if rule.measure == "micro_usd" else f"{amount:.0f} tokens"


def outgrown(refusal: Refusal, party: Party) -> BudgetExceeded:
    """The error for an answer that a budget does not pay to its end."""
    rule = refusal.charge.rule
    return _over_budget(
        refusal, party, None,
        f"the rest of this answer, which ends here: {money(rule, refusal.spent)} spent, "
        f"{money(rule, refusal.reserved)} reserved by it and by others in flight",
    )  # fmt: skip


def _over_budget(refusal: Refusal, party: Party, wait_s: float | None, why: str) -> BudgetExceeded:
    rule = refusal.charge.rule
    period = rule.period or "total"
    every = "in total" if period == "total" else f"a {period}"
    end = end_of(period, start_of(period, time.time_ns() // 1_000_000))
    renews = "It does not renew by itself"
    if end is not None:
        renews = time.strftime("It renews at %Y-%m-%d %H:%M UTC", time.gmtime(end / 1000))
    if wait_s is None:
        wait_s = NEVER_RETRY_S if end is None else max(1.0, end / 1000 - time.time())
    return BudgetExceeded(
        f"The budget of {_whose(refusal, party)}, {money(rule, rule.limit)} {every}, has no room for {why}. {renews}. "
        f"The budget: `{rule.setting}` in the configuration.",
        retry_after_s=wait_s,
    )


def _whose(refusal: Refusal, party: Party) -> str:
    kind, subject = refusal.charge.rule.kind, refusal.charge.subject
    if kind == "key":
        return f'the key "{party.name}" ({subject})' if party.name else f"the key {subject}"
    return f"the {kind} {subject[:128]!r}"
