"""Several `if` that ask for the value of one property, as one choice between its values.

One by one, n of them would be 2**n alternatives or more to the grammar engine; so they are n and a few.
"""

from dataclasses import dataclass
from typing import Any

from parkway.engine.negation import KINDS, distinct

_CONDITIONAL = {"if", "then", "else"}


@dataclass(frozen=True, slots=True)
class Case:
    """`if` the property `name` is one of `values`, `then` one schema, `otherwise` another.

    Fields:
        required: an object without the property does not satisfy the condition.
    """

    name: str
    values: tuple[str, ...]
    required: bool
    then: Any
    otherwise: Any


def gather(node: dict[str, Any]) -> tuple[dict[str, Any], list[list[Case]]]:
    """`node` without those conditionals in its `allOf` that belong together, and these in groups of two or more."""
    groups: dict[str, list[tuple[int, Case]]] = {}
    for index, child in enumerate(node.get("allOf", [])):
        case = _case(child)
        if case is not None:
            groups.setdefault(case.name, []).append((index, case))
    together = [group for group in groups.values() if len(group) > 1]
    taken = {index for group in together for index, _ in group}
    if not taken:
        return node, []
    left = [child for index, child in enumerate(node["allOf"]) if index not in taken]
    return {**node, "allOf": left}, [[case for _, case in group] for group in together]


def choice(cases: list[Case]) -> dict[str, Any]:
    """What all of `cases`, which are about one property, say together."""
    name = cases[0].name
    values = distinct([value for case in cases for value in case.values])

    def where(schema: Any, holds: list[bool], required: list[str]) -> dict[str, Any]:
        chosen = [case.then if held else case.otherwise for case, held in zip(cases, holds, strict=True)]
        base = {"type": "object", "properties": {name: schema}, "required": required}
        return {"allOf": [base, *(each for each in chosen if each is not True)]}

    options = [where({"const": value}, [value in case.values for case in cases], [name]) for value in values]
    options.append(where({"not": {"enum": values}}, [False] * len(cases), [name]))
    options.append(where(False, [not case.required for case in cases], []))
    others = {"type": [kind for kind in KINDS if kind != "object"]}
    options.append({"allOf": [others, *(case.then for case in cases)]})
    return {"anyOf": options}


def _case(node: Any) -> Case | None:
    if not isinstance(node, dict) or not node.keys() <= _CONDITIONAL or not isinstance(node.get("if"), dict):
        return None
    condition = node["if"]
    properties = condition.get("properties", {})
    if not condition.keys() <= {"properties", "required"} or len(properties) != 1:
        return None
    name, schema = next(iter(properties.items()))
    if not isinstance(schema, dict) or len(schema) != 1 or condition.get("required", [name]) != [name]:
        return None
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not values or not all(isinstance(value, str) for value in values):
        return None
    return Case(name, tuple(values), "required" in condition, node.get("then", True), node.get("else", True))
