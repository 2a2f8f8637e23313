"""The headers `x-ratelimit-*`, as OpenAI has them: how much is left of limits, and when all of it is there again."""

from __future__ import annotations

import time
from collections.abc import Sequence

from parkway.policy.counters import Standing
from parkway.policy.periods import DAY_MS
from parkway.policy.rule import Charge, Measure, Rule, Told

Headers = list[tuple[bytes, bytes]]


def rate_limit_headers(charges: Sequence[Charge], standings: Sequence[Standing], passed_s: float = 0.0) -> Headers:
    """The headers for requests and for tokens, each about the limit that has the least left.

    Args:
        standings: How the subjects of `charges` stood with their rules.
        passed_s: So long ago.
    """
    least: dict[Measure, tuple[float, Rule, Standing, Told]] = {}
    for charge, standing in zip(charges, standings, strict=True):
        rule = charge.rule
        told = rule.told
        if told is not None:
            left = rule.limit - standing.used
            found = least.get(rule.measure)
            if found is None or left < found[0]:
                least[rule.measure] = (left, rule, standing, told)
    headers: Headers = []
    for left, rule, standing, (limit, remaining, reset) in least.values():
        per_s = rule.per_s
        if per_s:
            left = min(rule.limit, left + passed_s * per_s) if passed_s else left
            reset_s = (rule.limit - left) / per_s
        else:
            reset_s = max(0.0, (standing.start_ms + DAY_MS) / 1000 - time.time())
        headers += (limit, (remaining, b"%d" % (left if left > 0 else 0)), (reset, b"%.3fs" % reset_s))
    return headers
