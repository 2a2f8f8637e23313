"""Schemas of which it is proven that no value satisfies both, and others that overlap."""

from typing import Any

import pytest

from parkway.engine.exclusion import Exclusion
from parkway.engine.json_schema import resolve

DOCUMENT: dict[str, Any] = {
    "$defs": {
        "cat": {"type": "object", "properties": {"kind": {"const": "cat"}}, "required": ["kind"]},
        "dog": {"type": "object", "properties": {"kind": {"const": "dog"}}, "required": ["kind"]},
        "pet": {"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}]},
        "loop": {"$ref": "#/$defs/loop"},
        "tree": {"type": "object", "properties": {"next": {"$ref": "#/$defs/tree"}}, "required": ["next"]},
    }
}
CAT, DOG = {"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}


def disjoint(first: Any, second: Any) -> bool:
    exclusion = Exclusion(lambda reference: resolve(DOCUMENT, reference))
    found = exclusion.disjoint(first, second)
    assert exclusion.disjoint(second, first) == found
    return found


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (False, {}),
        ({"type": "string"}, {"type": ["number", "null"]}),
        ({"const": 1}, {"const": True}),
        ({"enum": ["a", "b"]}, {"enum": ["c", 1]}),
        ({"enum": ["a", 1.5]}, {"type": "integer"}),
        ({"type": "integer", "maximum": 3}, {"type": "number", "minimum": 4}),
        ({"type": "string", "maxLength": 3}, {"type": "string", "minLength": 4}),
        ({"type": "array", "maxItems": 0}, {"type": "array", "minItems": 1}),
        (CAT, DOG),
        (CAT, {"allOf": [DOG, {"title": "of dogs"}]}),
        ({"$ref": "#/$defs/pet"}, {"type": "object", "properties": {"kind": {"const": "fish"}}}),
        ({"type": "object", "required": ["a"]}, {"type": "object", "additionalProperties": False}),
        ({"anyOf": [{"type": "string"}, CAT]}, {"anyOf": [{"type": "null"}, DOG]}),
        (
            {"type": ["string", "integer"], "minimum": 3, "maxLength": 2},
            {"type": ["string", "integer"], "maximum": 2, "minLength": 3},
        ),
    ],
)
def test_disjoint(first: Any, second: Any):
    assert disjoint(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {}),
        ({"type": "integer"}, {"type": "number"}),
        ({"const": 1}, {"const": 1.0}),
        ({"type": "integer", "maximum": 3}, {"minimum": 3}),
        ({"properties": {"kind": {"const": "a"}}}, {"properties": {"kind": {"const": "b"}}}),
        (
            {"type": "object", "properties": {"kind": {"const": "a"}}},
            {"type": "object", "properties": {"kind": {"const": "b"}}},
        ),
        ({"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}),
        (
            {"type": "object", "required": ["a"]},
            {"type": "object", "additionalProperties": False, "patternProperties": {"a": {}}},
        ),
        ({"type": "array", "items": {"type": "string"}}, {"type": "array", "items": {"type": "null"}}),
        ({"$ref": "#/$defs/loop"}, {"type": "null"}),
        ({"$ref": "#/$defs/tree"}, {"$ref": "#/$defs/tree"}),
        ({"$ref": "#/$defs/pet"}, CAT),
    ],
)
def test_overlapping_or_not_proven(first: Any, second: Any):
    assert not disjoint(first, second)
