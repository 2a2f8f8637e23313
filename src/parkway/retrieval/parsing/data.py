"""CSV, JSON and JSON Lines, told as text: tables, and a paragraph `path: value` for each record."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from parkway.core.errors import Unreadable
from parkway.retrieval.document import Parsed
from parkway.retrieval.parsing.writing import Writer

_MAX_DEPTH = 100
_DELIMITERS = ",;\t|"
_CELL = 1_000_000  # characters
_NESTING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{\]}]', re.DOTALL)


def read_csv(text: str, most: int) -> Parsed:
    """A table. What separates its columns is found out from its first lines."""
    csv.field_size_limit(_CELL)
    writer = Writer(most)
    try:
        text = text.translate({0: None, 0xFEFF: None})  # zeros are no CSV to Python
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
        writer.add_table(rows)
    except csv.Error as error:
        raise Unreadable(f"is no CSV that can be read: {error}") from error
    return writer.parsed()


def read_json(text: str, most: int) -> Parsed:
    """A paragraph for each element of the list at its top, or for each of its top's members that has members itself."""
    _check_depth(text)
    try:
        value = _value(text)
    except ValueError as error:
        if "\n" in text.strip():
            return read_json_lines(text, most, error)
        raise Unreadable(f"is no JSON: {error}") from error
    writer = Writer(most)
    if isinstance(value, list) and any(isinstance(record, dict | list) for record in value):
        for record in value:
            _write(writer, record)
    elif isinstance(value, dict):
        plain = {name: inner for name, inner in value.items() if not isinstance(inner, dict | list)}
        _write(writer, plain)
        for name, inner in value.items():
            if isinstance(inner, list) and any(isinstance(item, dict | list) for item in inner):
                for item in inner:
                    _write(writer, item, name)
            elif name not in plain:
                _write(writer, inner, name)
    else:
        _write(writer, value)
    return writer.parsed()


def read_json_lines(text: str, most: int, error: ValueError | None = None) -> Parsed:
    """A paragraph for each line."""
    writer = Writer(most)
    for number, line in enumerate(io.StringIO(text), 1):
        if not line.strip():
            continue
        _check_depth(line)
        try:
            _write(writer, _value(line))
        except ValueError as fault:
            raise Unreadable(f"is no JSON: {error or f'line {number}: {fault}'}") from fault
    return writer.parsed()


def _value(text: str) -> Any:
    """Numbers as they are written; of a name that stands twice in an object, all that is said."""
    return json.loads(
        text.strip("\ufeff\0"),
        strict=False,  # a tab within a text is none in JSON, and does no harm
        parse_int=str,
        parse_float=str,
        parse_constant=str,
        object_pairs_hook=_members,
    )


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = dict(pairs)
    if len(members) < len(pairs):
        for name, times in Counter(name for name, _ in pairs).items():
            if times > 1:
                members[name] = [value for each, value in pairs if each == name]
    return members


def _check_depth(text: str) -> None:
    """Refuses what is nested too deep, before a parser recurses into it."""
    depth = 0
    for match in _NESTING.finditer(text):
        mark = match.group()
        if mark in "[{":
            depth += 1
            if depth > _MAX_DEPTH:
                raise Unreadable(f"is nested more than {_MAX_DEPTH} deep")
        elif mark in "]}":
            depth -= 1


def _delimiter(text: str) -> str:
    lines = [line for line in re.split(r"\r\n?|\n", text[:20_000])[:20] if line.strip()]
    if not lines:
        return ","

    def regular(delimiter: str) -> tuple[bool, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter)]
        return widths[0] > 1 and widths.count(widths[0]) >= 0.8 * len(widths), widths[0]

    return max(_DELIMITERS, key=regular)


def _write(writer: Writer, value: Any, path: str = "") -> None:
    lines = (f"{name}: {told}" if name else told for name, told in _told(value, path))
    writer.add("paragraph", "\n".join(lines))


def _told(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Each value with the way to it: `author.name`."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _told(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        if all(not isinstance(item, dict | list) for item in value):
            yield path, ", ".join(_scalar(item) for item in value)
        else:
            yield from chain.from_iterable(_told(item, path) for item in value)
    else:
        yield path, _scalar(value)


def _scalar(value: str | bool | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return value  # numbers, too: as they are written in the file
