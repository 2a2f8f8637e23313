"""What `multipleOf` costs: an automaton with a state for every remainder, times every digit of the bounds beside it."""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from parkway.core.errors import UnsupportedField
from parkway.engine.number_format import BOUNDS, INTEGERS

# Remainders of a number without bounds, and of one with bounds: beyond, it takes seconds, or fails in an answer.
MAX_REMAINDERS = 10_000
MAX_BOUNDED_REMAINDERS = 1_000


def check_multiples(reached: list[tuple[str, dict[str, Any]]], resolve: Callable[[str], Any]) -> None:
    """Raises UnsupportedField where a number would have to be a multiple of too much.

    Args:
        reached: every schema of a document, with its place.
        resolve: finds what a reference in it refers to.
    """
    if not any("multipleOf" in node for _, node in reached):
        return
    for place, node in reached:
        together = list(_together(node, resolve))
        steps = [Fraction(str(each["multipleOf"])) for each in together if "multipleOf" in each]
        if not steps:
            continue
        bounded = any(key in each for each in together for key in BOUNDS) or any(
            each.get("format") in INTEGERS for each in together
        )
        most = MAX_BOUNDED_REMAINDERS if bounded else MAX_REMAINDERS
        common = _common(steps)
        if common >= 1 << 32:  # the grammar engine has 32 bits for it
            raise UnsupportedField(
                f'{place}: "multipleOf": {_listed(steps)} has too many digits, or no common multiple below 2**32; '
                "use fewer or rounder"
            )
        remainders = _remainders(common)
        if remainders > most:
            raise UnsupportedField(
                f"{place}: to be a multiple of {_listed(steps)} takes {remainders} remainders; {most} are the most "
                f'{"beside bounds" if bounded else "without bounds"}. Zeros at the end of "multipleOf" cost nothing: '
                "use a rounder number, or leave it out"
            )


def _common(steps: list[Fraction]) -> int:
    """The least common multiple, of the digits without the decimal point."""
    places = 0
    while any((step * 10**places).denominator != 1 for step in steps):
        places += 1
    return math.lcm(*(int(step * 10**places) for step in steps))


def _remainders(common: int) -> int:
    while common % 10 == 0:
        common //= 10
    return common


def _together(node: Any, resolve: Callable[[str], Any]) -> Iterator[dict[str, Any]]:
    """The schemas that may hold for one value at once."""
    seen: set[int] = set()
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if not isinstance(each, dict) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        for key in ("allOf", "anyOf", "oneOf"):
            waiting += each.get(key, [])
        waiting += [each[key] for key in ("not", "if", "then", "else") if key in each]
        waiting += [child for child in each.get("dependentSchemas", {}).values() if isinstance(child, dict)]
        if "$ref" in each:
            waiting.append(resolve(each["$ref"]))


def _listed(steps: list[Fraction]) -> str:
    return ", ".join(f"{float(step):.12g}" for step in list(dict.fromkeys(steps))[:5])
