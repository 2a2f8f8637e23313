"""References of a JSON Schema, made plain: every one to the root, or to a definition of the root.

What `$id`, `$anchor` and pointers into any place of a document name is found once, here; whoever reads a linked schema
meets `{"$ref": "#"}` and `{"$ref": "#/$defs/name"}` only.
"""

import re
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from jsonschema import Draft7Validator, Draft201909Validator, FormatChecker
from jsonschema.exceptions import SchemaError

from parkway.core.errors import InvalidRequest, UnsupportedField

IN_MAPS = ("properties", "patternProperties", "dependentSchemas", "dependencies")
IN_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
INSIDE = (
    "items", "additionalItems", "additionalProperties", "contains", "propertyNames", "not", "if", "then", "else",
    "unevaluatedProperties", "unevaluatedItems",
)  # fmt: skip
_STORES = ("$defs", "definitions")
_NAMES = frozenset({"$id", "$anchor", "$dynamicAnchor", *_STORES})

# What a draft does not know, and its meta-schema has not looked at.
_FOREIGN = {
    Draft7Validator: frozenset({
        "$defs", "dependentSchemas", "prefixItems", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef",
    }),
    Draft201909Validator: frozenset({"prefixItems", "$dynamicRef"}),
}  # fmt: skip
_FOREIGN_TO_LATEST = frozenset({"additionalItems"})

_INDEX = re.compile(r"0|[1-9][0-9]*")


@dataclass(frozen=True, slots=True)
class Linked:
    """A schema of which only what is reached is left.

    Fields:
        schema: its references are to "#" and "#/$defs/...", and nothing in it has another name.
        places: where in the document that was given each of its definitions is, by reference.
    """

    schema: dict[str, Any]
    places: dict[str, str]


def link(document: dict[str, Any], dialect: Any) -> Linked:
    """`document` with plain references; it is left as it is.

    Args:
        document: valid by the meta-schema of `dialect`, jsonschema's validator class.

    Raises:
        UnsupportedField: a reference leads out of the document, or depends on where it is used.
        InvalidRequest: it leads to nothing, or to what is no schema.
    """
    return _Linker(document, dialect).link()


def subschemas(node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas that a schema applies, with their places; definitions are not among them."""
    for key in IN_MAPS:
        inside = node.get(key)
        for name, child in inside.items() if isinstance(inside, dict) else ():
            if not isinstance(child, list):  # of "dependencies"
                yield f"{key}/{escaped(name)}", child
    for key in (*IN_LISTS, *INSIDE[1:]):
        if isinstance(node.get(key), list):
            for place, child in enumerate(node[key]):
                yield f"{key}/{place}", child
        elif key in node:
            yield key, node[key]


def escaped(key: str) -> str:
    """`key` as a part of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def pointer_to(path: Any) -> str:
    """The JSON pointer of a path of keys and indices."""
    return "/".join(["#", *(escaped(str(part)) for part in path)])


def check_shape(schema: Any, dialect: Any, place: str = "#") -> None:
    """Raises InvalidRequest where `schema`, which is at `place`, is none by its meta-schema."""
    try:
        dialect.check_schema(schema, format_checker=FormatChecker(formats=()))
    except SchemaError as error:
        where = place + pointer_to(error.absolute_path)[1:]
        raise InvalidRequest(f"{where}: not a JSON Schema: {error.message[:300]}") from error
    except RecursionError as error:
        raise InvalidRequest("the schema is nested too deeply") from error


class _Linker:
    def __init__(self, document: dict[str, Any], dialect: Any) -> None:
        self._document = document
        self._dialect = dialect
        self._foreign = _FOREIGN.get(dialect, _FOREIGN_TO_LATEST)
        self._resources: dict[str, Any] = {}
        self._anchors: dict[tuple[str, str], Any] = {}
        self._dynamic: dict[tuple[str, str], Any] = {}
        self._bases: dict[int, str] = {}
        self._references: dict[int, str] = {id(document): "#"}
        self._waiting: deque[tuple[str, Any, str]] = deque()
        self._places: dict[str, str] = {}
        self._used = Counter[str]()
        self._resources[""] = document
        self._survey(document, "", "#")

    def link(self) -> Linked:
        schema = self._copied(self._document, "", "#")
        definitions: dict[str, Any] = {}
        while self._waiting:
            name, target, base = self._waiting.popleft()
            definitions[name] = self._copied(target, base, self._places[f"#/$defs/{name}"])
        return Linked({**schema, "$defs": definitions} if definitions else schema, self._places)

    def _survey(self, node: Any, base: str, place: str) -> None:
        """Remembers what `node` and the schemas inside it are called."""
        if not isinstance(node, dict) or id(node) in self._bases:
            return
        name = node.get("$id")
        if isinstance(name, str) and ("$ref" not in node or self._dialect is not Draft7Validator):
            base = self._named(node, name, base, place)
        self._bases[id(node)] = base
        for key, anchors in (("$anchor", self._anchors), ("$dynamicAnchor", self._dynamic)):
            if isinstance(node.get(key), str):
                anchors[base, node[key]] = node
        for step, child in subschemas(node):
            if step.split("/")[0] not in self._foreign:
                self._survey(child, base, f"{place}/{step}")
        for key in _STORES:
            if key in self._foreign:
                continue
            for key_inside, child in node.get(key, {}).items():
                self._survey(child, base, f"{place}/{key}/{escaped(key_inside)}")

    def _named(self, node: dict[str, Any], name: str, base: str, place: str) -> str:
        uri, _, anchor = name.partition("#")
        if uri:
            base = _joined(base, uri, f"{place}/$id")
            if self._resources.setdefault(base, node) is not node:
                raise InvalidRequest(f'{place}/$id: two schemas are called "{base[:200]}"')
        if anchor:  # so were anchors written until draft 7
            self._anchors[base, anchor] = node
        return base

    def _copied(self, node: Any, base: str, place: str) -> Any:
        if not isinstance(node, dict):
            return node
        base = self._bases.get(id(node), base)
        copied: dict[str, Any] = {}
        for key, value in node.items():
            where = f"{place}/{escaped(key)}"
            if key in _NAMES:
                continue
            if key == "$schema" and node is not self._document:
                raise UnsupportedField(f"{where}: only the root may name a dialect")
            if key in self._foreign:
                copied[key] = value
            elif key in IN_MAPS:
                copied[key] = {
                    name: self._copied(child, base, f"{where}/{escaped(name)}") for name, child in value.items()
                }
            elif key in IN_LISTS and isinstance(value, list):
                copied[key] = [self._copied(child, base, f"{where}/{index}") for index, child in enumerate(value)]
            elif key in INSIDE:
                copied[key] = self._copied(value, base, where)
            elif key not in ("$ref", "$dynamicRef"):
                copied[key] = value
            else:
                self._add(copied, self._target(key, value, base, where))
        return copied

    @staticmethod
    def _add(node: dict[str, Any], reference: str) -> None:
        if "$ref" in node:
            node["allOf"] = [*node.get("allOf", []), {"$ref": reference}]
        else:
            node["$ref"] = reference

    def _target(self, key: str, reference: str, base: str, place: str) -> str:
        """What a reference is called in the linked schema; its target waits to be copied, or was."""
        target, base, found = self._find(reference, base, place)
        if key == "$dynamicRef":
            self._check_static(reference, base, target, place)
        if id(target) in self._references and isinstance(target, dict):
            return self._references[id(target)]
        if isinstance(target, dict) and id(target) not in self._bases:
            check_shape(target, self._dialect, found)
            self._survey(target, base, found)
        elif not isinstance(target, dict | bool):
            raise InvalidRequest(
                f'{place}: "{reference[:200]}" leads to {type(target).__name__} where a schema is expected'
            )
        name = self._name(reference)
        self._references[id(target)] = f"#/$defs/{name}"
        self._places[f"#/$defs/{name}"] = found
        self._waiting.append((name, target, base))
        return f"#/$defs/{name}"

    def _find(self, reference: str, base: str, place: str) -> tuple[Any, str, str]:
        """Target, its base, and its place in the document as far as it is known."""
        uri, _, fragment = reference.partition("#")
        base = _joined(base, uri, place) if uri else base
        if base not in self._resources:
            raise UnsupportedField(
                f'{place}: "{reference[:200]}" is another document, which is not supported; refer inside the schema, '
                'by "#/..."'
            )
        fragment = unquote(fragment)
        if not fragment:
            return self._resources[base], base, reference
        if fragment.startswith("/"):
            return (*self._walk(self._resources[base], base, fragment, f'{place}: "{reference[:200]}"'), reference)
        for anchors in (self._anchors, self._dynamic):
            if (base, fragment) in anchors:
                return anchors[base, fragment], base, reference
        raise InvalidRequest(f'{place}: "{reference[:200]}" points to nothing')

    def _walk(self, node: Any, base: str, fragment: str, what: str) -> tuple[Any, str]:
        for part in fragment[1:].split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and key in node:
                node = node[key]
            elif isinstance(node, list) and _INDEX.fullmatch(key) and len(key) < 9 and int(key) < len(node):
                node = node[int(key)]
            else:
                raise InvalidRequest(f"{what} points to nothing")
            base = self._bases.get(id(node), base)
        return node, base

    def _check_static(self, reference: str, base: str, target: Any, place: str) -> None:
        """A dynamic reference is a plain one where nothing else has the name of its anchor."""
        fragment = unquote(reference.partition("#")[2])
        if self._dynamic.get((base, fragment)) is not target:
            return
        if Counter(name for _, name in self._dynamic)[fragment] > 1:
            raise UnsupportedField(
                f'{place}: several schemas have the "$dynamicAnchor" "{fragment[:50]}", so what it refers to depends '
                'on the way to it; use "$ref"'
            )

    def _name(self, reference: str) -> str:
        """The last part of a reference, with a number where that is taken."""
        last = re.sub(r"[^A-Za-z0-9_.-]+", "_", unquote(reference).rsplit("/", 1)[-1])[:60] or "schema"
        self._used[last] += 1
        return last if self._used[last] == 1 else f"{last}+{self._used[last]}"


def _joined(base: str, uri: str, place: str) -> str:
    try:
        return urlsplit(urljoin(base, uri)).geturl()
    except ValueError as error:
        raise InvalidRequest(f'{place}: "{uri[:200]}" is not a URI: {error}') from error
