"""Cedar policies as text: read, held against the schema, and explained with file, line and policy.

The language: https://docs.cedarpolicy.com. Its evaluator is Cedar's own, by way of cedarpy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import cedarpy

from parkway.core.errors import ConfigurationError

BUILT_IN = "the built-in permissions"
MAX_BYTES = 1 << 20

# What may hold a semicolon that ends no policy comes first: comments and strings.
_PIECE = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|;|[^\s"/;]+|/|"')
_ID = re.compile(r'@id\s*\(\s*"((?:\\.|[^"\\])*)"\s*\)')
_NUMBERED = re.compile(r"`?\bpolicy(\d+)\b`?")
_FOR_POLICY = re.compile(r"^for policy `policy\d+`, ")


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy as it stands in its file: the line where it begins, from 1, and the name that `@id` gives it."""

    text: str
    line: int
    name: str | None


@dataclass(frozen=True, slots=True)
class Policies:
    """A valid set of policies.

    Attributes:
        source: The file, or `BUILT_IN`.
        telling: The fields of a `Caller` that can make a difference, beside its kind and its scopes.
    """

    source: str
    text: str
    statements: tuple[Statement, ...]
    parsed: cedarpy.PolicySet
    telling: tuple[str, ...]

    @property
    def place(self) -> str:
        """Where an administrator looks, without the folder: a client may read it."""
        return self.source if self.source == BUILT_IN else f"permissions.file ({Path(self.source).name})"

    def title(self, policy_id: str) -> str:
        """How people find the policy that Cedar calls `policy0`, `policy1`, and so on."""
        number = _NUMBERED.fullmatch(policy_id)
        if number is None or int(number[1]) >= len(self.statements):
            return policy_id
        return _title(int(number[1]), self.statements[int(number[1])])


def built_in() -> Policies:
    """The policies that come with the package."""
    return parse(_packaged("permissions.cedar"), BUILT_IN)


def load(path: Path) -> Policies:
    """Reads a file of policies.

    Raises:
        ConfigurationError: It cannot be read, or a policy is wrong; the message names file, line and policy.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}; it is named by permissions.file") from error
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{path}: over {MAX_BYTES} bytes; permissions.file has to be smaller")
    return parse(text, str(path))


def parse(text: str, source: str) -> Policies:
    """Like `load`, from a string; `source` stands in the messages for the file."""
    statements = tuple(_statements(text))
    try:
        parsed = cedarpy.PolicySet.from_str(text)
    except ValueError as error:
        raise ConfigurationError(_misread(statements, source, str(error))) from error
    checked = cedarpy.validate_policies(text, _schema())
    if not checked.validation_passed:
        faults = dict.fromkeys(_fault(fault, statements, source) for fault in checked.errors)
        raise ConfigurationError("\n".join(faults))
    return Policies(source, text, statements, parsed, _telling(json.loads(cedarpy.policies_to_json_str(text))))


def _telling(policies: Any) -> tuple[str, ...]:
    """Which fields of a caller policies can see: those that they name, and who it is where they name anybody."""
    words = set(_words(policies))
    signs = {"key_id": {"Key", "User"}, "name": {"name"}, "user": {"user"}, "team": {"team", "Team"}, "tier": {"tier"}}
    return tuple(field for field, seen in signs.items() if words & seen)


def _words(node: Any) -> Iterator[str]:
    """The attributes, and the types of the entities, that stand in policies as Cedar writes them in JSON."""
    if isinstance(node, dict):
        yield from (node[place] for place in ("type", "attr") if isinstance(node.get(place), str))
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _words(part)


@cache
def _schema() -> cedarpy.Schema:
    return cedarpy.Schema.from_str(_packaged("permissions.cedarschema"))


def _packaged(name: str) -> str:
    return resources.files("parkway.policy").joinpath(name).read_text(encoding="utf-8")


def _statements(text: str) -> Iterator[Statement]:
    """The policies one after the other, in the order in which Cedar numbers them; also what follows the last one."""
    begin: int | None = None
    for piece in _PIECE.finditer(text):
        if piece[0].startswith("//"):
            continue
        if begin is None:
            begin = piece.start()
        if piece[0] == ";":
            yield _statement(text, begin, piece.end())
            begin = None
    if begin is not None:
        yield _statement(text, begin, len(text))


def _statement(text: str, begin: int, end: int) -> Statement:
    name = _ID.search(text, begin, end)
    return Statement(text[begin:end], text.count("\n", 0, begin) + 1, name[1] if name else None)


def _title(number: int, statement: Statement) -> str:
    return f'policy "{statement.name}"' if statement.name else f"policy {number + 1} (line {statement.line})"


def _misread(statements: tuple[Statement, ...], source: str, reason: str) -> str:
    """Cedar does not say where it stopped: the first policy that cannot be read by itself is the one."""
    for number, statement in enumerate(statements):
        try:
            cedarpy.PolicySet.from_str(statement.text)
        except ValueError as error:
            return f"{source}:{statement.line}: {_title(number, statement)}: {error}"
    return f"{source}: {reason}"


def _fault(fault: cedarpy.ValidationError, statements: tuple[Statement, ...], source: str) -> str:
    number = _NUMBERED.fullmatch(fault.policy_id)
    reason = _FOR_POLICY.sub("", fault.error)
    if number is None or int(number[1]) >= len(statements):
        return f"{source}: {reason}"
    statement = statements[int(number[1])]
    return f"{source}:{statement.line}: {_title(int(number[1]), statement)}: {reason}"
