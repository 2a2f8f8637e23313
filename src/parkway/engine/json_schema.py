"""JSON Schema as constrained decoding can enforce it: what would be ignored is refused, the rest is made exact.

A grammar engine that skips a keyword lets answers through that are not valid. So every keyword that a schema reaches
is either enforced, or known to be a pure annotation, or refused by name.
"""

import copy
import math
import re
from decimal import Decimal
from typing import Any

from jsonschema import Draft7Validator, Draft201909Validator, Draft202012Validator

from parkway.core.errors import InvalidRequest, UnsupportedField
from parkway.engine.json_check import JsonCheck
from parkway.engine.multiples import check_multiples
from parkway.engine.number_format import BOUNDS, EVERY_NUMBER, INTEGERS, is_implied, kinds_of, narrow, span
from parkway.engine.pattern import portable
from parkway.engine.references import Linked, check_shape, escaped, link, subschemas
from parkway.engine.rewriting import rewrite

# The grammar engine recurses through a schema and through everything that it refers to, on a stack of fixed size.
MAX_NESTING = 64
MAX_DEPTH = 256
MAX_PROPERTIES = 2_000
# Of "patternProperties", in all: the grammar engine compares every two.
MAX_PATTERNS = 100

# A model that hesitates writes spaces; a bound sends it on.
_WHITESPACE = r"[\x20\x0A\x0D\x09]{1,64}"
# Without \u every character has one spelling, so no property can be repeated under another one.
_ESCAPES = 'nrbtf\\"'
_UNWRITABLE = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\ud800-\udfff]")

_DIALECTS = {
    "https://json-schema.org/draft/2020-12/schema": Draft202012Validator,
    "https://json-schema.org/draft/2019-09/schema": Draft201909Validator,
    "http://json-schema.org/draft-07/schema": Draft7Validator,
}
_LATEST = next(iter(_DIALECTS))

_ENFORCED = frozenset({
    "type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref",
    "minLength", "maxLength", "pattern", "format",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minItems", "maxItems", "items",
    "properties", "patternProperties", "additionalProperties", "required", "minProperties", "maxProperties",
    # rewritten by others
    "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "propertyNames", "contains", "minContains",
    "maxContains", "uniqueItems", "unevaluatedProperties", "unevaluatedItems",
})  # fmt: skip
_SINCE_2019 = frozenset({
    "dependentRequired", "dependentSchemas", "minContains", "maxContains", "unevaluatedProperties", "unevaluatedItems",
})  # fmt: skip
_ANNOTATIONS = frozenset({
    "title", "description", "default", "example", "examples", "$comment", "deprecated", "readOnly", "writeOnly",
    "contentEncoding", "contentMediaType", "contentSchema",  # by the specification
    "discriminator",  # OpenAPI: a hint, validation is the same without it
})  # fmt: skip

_WHOLE = (*BOUNDS, "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_KEPT = frozenset({"$schema", "$defs"})

_YEAR = "[1-9][0-9]{3}"
_LEAP_YEAR = "(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)"
_LONG_MONTH = "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
_SHORT_MONTH = "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8])"
_DATE = f"(?:{_YEAR}-(?:{_LONG_MONTH}|{_SHORT_MONTH})|{_LEAP_YEAR}-02-29)"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"

# The engine's own expressions allow 29 February in any year, and leap seconds, which few parsers read.
_FORMATS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    **dict.fromkeys(("duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")),
}
_HINTS = ("password",)
"""Formats that say how a value is shown, and nothing of it."""


class JsonSchema:
    """A schema that can be enforced.

    Fields:
        enforced: the same schema, as the grammar engine is given it.
        check: tells what is wrong with an answer.

    Raises:
        InvalidRequest: it is malformed, too large or cannot be satisfied by the look of it.
        UnsupportedField: it uses what cannot be enforced; the message has its JSON pointer.
    """

    def __init__(self, schema: Any) -> None:
        if isinstance(schema, bool):
            if not schema:
                raise InvalidRequest("the schema false allows no answer")
            schema = {}
        if not isinstance(schema, dict):
            raise InvalidRequest(f"the schema is {type(schema).__name__}; expected an object")
        _check_nesting(schema)
        dialect = _dialect(schema)
        check_shape(schema, dialect)
        linked = link(schema, dialect)
        survey = _Survey(linked, dialect)
        survey.visit(linked.schema, "#", 0)
        check_multiples(survey.reached, lambda reference: resolve(linked.schema, reference))
        self.enforced = _enforceable(linked.schema, survey.reached, older=survey.older)
        self.check = JsonCheck(linked.schema, dialect)


class _Survey:
    """Visits every subschema that the root reaches, refuses what cannot be enforced, and rewrites patterns in place."""

    def __init__(self, linked: Linked, dialect: Any) -> None:
        self._document = linked.schema
        self._places = linked.places
        self.older = dialect is not Draft202012Validator
        self._keywords = (_ENFORCED - _SINCE_2019 if dialect is Draft7Validator else _ENFORCED) | (
            {"additionalItems", "dependencies"} if self.older else {"prefixItems"}
        )
        self._seen: set[int] = set()
        self._patterns = 0
        self.reached: list[tuple[str, dict[str, Any]]] = []

    def visit(self, node: Any, pointer: str, depth: int) -> None:
        if isinstance(node, bool) or id(node) in self._seen:
            return
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"{pointer}: more than {MAX_DEPTH} schemas inside or behind one another")
        self._seen.add(id(node))
        self.reached.append((pointer, node))
        self._check_keywords(node, pointer)
        self._check_format(node, pointer)
        self._check_values(node, pointer)
        self._check_strings(node, pointer)
        for key, child in subschemas(node):
            self.visit(child, f"{pointer}/{key}", depth + 1)
        if "$ref" in node:
            reference = node["$ref"]
            self.visit(resolve(self._document, reference), self._places.get(reference, "#"), depth + 1)

    def _check_keywords(self, node: dict[str, Any], pointer: str) -> None:
        for key in node:
            where = f"{pointer}/{escaped(key)}"
            known = key in self._keywords or key in _ANNOTATIONS or key in _KEPT or key.startswith("x-")
            if known:
                continue
            raise UnsupportedField(
                f'{where}: "{key[:50]}" cannot be enforced while an answer is made; remove it, or say the same by '
                "other keywords"
            )

    def _check_values(self, node: dict[str, Any], pointer: str) -> None:
        """Numbers that a double holds, strings that JSON writes without \\u."""
        for key in BOUNDS:
            if key in node and not is_implied(node, key):
                _check_value(node[key], f"{pointer}/{key}")
                _check_bound(node, key, pointer)
        if node.get("format") in INTEGERS:
            _check_span(node, pointer)
        for key in ("const", "enum", "required", "multipleOf"):
            if key in node:
                _check_value(node[key], f"{pointer}/{key}")
        properties = node.get("properties", {})
        if len(properties) > MAX_PROPERTIES:
            raise InvalidRequest(f"{pointer}/properties: {len(properties)} properties; {MAX_PROPERTIES} are the most")
        _check_value(list(properties), f"{pointer}/properties")

    def _check_format(self, node: dict[str, Any], pointer: str) -> None:
        name = node.get("format", "date")
        if name in _FORMATS or name in _HINTS:
            return
        if name not in INTEGERS and name not in EVERY_NUMBER:
            known = ", ".join([*_FORMATS, *_HINTS, *INTEGERS, *EVERY_NUMBER])
            raise UnsupportedField(f'{pointer}/format: "{str(name)[:50]}" cannot be enforced; known are {known}')
        if "string" in node.get("type", ()):
            raise UnsupportedField(
                f'{pointer}/format: "{name}" is for numbers and cannot be enforced on strings; leave it out, or say by '
                '"pattern" which strings there may be'
            )

    def _check_strings(self, node: dict[str, Any], pointer: str) -> None:
        if "pattern" in node:
            node["pattern"] = _portable(node["pattern"], f"{pointer}/pattern")
        if "patternProperties" in node:
            schemas = node["patternProperties"]
            self._patterns += len(schemas)
            if self._patterns > MAX_PATTERNS:
                raise UnsupportedField(
                    f"{pointer}/patternProperties: the schema has more than {MAX_PATTERNS} patterns of properties; "
                    "name the properties, or use fewer patterns"
                )
            patterns = [_portable(name, f"{pointer}/patternProperties/{escaped(name)}") for name in schemas]
            if len(set(patterns)) < len(patterns):
                raise UnsupportedField(f"{pointer}/patternProperties: two patterns mean the same; write them as one")
            node["patternProperties"] = dict(zip(patterns, schemas.values(), strict=True))


def resolve(schema: dict[str, Any], reference: str) -> Any:
    """What a reference of a linked schema refers to."""
    return schema if reference == "#" else schema["$defs"][reference.removeprefix("#/$defs/")]


def _enforceable(document: dict[str, Any], reached: list[tuple[str, dict[str, Any]]], *, older: bool) -> dict[str, Any]:
    """A copy for the grammar engine: its options, its keywords alone, and formats as exact patterns."""
    document, nodes = copy.deepcopy((document, reached))
    for _, node in nodes:
        narrow(node)
        node.update({key: int(node[key]) for key in _WHOLE if key in node and node[key] == int(node[key])})
        for key in [key for key in node if key in _ANNOTATIONS or key.startswith("x-")]:
            del node[key]
    enforced = rewrite(document, lambda reference: resolve(document, reference), older=older)
    waiting: list[Any] = [enforced, *enforced.get("$defs", {}).values()]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            _move_format(node)
            waiting += [child for _, child in subschemas(node)]
    enforced["x-guidance"] = {"whitespace_pattern": _WHITESPACE, "json_allowed_escapes": _ESCAPES}
    return enforced


def _move_format(node: dict[str, Any]) -> None:
    if node.get("format") in _HINTS:
        del node["format"]
    pattern = _FORMATS.get(node.get("format", ""))
    if pattern is None:
        return
    del node["format"]
    if "pattern" in node:
        node["allOf"] = [*node.get("allOf", []), {"pattern": pattern}]
    else:
        node["pattern"] = pattern


def _dialect(schema: dict[str, Any]) -> Any:
    name = schema.get("$schema", _LATEST)
    dialect = _DIALECTS.get(name.rstrip("#")) if isinstance(name, str) else None
    if dialect is None:
        raise UnsupportedField(f"#/$schema: {str(name)[:100]} is not supported; known are {', '.join(_DIALECTS)}")
    return dialect


def _check_nesting(schema: Any) -> None:
    """Without recursion: whatever comes after may recurse."""
    level, depth = [schema], 0
    while level:
        if depth > MAX_NESTING:
            raise InvalidRequest(f"the schema is nested more than {MAX_NESTING} levels deep")
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        depth += 1


def _check_value(value: Any, pointer: str) -> None:
    if isinstance(value, dict):
        _check_value(list(value), pointer)
        _check_value(list(value.values()), pointer)
    elif isinstance(value, list):
        for item in value:
            _check_value(item, pointer)
    elif isinstance(value, str) and (found := _UNWRITABLE.search(value)):
        raise UnsupportedField(f"{pointer}: the character U+{ord(found.group()):04X} cannot be written in an answer")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if not _is_exact(value):
            raise UnsupportedField(f"{pointer}: {str(value)[:40]} is not exact as a 64-bit float; use a smaller number")
        if abs(value) >= 1 << 63:  # the least of 64 bits would end the process
            raise UnsupportedField(f"{pointer}: {str(value)[:40]} cannot be enforced; use a number below 2**63")
        _check_digits(value, pointer)


def _check_bound(node: dict[str, Any], key: str, pointer: str) -> None:
    """Sees that the grammar engine takes the bound for what it is.

    It has those of whole numbers in 64 bits (beyond, it can end the process), all others as doubles, which it writes
    with as few digits as tell them apart.
    """
    bound = node[key]
    whole = "number" not in node.get("type", "number") or node.get("format") in INTEGERS
    power = 63 if whole and not key.startswith("exclusive") else 53
    if abs(bound) >= 1 << power:
        raise UnsupportedField(f"{pointer}/{key}: {bound} cannot be enforced; use a number below 2**{power}")
    _check_digits(bound, f"{pointer}/{key}")


def _check_digits(number: float, pointer: str) -> None:
    """Digits and power of ten are exact doubles: what the grammar engine reads is rounded once, and rightly."""
    _, digits, exponent = Decimal(str(number)).as_tuple()
    if number != int(number) and (int("".join(map(str, digits))) > 1 << 53 or int(exponent) < -22):
        raise UnsupportedField(f"{pointer}: {number} has too many digits to be enforced exactly; round it")


def _check_span(node: dict[str, Any], pointer: str) -> None:
    """Sees that format and bounds leave something where nothing but a number may come."""
    low, high = span(node)
    if low > high and kinds_of(node) == ["integer"]:
        name = node["format"]
        bounds = ", ".join(f'"{key}": {node[key]}' for key in BOUNDS if key in node)
        least, greatest = INTEGERS[name]
        raise InvalidRequest(f'{pointer}: no "{name}" ({least} to {greatest}) is within its bounds, {bounds}')


def _is_exact(number: float) -> bool:
    try:
        return math.isfinite(number) and float(number) == number
    except OverflowError:  # an integer beyond every float
        return False


def _portable(pattern: str, pointer: str) -> str:
    try:
        return portable(pattern)
    except ValueError as error:
        raise UnsupportedField(f'{pointer}: "{pattern[:200]}": {error}') from error
