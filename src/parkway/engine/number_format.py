"""Formats of numbers, as OpenAPI has them: what they allow, and how type and bounds of a schema say the same.

Source: the format registry of the OpenAPI Initiative, spec.openapis.org/registry/format.
"""

import math
from collections.abc import Mapping
from typing import Any

BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")

INTEGERS: Mapping[str, tuple[int, int]] = {
    **{f"int{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": (0, (1 << bits) - 1) for bits in (8, 16, 32)},
}
"""The least and the greatest of each."""

EVERY_NUMBER = ("float", "double")
"""Formats that say nothing of a number: every number of JSON is read as one of these."""

_KINDS = ("null", "boolean", "object", "array", "integer", "string")

# The grammar engine takes bounds as doubles and makes 64-bit integers of them. This is the least that it can work with;
# the greatest becomes 2**63 as a double, and 2**63 - 1 again as an integer.
_LEAST = -(1 << 63) + 1024


def is_implied(node: dict[str, Any], key: str) -> bool:
    """Whether the bound `key` of a schema says no more than its format does."""
    if node.get("format") not in INTEGERS:
        return False
    low, high = INTEGERS[node["format"]]
    bound = node[key]
    return {
        "minimum": bound <= low,
        "exclusiveMinimum": bound < low,
        "maximum": bound >= high,
        "exclusiveMaximum": bound > high,
    }[key]


def kinds_of(node: dict[str, Any]) -> list[str]:
    """The types that a schema with an integer format allows, of which `number` is then `integer`."""
    types = node.get("type", list(_KINDS))
    kinds = [types] if isinstance(types, str) else types
    return list(dict.fromkeys("integer" if kind == "number" else kind for kind in kinds))


def span(node: dict[str, Any]) -> tuple[int, int]:
    """The least and the greatest integer that format and bounds of a schema allow; crossed over where none is."""
    low, high = INTEGERS[node["format"]]
    bounds = {key: node[key] for key in BOUNDS if key in node and not is_implied(node, key)}
    if "minimum" in bounds:
        low = max(low, math.ceil(bounds["minimum"]))
    if "exclusiveMinimum" in bounds:
        low = max(low, math.floor(bounds["exclusiveMinimum"]) + 1)
    if "maximum" in bounds:
        high = min(high, math.floor(bounds["maximum"]))
    if "exclusiveMaximum" in bounds:
        high = min(high, math.ceil(bounds["exclusiveMaximum"]) - 1)
    return low, high


def narrow(node: dict[str, Any]) -> None:
    """Puts type and bounds in the place of a schema's format of numbers."""
    if node.get("format") in EVERY_NUMBER:
        del node["format"]
    if node.get("format") not in INTEGERS:
        return
    low, high = span(node)
    kinds = kinds_of(node)
    for key in ("format", *BOUNDS):
        node.pop(key, None)
    if "integer" in kinds and low <= high:
        node["minimum"] = max(low, _LEAST)
        node["maximum"] = high if high < (1 << 63) - 1 else 1 << 63
    node["type"] = [kind for kind in kinds if kind != "integer" or low <= high]
