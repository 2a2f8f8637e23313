"""Proves that no value satisfies two schemas: `oneOf` then asks for no more than `anyOf`, which grammars have."""

from collections.abc import Callable, Hashable, Iterator
from itertools import product
from typing import Any

# How far properties are compared inside properties, and how many comparisons one document is worth (under a second).
_MAX_DEPTH = 6
_MAX_COMPARISONS = 40_000

_KINDS = {
    "null": {"null"},
    "boolean": {"boolean"},
    "string": {"string"},
    "array": {"array"},
    "object": {"object"},
    "integer": {"integer"},
    "number": {"integer", "fraction"},
}
_EVERY_KIND = frozenset().union(*_KINDS.values())
_BOUNDS = {
    "integer": ("minimum", "maximum"),
    "fraction": ("minimum", "maximum"),
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
}

Comparable = Hashable
"""Stands for a value of JSON: the same just where the values are."""

Facets = list[dict[str, Any]]
"""Schemas that a value has to satisfy all at once."""


class Exclusion:
    """Compares schemas of one document; `resolve` finds what a `$ref` in it points to."""

    def __init__(self, resolve: Callable[[str], Any]) -> None:
        self._resolve = resolve
        self._comparisons = 0

    def exclusive(self, options: list[Any]) -> bool:
        """No value can satisfy two of `options`. False where that is not proven."""
        return all(
            self.disjoint(first, second) for place, first in enumerate(options) for second in options[place + 1 :]
        )

    def disjoint(self, first: Any, second: Any, depth: int = 0) -> bool:
        """No value can satisfy both. False where that is not proven."""
        if first is False or second is False:
            return True
        self._comparisons += 1
        if depth > _MAX_DEPTH or self._comparisons > _MAX_COMPARISONS:
            return False
        firsts, seconds = self._facets(first), self._facets(second)
        for options in _alternatives(firsts):
            if all(self.disjoint(option, second, depth + 1) for option in options):
                return True
        for options in _alternatives(seconds):
            if all(self.disjoint(first, option, depth + 1) for option in options):
                return True
        shared = _kinds(firsts) & _kinds(seconds)
        return all(self._excludes(kind, firsts, seconds, depth) for kind in shared)

    def _facets(self, schema: Any) -> Facets:
        """The schema, what it refers to and what it is composed of."""
        facets: Facets = []
        waiting = [schema]
        while waiting:
            node = waiting.pop()
            if not isinstance(node, dict) or any(node is facet for facet in facets):
                continue
            facets.append(node)
            waiting += node.get("allOf", [])
            if "$ref" in node:
                waiting.append(self._resolve(node["$ref"]))
        return facets

    def _excludes(self, kind: str, firsts: Facets, seconds: Facets, depth: int) -> bool:
        """No value of this kind satisfies both."""
        if any(_values_differ(a, b) or _bounds_differ(kind, a, b) for a, b in product(firsts, seconds)):
            return True
        return kind == "object" and self._objects_differ(firsts, seconds, depth)

    def _objects_differ(self, firsts: Facets, seconds: Facets, depth: int) -> bool:
        """A property that one of them requires is different, or not allowed, in the other."""
        required = [{name for facet in facets for name in facet.get("required", [])} for facets in (firsts, seconds)]
        for name in required[0] | required[1]:
            pairs = product(_properties(firsts, name), _properties(seconds, name))
            if any(self.disjoint(a, b, depth + 1) for a, b in pairs):
                return True
        return any(_forbids(facet, name) for name in required[0] for facet in seconds) or any(
            _forbids(facet, name) for name in required[1] for facet in firsts
        )


def _alternatives(facets: Facets) -> Iterator[list[Any]]:
    for facet in facets:
        for key in ("anyOf", "oneOf"):
            if key in facet:
                yield facet[key]


def _kinds(facets: Facets) -> set[str]:
    kinds = set(_EVERY_KIND)
    for facet in facets:
        types = facet.get("type", list(_KINDS))
        kinds &= set().union(*(_KINDS[name] for name in ([types] if isinstance(types, str) else types)))
        values = _values(facet)
        if values is not None:
            kinds &= {_kind(value) for value in values}
    return kinds


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "integer" if value == int(value) else "fraction"
    names = {str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _values(facet: dict[str, Any]) -> list[Any] | None:
    return [facet["const"]] if "const" in facet else facet.get("enum")


def _values_differ(first: dict[str, Any], second: dict[str, Any]) -> bool:
    ours, theirs = _values(first), _values(second)
    if ours is None or theirs is None:
        return False
    return {comparable(value) for value in ours}.isdisjoint(comparable(value) for value in theirs)


def comparable(value: Any) -> Comparable:
    """Hashable, and equal just where JSON values are: 1 is 1.0 and not true."""
    if isinstance(value, list):
        return ("array", *map(comparable, value))
    if isinstance(value, dict):
        return ("object", frozenset((key, comparable(item)) for key, item in value.items()))
    return (_kind(value), value)


def _bounds_differ(kind: str, first: dict[str, Any], second: dict[str, Any]) -> bool:
    if kind not in _BOUNDS:
        return False
    low, high = _BOUNDS[kind]
    infinity = float("inf")
    return first.get(high, infinity) < second.get(low, -infinity) or second.get(high, infinity) < first.get(
        low, -infinity
    )


def _properties(facets: Facets, name: str) -> list[Any]:
    return [facet["properties"][name] for facet in facets if name in facet.get("properties", {})]


def _forbids(facet: dict[str, Any], name: str) -> bool:
    return (
        facet.get("additionalProperties") is False
        and name not in facet.get("properties", {})
        and not facet.get("patternProperties")
    )
