"""Conditions, negations and their kin: what a schema says by them holds for every answer."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from parkway.core.errors import UnsupportedField
from parkway.engine.directory import ModelDirectory
from parkway.engine.grammar import GrammarSpec
from parkway.engine.json_schema import JsonSchema
from parkway.engine.tokenizer import Tokenizer
from tests.engine.tiny import CONFIGS, write_directory
from tests.engine.walk import Walker

ROLE = {"type": "string", "enum": ["admin", "user"]}
PAYMENT = {
    "type": "object",
    "properties": {"by": {"enum": ["card", "cash"]}, "number": {"type": "string"}, "tip": {"type": "boolean"}},
    "required": ["by"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {"n": {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/n"}}}}},
}

# Schema, values that a guide lets through, values that it does not and that are not valid.
EXACT: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "if-then": (
        {**PAYMENT, "if": {"properties": {"by": {"const": "card"}}, "required": ["by"]},
         "then": {"required": ["number"]}},
        [{"by": "cash"}, {"by": "card", "number": "1"}, {"by": "cash", "tip": True}],
        [{"by": "card"}, {"by": "card", "tip": True}],
    ),
    "if-then-else": (
        {"type": "integer", "if": {"minimum": 10}, "then": {"multipleOf": 5}, "else": {"multipleOf": 2}},
        [4, 10, 15], [3, 12, 14],
    ),
    "if-of-types": (
        {"if": {"type": "string"}, "then": {"maxLength": 1}, "else": {"type": "null"}}, ["", "a", None], ["ab", 1],
    ),
    "if-of-one-property": (
        {"type": ["object", "null"], "properties": {"by": {"enum": [*"abcdefghij"]}, "x": {}, "y": {}},
         "additionalProperties": False, "allOf": [
             {"if": {"properties": {"by": {"const": "a"}}}, "then": {"required": ["x"]}, "else": {"required": ["y"]}},
             *({"if": {"properties": {"by": {"enum": [name, "j"]}}, "required": ["by"]},
                "then": {"required": ["x", "y"]}} for name in "bcdefgh"),
             {"required": []},
         ]},
        [None, {"x": 1}, {"by": "a", "x": 1}, {"by": "i", "y": 1}, {"by": "j", "x": 1, "y": 1},
         {"by": "b", "x": 1, "y": 2}],
        [{}, {"y": 1}, {"by": "a", "y": 1}, {"by": "i", "x": 1}, {"by": "j", "y": 1}, {"by": "c", "y": 1}],
    ),
    "if-of-one-property-open": (
        {"allOf": [
            {"if": {"properties": {"a": {"const": "p"}}}, "then": {"type": "object"}},
            {"if": {"properties": {"a": {"const": "q"}}, "required": ["a"]}, "then": {"maxProperties": 1}},
        ]},
        [{}, {"a": 3, "b": 1}, {"a": "p", "b": 1}, {"a": "q"}], [{"a": "q", "b": 1}, 1, []],
    ),
    "dependentRequired": (
        {**PAYMENT, "dependentRequired": {"number": ["tip"]}},
        [{"by": "cash"}, {"by": "card", "number": "1", "tip": False}], [{"by": "card", "number": "1"}],
    ),
    "dependentSchemas": (
        {**PAYMENT, "dependentSchemas": {"tip": {"properties": {"by": {"const": "card"}}}}},
        [{"by": "cash"}, {"by": "card", "tip": True}], [{"by": "cash", "tip": True}],
    ),
    "not-type": ({"not": {"type": ["object", "number"]}}, ["a", None, [1], True], [{}, 1, 2.5]),
    "not-enum": (
        {"type": "string", "not": {"enum": ["ab", "a", "", "q]^"]}}, ["b", "abc", "q]", "q]^x"], ["a", "ab", "", "q]^"],
    ),
    "not-const-number": ({"type": "number", "not": {"enum": [0, 2]}}, [1, -1, 0.5, 3], [0, 2]),
    "not-const-mixed": (
        {"not": {"enum": [None, True, 1, "a", []]}}, [False, 2, "b", [1], {}], [None, True, 1, "a", []],
    ),
    "not-required": ({"type": "object", "not": {"required": ["a", "b"]}}, [{"a": 1}, {"b": 1}, {}], [{"a": 1, "b": 1}]),
    "not-both": (
        {**PAYMENT, "not": {"anyOf": [{"required": ["tip"]}, {"properties": {"by": {"const": "cash"}}}]}},
        [{"by": "card"}], [{"by": "cash"}, {"by": "card", "tip": True}],
    ),
    "not-not": ({"not": {"not": {"type": "null"}}}, [None], [1]),
    "not-recursive": (
        {**TREE, "type": "object", "required": ["kids"], "properties": {"kids": {"not": {"type": "null"}}}},
        [{"kids": 1}], [{"kids": None}],
    ),
    "oneOf-overlapping": (
        {"type": "integer", "oneOf": [{"minimum": 5}, {"maximum": 10}]}, [1, 12], [5, 7, 10],
    ),
    "oneOf-required": (
        {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}},
         "oneOf": [{"required": ["id"]}, {"required": ["name"]}], "additionalProperties": False},
        [{"id": 1}, {"name": "a"}], [{}, {"id": 1, "name": "a"}],
    ),
    "propertyNames-enum": (
        {"type": "object", "propertyNames": {"$ref": "#/$defs/role"}, "additionalProperties": {"type": "integer"},
         "$defs": {"role": ROLE}},
        [{}, {"admin": 1}, {"admin": 1, "user": 2}], [{"root": 1}, {"admin": "x"}],
    ),
    "propertyNames-pattern": (
        {"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}, "additionalProperties": {"type": "integer"}},
        [{}, {"ab": 1}], [{"A": 1}, {"a": "x"}],
    ),
    "propertyNames-length": (
        {"type": "object", "propertyNames": {"maxLength": 2}, "properties": {"ab": {"type": "integer"}, "abc": {}}},
        [{"ab": 1}, {"ab": 1, "x": "y"}, {"ü\"": 1}], [{"abc": 1}, {"ab": "x"}],
    ),
    "propertyNames-type": (
        {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"type": "integer"}},
        [{"a": 1}], [{"a": "x"}],
    ),
    "contains": (
        {"type": "array", "items": {"type": "integer"}, "contains": {"minimum": 5}},
        [[5], [1, 7], [7, 1, 9]], [[], [1, 2]],
    ),
    "contains-bounds": (
        {"type": "array", "contains": {"const": 1}, "minContains": 1, "maxContains": 1}, [[1], [2, 1, 3]], [[], [1, 1]],
    ),
    "contains-none": (
        {"type": "array", "contains": {"const": 1}, "minContains": 0, "maxContains": 0}, [[], [2]], [[1], [2, 1]],
    ),
    "uniqueItems": (
        {"type": "array", "items": ROLE, "uniqueItems": True}, [[], ["user"], ["user", "admin"]], [["user", "user"]],
    ),
    "uniqueItems-few": (
        {"type": "array", "items": {"enum": list("abcdefghij")}, "uniqueItems": True, "maxItems": 2, "minItems": 1},
        [["j"], ["j", "a"]], [[], ["c", "c"], ["a", "b", "c"]],
    ),
    "unevaluatedProperties": (
        {"allOf": [{"$ref": "#/$defs/base"}], "properties": {"name": {"type": "string"}}, "type": "object",
         "unevaluatedProperties": False, "$defs": {"base": {"properties": {"id": {"type": "integer"}}}}},
        [{"id": 1, "name": "a"}, {"id": 1}], [{"id": "x"}, {"other": 1}],
    ),
    "unevaluatedItems": (
        {"type": "array", "prefixItems": [{"type": "integer"}], "unevaluatedItems": {"type": "null"}},
        [[], [1], [1, None]], [[1, 2], [None]],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    path = tmp_path_factory.mktemp("grammar") / "model"
    return Walker(Tokenizer(ModelDirectory(write_directory(path, CONFIGS["qwen2-grouped-tied"], eos="<|end|>"))), 320)


@pytest.mark.parametrize("name", EXACT)
def test_what_is_valid_passes_and_nothing_else(walker: Walker, name: str):
    schema, valid, invalid = EXACT[name]
    grammar = walker.compiler.compile(GrammarSpec.json_schema(schema))
    plain = Draft202012Validator(schema)
    for value, right in [*((value, True) for value in valid), *((value, False) for value in invalid)]:
        text = json.dumps(value, ensure_ascii=False)
        assert plain.is_valid(value) is right, value
        assert walker.follows(grammar, text) is right, value
        assert (grammar.check(text) is None) is right, value
    for seed in range(6):
        walk = walker.walk(grammar, seed)
        assert not walk.finished or plain.is_valid(json.loads(walk.text)), walk.text


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"not": {"pattern": "a"}}, '#/not/pattern: that a value does not satisfy "pattern"'),
        ({"not": {"items": {"type": "null"}}}, "#/not/items"),
        ({"not": {"type": "integer"}}, "#/not/type: that a number is no integer"),
        ({"not": {"const": [1]}}, "#/not/const: that a value is not a certain array"),
        ({"not": {"const": "x" * 200}}, "#/not/const: texts of more than"),
        ({"if": {"multipleOf": 2}, "then": {"minimum": 3}}, "#/if/multipleOf"),
        ({"uniqueItems": True}, "#/uniqueItems"),
        ({"items": {"enum": list("abcdefgh")}, "uniqueItems": True}, "#/uniqueItems"),
        ({"propertyNames": {"format": "email"}}, '#/propertyNames: "format" of names'),
        ({"propertyNames": {"pattern": "a", "minLength": 2}}, "#/propertyNames: several expressions"),
        ({"contains": {"type": "null"}, "minContains": 4}, "#/contains: so many places"),
        ({"anyOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False}, 'beside "anyOf" cannot be enforced'),
        ({"contains": {"type": "null"}, "unevaluatedItems": False}, 'beside "contains" cannot be enforced'),
        ({"oneOf": [{"pattern": "a"}, {"pattern": "b"}]}, "#/oneOf: it is not evident"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {"type": "null"}},
          "not": {"$ref": "#/definitions/a", "minimum": 3}}, "in this draft"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_out_is_refused(schema: dict[str, Any], reason: str):
    with pytest.raises(UnsupportedField) as raised:
        JsonSchema(schema)
    assert reason in str(raised.value)


def test_many_conditions_on_one_property_are_cheap(walker: Walker):
    kinds = [f"kind-{number}" for number in range(40)]
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": kinds}, **{f"for-{kind}": {"type": "integer"} for kind in kinds}},
        "required": ["kind"],
        "additionalProperties": False,
        "allOf": [
            {"if": {"properties": {"kind": {"const": kind}}}, "then": {"required": [f"for-{kind}"]}} for kind in kinds
        ],
    }  # fmt: skip
    grammar = walker.compiler.compile(GrammarSpec.json_schema(schema))
    assert walker.follows(grammar, '{"kind": "kind-7", "for-kind-7": 1}')
    assert not walker.follows(grammar, '{"kind": "kind-7", "for-kind-8": 1}')


def test_conditions_inside_one_another_are_bounded():
    condition: dict[str, Any] = {"type": "null"}
    for _ in range(16):
        condition = {"if": condition, "then": {"type": "null"}, "else": {"type": "string"}}
    with pytest.raises(Exception, match="too large when its conditions are written out"):
        JsonSchema(condition)


def test_dependencies_of_older_drafts(walker: Walker):
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}},
        "additionalProperties": False, "dependencies": {"a": ["b"], "b": {"required": ["c"]}},
    }  # fmt: skip
    grammar = walker.compiler.compile(GrammarSpec.json_schema(schema))
    for text, valid in [
        ('{"c": 1}', True),
        ('{"a": 1, "b": 1, "c": 1}', True),
        ('{"a": 1, "b": 1}', False),
        ('{"a": 1}', False),
    ]:
        assert walker.follows(grammar, text) is valid
        assert (grammar.check(text) is None) is valid
