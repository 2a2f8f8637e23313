"""What no value of a finite set is, as a schema: the building stones of `not`."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from parkway.core.errors import UnsupportedField
from parkway.engine.exclusion import Comparable, comparable
from parkway.engine.pattern import literal

KINDS = ("null", "boolean", "number", "string", "array", "object")
"""The types of JSON, of which every value has one; an integer is a number."""

_MAX_CHARACTERS = 500
_MAX_LENGTH = 60  # each character is a group inside the one before it
_REST = "(?s:.)"


def other_types(types: str | Sequence[str], place: str) -> list[str]:
    """The types that are none of `types`."""
    given = [types] if isinstance(types, str) else list(types)
    if "integer" in given and "number" not in given:
        raise UnsupportedField(f"{place}: that a number is no integer cannot be enforced; say what it is instead")
    return [kind for kind in KINDS if kind not in given]


def none_of(values: Sequence[Any], place: str) -> list[dict[str, Any]]:
    """Schemas of which every value that is not among `values` satisfies one, and no other value does."""
    by_kind: dict[str, list[Any]] = {}
    for value in values:
        by_kind.setdefault(kind_of(value), []).append(value)
    parts: list[dict[str, Any]] = [{"type": [kind for kind in KINDS if kind not in by_kind]}]
    parts += [] if "string" not in by_kind else [{"type": "string", "pattern": _other_text(by_kind["string"], place)}]
    parts += [] if "number" not in by_kind else _other_numbers(sorted(set(by_kind["number"])), place)
    if "boolean" in by_kind:
        parts += [{"const": value} for value in (True, False) if value not in by_kind["boolean"]]
    for kind, key in (("array", "minItems"), ("object", "minProperties")):
        if any(by_kind.get(kind, ())):
            raise UnsupportedField(f"{place}: that a value is not a certain {kind} cannot be enforced; say what it is")
        parts += [{"type": kind, key: 1}] if kind in by_kind else []
    return [part for part in parts if part.get("type") != []]


def kind_of(value: Any) -> str:
    """Which of `KINDS` a value is of."""
    names = {type(None): "null", bool: "boolean", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "number")


def distinct(values: Sequence[Any]) -> list[Any]:
    """`values` without those that JSON takes for the same, in their order."""
    found: dict[Comparable, Any] = {}
    for value in values:
        found.setdefault(comparable(value), value)
    return list(found.values())


def _other_numbers(values: list[Any], place: str) -> list[dict[str, Any]]:
    if any(abs(value) >= 1 << 53 for value in values):
        raise UnsupportedField(f"{place}: a number from 2**53 on cannot be excluded")
    gaps = [{"exclusiveMinimum": low, "exclusiveMaximum": high} for low, high in pairwise(values)]
    ends = [{"exclusiveMaximum": values[0]}, *gaps, {"exclusiveMinimum": values[-1]}]
    return [{"type": "number", **bounds} for bounds in ends]


def _other_text(texts: list[str], place: str) -> str:
    """An expression that matches every text but `texts`."""
    if sum(map(len, texts)) > _MAX_CHARACTERS or max(map(len, texts)) > _MAX_LENGTH:
        raise UnsupportedField(
            f"{place}: texts of more than {_MAX_LENGTH} characters, or {_MAX_CHARACTERS} in all, cannot be excluded"
        )
    root: dict[str, Any] = {}
    for text in texts:
        node = root
        for char in text:
            node = node.setdefault(char, {})
        node[""] = {}
    return f"^{_others(root)}$"


def _others(node: dict[str, Any]) -> str:
    """What may follow where `node` of the tree is reached; "" in it says that one of the texts ends here."""
    heads = [char for char in node if char]
    if not heads:
        return f"{_REST}+"
    outside = f"[^{''.join(map(literal, heads))}]{_REST}*"
    branches = "|".join([outside, *(literal(char) + _others(node[char]) for char in heads)])
    return f"(?:{branches})" + ("" if "" in node else "?")
