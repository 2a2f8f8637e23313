"""Reading configuration: YAML in, frozen pydantic sections out, and errors that name file, line and key.

Every part of Parkway owns the `Section` that configures it; `launch/settings.py` puts them together.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from parkway.core.errors import ConfigurationError, nearest


class Section(BaseModel):
    """A part's configuration: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=False)


S = TypeVar("S", bound=Section)

Location = tuple[str | int, ...]

_ITSELF = "[key]"
"""Behind a key, in pydantic's locations: what is wrong is the key, not its value."""


def load(path: Path, section: type[S]) -> S:
    """Reads `path` as `section`.

    Raises:
        ConfigurationError: The file cannot be read, is not YAML, or a key or value is wrong. The message names the
            file, the line, the key and, for an unknown key, the nearest valid one. All faults are told at once.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error
    return parse(text, section, source=str(path))


def parse(text: str, section: type[S], *, source: str) -> S:
    """Like `load`, from a string; `source` stands in the messages for the file's name."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{source}:{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigurationError(f"{source}: not valid YAML: {error}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigurationError(f"{source}:1: expected keys and values at the top, got {type(values).__name__}")
    repeated = "\n".join(f"{source}:{line}: {key}: given twice" for key, line in _repeated_keys(node, ()))
    if repeated:
        raise ConfigurationError(repeated)
    try:
        return section.model_validate(values)
    except ValidationError as error:
        lines = [_explain(dict(fault), section, node, source) for fault in error.errors(include_url=False)]
        raise ConfigurationError("\n".join(lines)) from error


def place_of(path: Path, location: Location) -> str:
    """`FILE:LINE: KEY`, for faults that only show when values and what they name are looked at together."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):
        node = None  # it was changed since it was read
    return _place_of(node, location, str(path))


def _place_of(node: yaml.Node | None, location: Location, source: str) -> str:
    keys = [str(part) for part in location if part != _ITSELF]
    return f"{source}:{_line_of(node, location)}: {'.'.join(keys) or 'top level'}"


def _explain(fault: dict[str, Any], section: type[Section], node: yaml.Node | None, source: str) -> str:
    """One readable line for one of pydantic's faults."""
    location: Location = fault["loc"]
    where = _place_of(node, location, source)
    if fault["type"] == "extra_forbidden":
        known = _keys_at(section, location[:-1])
        hint = nearest(str(location[-1]), known) or f" Known keys: {', '.join(sorted(known))}."
        return f"{where}: unknown key.{hint}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{where}: missing; it is required"
    return f"{where}: {message}, got {_shown(fault['input'])}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _line_of(node: yaml.Node | None, location: Location) -> int:
    """The line (from 1) of the deepest key of `location` that the document has."""
    line = 1
    current = node
    for part in location:
        if isinstance(current, yaml.MappingNode):
            found = [(key, value) for key, value in current.value if key.value == str(part)]
            if not found:
                break
            key, current = found[0]
            line = key.start_mark.line + 1
        elif isinstance(current, yaml.SequenceNode) and isinstance(part, int) and part < len(current.value):
            current = current.value[part]
            line = current.start_mark.line + 1
        else:
            break
    return line


def _repeated_keys(node: yaml.Node | None, path: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Keys that stand twice in one mapping, which YAML readers silently accept."""
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _repeated_keys(child, path)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            name = str(key.value)
            if name in seen:
                yield ".".join((*path, name)), key.start_mark.line + 1
            seen.add(name)
            yield from _repeated_keys(child, (*path, name))


def _keys_at(section: type[Section], location: Location) -> list[str]:
    """The keys that the section at `location` knows."""
    current: type[Section] | None = section
    pending: Any = None
    for part in location:
        if current is not None and part in current.model_fields:
            pending = current.model_fields[str(part)].annotation
        current = _section_in(pending)
    return [field.alias or name for name, field in current.model_fields.items()] if current is not None else []


def _section_in(annotation: Any) -> type[Section] | None:
    """The first section class inside an annotation such as `dict[str, ModelConfig]` or `X | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in get_args(annotation):
        if (found := _section_in(argument)) is not None:
            return found
    return None
