"""The headers `x-ratelimit-*`, as OpenAI has them: how much is left of limits, and when all of it is there again."""

from __future__ import annotations

import time
from collections.abc import Sequence

from parkway.policy.counters import Standing
from parkway.policy.periods import DAY_MS
from parkway.policy.rule import Charge, Measure, Rule

Headers = list[tuple[bytes, bytes]]

_NAMES: dict[Measure, tuple[bytes, bytes, bytes]] = {
    "requests": (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"),
    "tokens": (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens"),
}


def is_told(rule: Rule) -> bool:
    """Whether the headers are about rules like this one; budgets are none of OpenAI's limits."""
    return rule.measure in _NAMES and not rule.budget


def rate_limit_headers(charges: Sequence[Charge], standings: Sequence[Standing], passed_s: float = 0.0) -> Headers:
    """The headers for requests and for tokens, each about the limit that has the least left.

    Args:
        standings: How the subjects of `charges` stood with their rules.
        passed_s: So long ago.
    """
    least: dict[Measure, tuple[float, Rule, Standing]] = {}
    for charge, standing in zip(charges, standings, strict=True):
        rule = charge.rule
        if is_told(rule):
            left = rule.limit - standing.used
            found = least.get(rule.measure)
            if found is None or left < found[0]:
                least[rule.measure] = (left, rule, standing)
    headers: Headers = []
    for measure, (left, rule, standing) in least.items():
        per_s = rule.per_s
        if per_s:
            left = min(rule.limit, left + passed_s * per_s)
            reset_s = (rule.limit - left) / per_s
        else:
            reset_s = max(0.0, (standing.start_ms + DAY_MS) / 1000 - time.time())
        limit, remaining, reset = _NAMES[measure]
        headers += (
            (limit, b"%d" % rule.limit),
            (remaining, b"%d" % (left if left > 0 else 0)),
            (reset, b"%.3fs" % reset_s),
        )
    return headers
