"""Folders as BEIR lays them out: `corpus.jsonl`, `queries.jsonl`, and files of judgements (qrels).

Source: Thakur et al., "BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information Retrieval Models", 2021.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from parkway.core.errors import ConfigurationError

_COLUMNS = ("query-id", "corpus-id", "score")


class Text(msgspec.Struct, frozen=True):
    """A document, or a query."""

    name: str | int = msgspec.field(name="_id")
    text: str
    title: str | None = None


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Judgement:
    """How well a document answers a query, or a span of it does, in characters."""

    query: str
    document: str
    grade: float
    start: int | None = None
    end: int | None = None


def documents(folder: Path) -> dict[str, Text]:
    """By id.

    Raises, everything here:
        ConfigurationError: A file is missing, or a line is not as it has to be; the message names it.
    """
    return _texts(folder / "corpus.jsonl")


def queries(folder: Path) -> dict[str, str]:
    """By id."""
    return {name: each.text for name, each in _texts(folder / "queries.jsonl").items()}


def judgements(path: Path, known: dict[str, str]) -> list[Judgement]:
    """What is relevant to queries that are `known`, at least one; columns `start` and `end` may be missing."""
    found = list(_explained(path, _judgements(path, known)))
    if not found:
        raise ConfigurationError(f"{path}: no document is relevant to any query: there is no score above 0")
    return found


def _texts(path: Path) -> dict[str, Text]:
    return dict(_explained(path, _rows(path)))


def _rows(path: Path) -> Iterator[tuple[str, Text]]:
    decoder = msgspec.json.Decoder(Text)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    each = decoder.decode(line)
                except msgspec.MsgspecError as error:
                    raise ConfigurationError(
                        f'{path}:{number}: {error}; expected {{"_id": "...", "text": "..."}}'
                    ) from error
                yield str(each.name), each


def _judgements(path: Path, known: dict[str, str]) -> Iterator[Judgement]:
    with path.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines, delimiter="\t")
        if not set(_COLUMNS) <= set(rows.fieldnames or ()):
            raise ConfigurationError(
                f"{path}:1: the first line has to name the columns {', '.join(_COLUMNS)}, with tabs between them"
            )
        for row in rows:
            try:
                span = {name: int(row[name]) for name in ("start", "end") if row.get(name)}
                found = Judgement(row["query-id"], row["corpus-id"], float(row["score"]), **span)
            except (ValueError, TypeError) as error:
                raise ConfigurationError(f"{path}:{rows.line_num}: a number is expected: {error}") from error
            if found.query not in known:
                raise ConfigurationError(f"{path}:{rows.line_num}: queries.jsonl has no query {found.query[:64]!r}")
            if found.grade > 0:
                yield found


def _explained(path: Path, rows: Iterator[T]) -> Iterator[T]:
    try:
        yield from rows
    except OSError as error:
        raise ConfigurationError(f"{path}: no collection as BEIR lays it out: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error
