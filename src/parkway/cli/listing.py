"""Lists on the terminal: an aligned table for people, JSON for programs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import click
import msgspec

_NUMBER = re.compile(r"-|-?\d+(\.\d+)?")


def print_json(value: Any) -> None:
    """Any value that msgspec encodes, dataclasses included, as indented JSON on standard output."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Aligned columns: text to the left, numbers to the right; None is shown as a dash."""
    cells = [["-" if value is None else one_line(value) for value in row] for row in rows]
    widths = [max(len(name), *(_width(row[i]) for row in cells), 0) for i, name in enumerate(columns)]
    right = [all(_NUMBER.fullmatch(row[i]) for row in cells) for i in range(len(columns))]
    click.echo(click.style(_line(columns, widths, right), bold=True))
    for row in cells:
        click.echo(_line(row, widths, right))


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        " " * (width - _width(cell)) + cell if to_right else cell + " " * (width - _width(cell))
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    ]
    return "  ".join(padded).rstrip()


def one_line(value: object) -> str:
    """Text as it may be printed: what a terminal would interpret is shown, not sent."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(value))


def _width(text: str) -> int:
    """Columns on a terminal: East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
