"""Keywords that grammars do not have, said by those that they have.

`positive` writes a schema anew, `negative` writes what does not satisfy it (De Morgan). Both may allow less than they
stand for, where that keeps them small; neither allows more.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, permutations
from typing import Any

from parkway.core.errors import InvalidRequest, UnsupportedField
from parkway.engine.cases import choice, gather
from parkway.engine.exclusion import Exclusion
from parkway.engine.json_check import found_in
from parkway.engine.negation import KINDS, distinct, none_of, other_types
from parkway.engine.references import INSIDE, escaped

# Schemas written for one document, alternatives of one array, and how far into an array "contains" looks.
_MAX_WRITTEN = 30_000
_MAX_ARRAYS = 400
_MAX_PLACES = 64
_WINDOW = 8
_MAX_CROSSED = 6

_NOT_ARRAYS = {"type": [kind for kind in KINDS if kind != "array"]}
_NO_NEGATION = frozenset({
    "multipleOf", "pattern", "format", "patternProperties", "additionalProperties", "items", "additionalItems",
    "contains", "uniqueItems", "propertyNames", "unevaluatedProperties", "unevaluatedItems", "dependencies", "oneOf",
})  # fmt: skip
_GONE = frozenset({
    "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies", "oneOf", "propertyNames",
    "contains", "minContains", "maxContains", "uniqueItems", "unevaluatedProperties", "unevaluatedItems",
})  # fmt: skip
_CHOICES = ("anyOf", "oneOf", "if", "dependentSchemas", "dependencies")
_OPPOSITE = {
    "minLength": ("string", "maxLength", -1), "maxLength": ("string", "minLength", 1),
    "minItems": ("array", "maxItems", -1), "maxItems": ("array", "minItems", 1),
    "minProperties": ("object", "maxProperties", -1), "maxProperties": ("object", "minProperties", 1),
    "minimum": ("number", "exclusiveMaximum", 0), "maximum": ("number", "exclusiveMinimum", 0),
    "exclusiveMinimum": ("number", "maximum", 0), "exclusiveMaximum": ("number", "minimum", 0),
}  # fmt: skip

Schema = Any
"""An object, true or false."""


def rewrite(schema: dict[str, Any], resolve: Callable[[str], Schema], *, older: bool) -> dict[str, Any]:
    """`schema`, which is linked and whose keywords are known, by the keywords of grammars alone.

    Args:
        resolve: finds what a reference in it refers to.
        older: it is of a draft before 2020-12.

    Raises:
        UnsupportedField: something cannot be said by them.
    """
    return _Rewriter(schema, resolve, older=older).rewrite()


class _Rewriter:
    def __init__(self, schema: dict[str, Any], resolve: Callable[[str], Schema], *, older: bool) -> None:
        self._schema = schema
        self._resolve = resolve
        self._older = older
        self._exclusion = Exclusion(resolve)
        self._written = 0
        self._negated: dict[str, str] = {}

    def rewrite(self) -> dict[str, Any]:
        root = self.positive({key: value for key, value in self._schema.items() if key != "$defs"}, "#")
        root = {"$schema": self._schema["$schema"], **root} if "$schema" in self._schema else root
        given = self._schema.get("$defs", {})
        definitions = {name: self.positive(child, f"#/$defs/{name}") for name, child in given.items()}
        done = 0
        while done < len(self._negated):
            reference, name = list(self._negated.items())[done]
            definitions[name] = self.negative(self._resolve(reference), reference)
            done += 1
        return {**root, "$defs": definitions} if definitions else root

    def positive(self, node: Schema, place: str) -> Schema:
        if not isinstance(node, dict):
            return node
        self._count(place)
        node, groups = gather(node)
        written = {key: self._inside(key, value, place) for key, value in node.items() if key not in _GONE}
        also: list[Schema] = [self.positive(choice(cases), f"{place}/allOf") for cases in groups]
        for key in node:
            where = f"{place}/{key}"
            if key == "oneOf":
                also += self._one_of(node[key], where)
            elif key == "not":
                also.append(self.negative(node[key], where))
            elif key == "if":
                also.append(self._if(node, place, negated=False))
            elif key in ("dependentRequired", "dependentSchemas", "dependencies"):
                also += [self._depends(node, name, needs, where) for name, needs in node[key].items()]
            elif key == "propertyNames":
                self._property_names(node, written, where)
            elif key == "contains":
                also += self._contains(node, where)
            elif key == "uniqueItems" and node[key]:
                also += self._unique(node, where)
            elif key in ("unevaluatedProperties", "unevaluatedItems"):
                also += self._unevaluated(node, key, where)
        if also:
            written["allOf"] = [*written.get("allOf", []), *also]
        return written

    def negative(self, node: Schema, place: str) -> Schema:
        """What does not satisfy `node`."""
        if not isinstance(node, dict):
            return not node
        self._count(place)
        if self._older and "$ref" in node and len(node) > 1:
            raise UnsupportedField(f'{place}: "$ref" beside other keywords cannot be negated in this draft')
        parts = [part for key in node for part in self._negated_keyword(node, key, f"{place}/{key}")]
        parts = [part for part in parts if part is not False]
        if any(part is True or part == {} for part in parts):
            return True
        return {"anyOf": parts} if len(parts) > 1 else (parts or [False])[0]

    def _negated_keyword(self, node: dict[str, Any], key: str, place: str) -> list[Schema]:
        value = node[key]
        if key in _OPPOSITE:
            kind, opposite, step = _OPPOSITE[key]
            return [] if value + step < 0 and step else [{"type": kind, opposite: value + step}]
        match key:
            case "type":
                others = other_types(value, place)
                return [{"type": others}] if others else []
            case "const" | "enum":
                return list(none_of([value] if key == "const" else value, place))
            case "required":
                return [{"type": "object", "properties": {name: False}} for name in value]
            case "properties":
                return [self._has(name, self.negative(child, place)) for name, child in value.items()]
            case "prefixItems":
                return [_at(index, self.negative(child, place)) for index, child in enumerate(value)]
            case "allOf":
                return [self.negative(child, place) for child in value]
            case "anyOf":
                return [{"allOf": [self.negative(child, place) for child in value]}]
            case "oneOf" if self._exclusion.exclusive(value):
                return [{"allOf": [self.negative(child, place) for child in value]}]
            case "not":
                return [self.positive(value, place)]
            case "if":
                return [self._if(node, place, negated=True)]
            case "$ref":
                return [{"$ref": f"#/$defs/{self._negated.setdefault(value, f'not+{len(self._negated) + 1}')}"}]
            case "dependentRequired":
                return [self._has(name, True, {other: False}) for name, others in value.items() for other in others]
            case "dependentSchemas":
                return [
                    {"allOf": [self._has(name, True), self.negative(child, place)]} for name, child in value.items()
                ]
        if key in _NO_NEGATION and value is not True and value != {}:
            raise UnsupportedField(f'{place}: that a value does not satisfy "{key}" cannot be enforced; say what it is')
        return []

    def _inside(self, key: str, value: Any, place: str) -> Any:
        where = f"{place}/{key}"
        if key in ("properties", "patternProperties"):
            return {name: self.positive(child, f"{where}/{escaped(name)}") for name, child in value.items()}
        if key in ("allOf", "anyOf", "prefixItems") or (key == "items" and isinstance(value, list)):
            return [self.positive(child, f"{where}/{index}") for index, child in enumerate(value)]
        return self.positive(value, where) if key in INSIDE else value

    def _one_of(self, options: list[Schema], place: str) -> list[Schema]:
        """`anyOf` where no value satisfies two, or each without all others."""
        each = [self.positive(option, f"{place}/{index}") for index, option in enumerate(options)]
        if self._exclusion.exclusive(options):
            return [{"anyOf": each}]
        reason = ""
        if len(options) <= _MAX_CROSSED:
            try:
                others = [self.negative(option, f"{place}/{index}") for index, option in enumerate(options)]
            except UnsupportedField as error:
                reason = f" ({error})"
            else:
                return [{"anyOf": [
                    {"allOf": [one, *(other for at, other in enumerate(others) if at != place_of)]}
                    for place_of, one in enumerate(each)
                ]}]  # fmt: skip
        raise UnsupportedField(
            f"{place}: it is not evident that no value satisfies two of these schemas; "
            f'use "anyOf", or require in each a property that is another "const"{reason}'
        )

    def _if(self, node: dict[str, Any], place: str, *, negated: bool) -> Schema:
        write = self.negative if negated else self.positive
        if "then" not in node and "else" not in node:
            return not negated
        so, otherwise = write(node.get("then", True), f"{place}/then"), write(node.get("else", True), f"{place}/else")
        condition = node["if"]
        return {"anyOf": [
            {"allOf": [self.positive(condition, f"{place}/if"), so]},
            {"allOf": [self.negative(condition, f"{place}/if"), otherwise]},
        ]}  # fmt: skip

    def _depends(self, node: dict[str, Any], name: str, needs: Any, place: str) -> Schema:
        wanted = {"required": needs} if isinstance(needs, list) else self.positive(needs, place)
        if node.get("type") == "object" and name in node.get("required", []):
            return wanted
        return {"anyOf": [{"properties": {name: False}}, wanted]}

    def _has(self, name: str, schema: Schema, more: dict[str, Any] | None = None) -> Schema:
        if schema is False:
            return False
        return {"type": "object", "required": [name], "properties": {name: schema, **(more or {})}}

    # Names of properties.

    def _property_names(self, node: dict[str, Any], written: dict[str, Any], place: str) -> None:
        facets = list(self._facets(node["propertyNames"]))
        if any("string" not in facet.get("type", "string") for facet in facets):
            written["maxProperties"] = 0
            return
        known = {"type", "enum", "const", "pattern", "minLength", "maxLength"}
        other = next((key for facet in facets for key in facet if key not in known), None)
        if other is not None:
            raise UnsupportedField(f'{place}: "{other}" of names cannot be enforced; use "enum" or "pattern"')
        patterns = [pattern for facet in facets for pattern in _patterns(facet)]
        sets = [
            [facet["const"]] if "const" in facet else facet["enum"]
            for facet in facets
            if {"const", "enum"} & set(facet)
        ]
        if sets:
            names = [name for name in sets[0] if isinstance(name, str) and all(name in names for names in sets)]
            self._name_all([name for name in names if all(found_in(pattern, name) for pattern in patterns)], written)
        elif patterns:
            self._name_by(patterns, written, place)

    def _name_all(self, names: list[str], written: dict[str, Any]) -> None:
        properties, patterns = written.get("properties", {}), written.pop("patternProperties", {})
        additional = written.get("additionalProperties", True)
        ordered = dict.fromkeys([*(name for name in properties if name in names), *names])
        made = {}
        for name in ordered:
            own = [properties[name]] if name in properties else []
            own += [child for pattern, child in patterns.items() if found_in(pattern, name)]
            made[name] = {"allOf": own} if len(own) > 1 else own[0] if own else additional
        written |= {"properties": made, "additionalProperties": False}

    def _name_by(self, patterns: list[str], written: dict[str, Any], place: str) -> None:
        properties = {
            name: child for name, child in written.get("properties", {}).items()
            if all(found_in(pattern, name) for pattern in patterns)
        }  # fmt: skip
        additional = written.get("additionalProperties", True)
        if len(patterns) > 1 or "patternProperties" in written or (properties and additional not in (True, {}, False)):
            raise UnsupportedField(
                f'{place}: several expressions for a name, or "patternProperties" or "additionalProperties" beside '
                'one, cannot be enforced; use "patternProperties" with "additionalProperties": false alone'
            )
        if "properties" in written:
            written["properties"] = properties
        if additional is not False:
            written["patternProperties"] = {patterns[0]: additional}
        written["additionalProperties"] = False

    def _facets(self, node: Schema) -> Iterator[dict[str, Any]]:
        """A schema as schemas without references and composition."""
        if node is False:
            yield {"type": "null"}
        if not isinstance(node, dict):
            return
        seen, waiting = set[int](), [node]
        while waiting:
            each = waiting.pop()
            if not isinstance(each, dict) or id(each) in seen:
                continue
            seen.add(id(each))
            yield {key: value for key, value in each.items() if key not in ("allOf", "$ref")}
            waiting += each.get("allOf", [])
            waiting += [self._resolve(each["$ref"])] if "$ref" in each else []

    # Arrays.

    def _contains(self, node: dict[str, Any], place: str) -> list[Schema]:
        least, most = node.get("minContains", 1), node.get("maxContains")
        if least == 0 and most is None:
            return []
        schema = self.positive(node["contains"], place)
        outside = True if most is None else self.negative(node["contains"], place)
        least, most = int(least), int(least if most is None else most)
        window = int(min(_WINDOW, node.get("maxItems", _WINDOW)))
        options: list[Schema] = []
        for count in range(least, most + 1):
            for chosen in combinations(range(window), count):
                length = chosen[-1] + 1 if chosen else 0
                prefix = [schema if index in chosen else outside for index in range(length)]
                option = {"type": "array", "items": outside, "minItems": length}
                options.append({**option, "prefixItems": prefix} if prefix else option)
                if len(options) > _MAX_PLACES:
                    raise UnsupportedField(
                        f'{place}: so many places of an array cannot be told apart; use a smaller "maxItems", or '
                        'fewer of "minContains" and "maxContains"'
                    )
        return [{"anyOf": [*options, _NOT_ARRAYS]}]

    def _unique(self, node: dict[str, Any], place: str) -> list[Schema]:
        most = node.get("maxItems", math.inf)
        if most <= 1:
            return []
        values = None if "prefixItems" in node or isinstance(node.get("items"), list) else self._values(node)
        if values is not None:
            lengths = range(int(min(node.get("minItems", 0), len(values))), int(min(most, len(values))) + 1)
            if sum(math.perm(len(values), length) for length in lengths) <= _MAX_ARRAYS:
                arrays = [_exactly(chosen) for length in lengths for chosen in permutations(values, length)]
                return [{"anyOf": [*arrays, _NOT_ARRAYS]}]
        raise UnsupportedField(
            f'{place}: "uniqueItems" cannot be enforced while an answer is made, but for items of an "enum" with few '
            'values (five, or more with a small "maxItems"); remove it'
        )

    def _values(self, node: dict[str, Any]) -> list[Any] | None:
        """Every value that an item may have; None where there are too many to say."""
        for facet in self._facets(node.get("items", True)):
            if "const" in facet or "enum" in facet:
                return distinct([facet["const"]] if "const" in facet else facet["enum"])
            types = facet.get("type", "string")
            types = [types] if isinstance(types, str) else types
            if set(types) <= {"boolean", "null"}:
                return [*([True, False] if "boolean" in types else []), *([None] if "null" in types else [])]
        return None

    # What no other keyword has looked at.

    def _unevaluated(self, node: dict[str, Any], key: str, place: str) -> list[Schema]:
        together: list[dict[str, Any]] = []
        waiting: list[Schema] = [{name: value for name, value in node.items() if name != key}]
        while waiting:
            each = waiting.pop(0)
            if not isinstance(each, dict) or any(each is other for other in together):
                continue
            together.append(each)
            choice = next(
                (name for name in ("anyOf", "oneOf", "if", "dependentSchemas", "dependencies") if name in each), None
            )
            if choice or self._older or (key == "unevaluatedItems" and "contains" in each):
                raise UnsupportedField(
                    f'{place}: "{key}" beside "{choice or "contains"}" cannot be enforced; list what there is in every '
                    f'alternative, with "{"additionalProperties" if key[11] == "P" else "items"}"'
                )
            waiting += each.get("allOf", [])
            waiting += [self._resolve(each["$ref"])] if "$ref" in each else []
        schema = self.positive(node[key], place)
        if key == "unevaluatedItems":
            if any("items" in each or key in each for each in together):
                return []
            prefix = [True] * max(len(each.get("prefixItems", [])) for each in together)
            return [{"prefixItems": prefix, "items": schema} if prefix else {"items": schema}]
        if any("additionalProperties" in each or key in each for each in together):
            return []
        names = {name: True for each in together for name in each.get("properties", {})}
        patterns = {pattern: True for each in together for pattern in each.get("patternProperties", {})}
        return [{"properties": names, "patternProperties": patterns, "additionalProperties": schema}]

    def _count(self, place: str) -> None:
        self._written += 1
        if self._written > _MAX_WRITTEN:
            raise InvalidRequest(f"{place}: the schema becomes too large when its conditions are written out")


def _at(index: int, schema: Schema) -> Schema:
    """Arrays whose item at `index` is by `schema`."""
    return schema and {"type": "array", "prefixItems": [*[True] * index, schema], "minItems": index + 1}


def _exactly(values: Sequence[Any]) -> Schema:
    if not values:
        return {"type": "array", "maxItems": 0}
    constants = [{"const": value} for value in values]
    return {"type": "array", "prefixItems": constants, "items": False, "minItems": len(values), "maxItems": len(values)}


def _patterns(facet: dict[str, Any]) -> list[str]:
    least, most = facet.get("minLength", 0), facet.get("maxLength")
    lengths = [f"^(?s:.){{{int(least)},{'' if most is None else int(most)}}}$"] if least or most is not None else []
    return [*([facet["pattern"]] if "pattern" in facet else []), *lengths]
