"""Whatever a client sends as a schema is refused with a reason, or every answer is valid for it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from parkway.core.errors import InvalidRequest, UnsupportedField
from parkway.engine.directory import ModelDirectory
from parkway.engine.grammar import GrammarSpec
from parkway.engine.tokenizer import Tokenizer
from tests.engine.tiny import CONFIGS, write_directory
from tests.engine.walk import Walker

NAMES = ["a", "b", "~/%", "x-t", "$defs", "enum", "0", "größe", "\ud800", ""]
TYPES = ["null", "boolean", "integer", "number", "string", "array", "object"]
REFERENCES = [
    "#", "#/", "#/$defs/a", "#/$defs/b", "#/$defs/0", "#/x-t", "#/x-t/a", "#/x-t/0", "#/properties", "#/properties/a",
    "#/properties/a/items", "#/enum/0", "#/const", "#/required/0", "#/allOf/0", "#/anyOf/-1", "#/anyOf/1", "#/type",
    "#/default", "#/title", "#a", "#b", "a", "a#/$defs/b", "http://[", "http://example.com/a", "%", "#%", "#/%ff", "##",
    "#/$defs/~", "#/$defs/~0~1%25", "#/x-t/²", "#/x-t/1_0",
]  # fmt: skip
PATTERNS = ["^a", "b$", "[0-9]{2,3}", "(", "(?=a)", r"\p{L}", "", "^(a|b)*$", ".", "{99999999999999999999}", "\ud800"]
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
FORMATS = ["date", "int32", "double", "email", "regex", "", "uuid"]

ints = st.sampled_from([0, 1, 2, 3, 7, -1, 2**31, 2**63, 10**40])
numbers = ints | st.sampled_from([0.5, 0.01, 1.5, -2.5, 1e300, 1e-300, 12.345678901234567])
strings = st.sampled_from([*NAMES, *TYPES, *REFERENCES, *PATTERNS, *FORMATS])
scalars = st.none() | st.booleans() | numbers | strings
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3), max_leaves=6
)
names = st.sampled_from(NAMES)
counts = st.sampled_from([0, 1, 2, 3, 5])


def keywords(inner: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    """What each keyword may be; most of it is right."""
    many = st.lists(inner, min_size=1, max_size=3)
    named = st.dictionaries(names, inner, max_size=3)
    return {
        "type": st.sampled_from(TYPES) | st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True),
        "enum": st.lists(values, max_size=4),
        "const": values,
        **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), many),
        **dict.fromkeys(("properties", "$defs", "definitions", "dependentSchemas"), named),
        "patternProperties": st.dictionaries(st.sampled_from(PATTERNS), inner, max_size=2),
        **dict.fromkeys(
            ("items", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else",
             "unevaluatedProperties", "unevaluatedItems"), inner),
        "required": st.lists(names, max_size=3, unique=True),
        "dependentRequired": st.dictionaries(names, st.lists(names, max_size=2, unique=True), max_size=2),
        "dependencies": st.dictionaries(names, st.lists(names, max_size=2, unique=True) | inner, max_size=2),
        **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
                         "minContains", "maxContains"), counts),
        **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), numbers),
        "pattern": st.sampled_from(PATTERNS),
        "format": st.sampled_from(FORMATS),
        "uniqueItems": st.booleans(),
        **dict.fromkeys(("$ref", "$dynamicRef", "$recursiveRef"), st.sampled_from(REFERENCES)),
        "$id": st.sampled_from(REFERENCES),
        **dict.fromkeys(("$anchor", "$dynamicAnchor"), st.sampled_from(["a", "b"])),
        "$schema": st.sampled_from([
            "https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#", "urn:x", "http://["
        ]),
        "x-t": values | inner,
        "default": values,
        "nullable": st.booleans(),
    }  # fmt: skip


@st.composite
def objects(draw: Callable[..., Any], inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    """Some keywords with values that suit them, and now and then one that does not."""
    known = keywords(inner)
    chosen = draw(st.lists(st.sampled_from(sorted(known)), max_size=4, unique=True))
    made = {key: draw(known[key]) for key in chosen}
    if draw(st.integers(0, 19)) == 0:
        made[draw(st.sampled_from(sorted(known)))] = draw(values)
    return made


schemas = st.recursive(st.booleans() | objects(st.booleans()), objects, max_leaves=8)


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Walker:
    path = tmp_path_factory.mktemp("grammar") / "model"
    return Walker(Tokenizer(ModelDirectory(write_directory(path, CONFIGS["qwen2-grouped-tied"], eos="<|end|>"))), 320)


def check(walker: Walker, schema: Any, seeds: int) -> bool:
    """Whether `schema` is enforced; it is refused by one of two errors, or every answer is valid."""
    try:
        grammar = walker.compiler.compile(GrammarSpec.json_schema(schema))
    except (InvalidRequest, UnsupportedField):
        return False
    for text in ("null", "[1, {}]", '{"a": 1}', '"a"'):
        grammar.check(text)
    validator = Draft202012Validator(schema)
    for seed in range(seeds):
        walk = walker.walk(grammar, seed, limit=400)
        if not walk.finished:
            continue
        assert grammar.check(walk.text) is None, walk.text
        if not isinstance(schema, dict) or schema.get("$schema", "2020-12").find("2020-12") >= 0:
            found = [error for error in validator.iter_errors(json.loads(walk.text)) if error.validator != "multipleOf"]
            assert not found, walk.text
    return True


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=schemas)
def test_any_schema_is_refused_or_enforced(walker: Walker, schema: Any):
    event(f"enforced: {check(walker, schema, 2)}")


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=values)
def test_any_json_is_refused_or_enforced(walker: Walker, schema: Any):
    check(walker, schema, 1)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"$ref": "#/x-t", "x-t": 5}, "#/$ref: \"#/x-t\" leads to int where a schema is expected"),
        ({"$ref": "#/x-t", "x-t": {"type": 5}}, "#/x-t/type: not a JSON Schema"),
        ({"$ref": "#/x-t", "x-t": {"properties": {"a": {"minLength": "3"}}}}, "#/x-t/properties/a/minLength"),
        ({"$ref": "#/x-t", "x-t": {"anyOf": {}}}, "#/x-t/anyOf"),
        ({"$ref": "#/x-t/0", "x-t": [None]}, "leads to NoneType"),
        ({"$ref": "#/anyOf/-1", "anyOf": [{}, {}]}, "points to nothing"),
        ({"$schema": DRAFT_7, "$defs": None, "$ref": "#/$defs/a"}, "points to nothing"),
        ({"$schema": DRAFT_7, "$defs": {"a": {"type": 5}}, "$ref": "#/$defs/a"}, "#/$defs/a/type"),
        ({"$schema": DRAFT_7, "dependentSchemas": 5}, "#/dependentSchemas"),
        ({"$ref": "http://["}, "is not a URI"),
        ({"items": {"$id": "http://["}}, "#/items/$id"),
        ({"$defs": {"a": {"$id": "x:a"}, "b": {"$id": "x:a"}}}, "two schemas are called"),
    ],
)  # fmt: skip
def test_what_lies_in_odd_places_is_checked(walker: Walker, schema: Any, reason: str):
    with pytest.raises(InvalidRequest) as raised:
        walker.compiler.compile(GrammarSpec.json_schema(schema))
    assert reason in str(raised.value)
