"""Where the words are in a request or an answer: every string but names, ids and addresses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Strings that are no words: what says how to read something, and media, which no check of texts can look into.
_NOT_WORDS = frozenset({
    "role", "id", "type", "name", "tool_call_id", "index", "image_url", "input_audio", "file", "url", "file_id",
    "detail", "format", "cache_control", "signature", "encrypted_content",
})  # fmt: skip

MAX_DEPTH = 32

Holder = dict[str, Any] | list[Any]
Path = tuple[str | int, ...]


@dataclass(slots=True)
class Words:
    """A string inside of JSON-like data, which can be replaced.

    Attributes:
        path: How to get to it.
        json: Whether the string is JSON by itself: the arguments of a tool call.
    """

    holder: Holder
    key: str | int
    path: Path

    @property
    def text(self) -> str:
        return self.holder[self.key]  # pyright: ignore[reportArgumentType, reportCallIssue]

    @property
    def json(self) -> bool:
        return self.key == "arguments"

    def replace(self, text: str) -> None:
        self.holder[self.key] = text  # pyright: ignore[reportArgumentType, reportCallIssue]


def words_in(holder: Holder, path: Path = (), *, by_index: bool = False) -> Iterator[Words]:
    """Every string in `holder` that somebody may read, in order. What is nested deeper than 32 times is not walked.

    Args:
        by_index: Items of lists go by their own `index`, as the pieces of a stream do; else by their place.
    """
    if len(path) > MAX_DEPTH:
        return
    items = list(holder.items()) if isinstance(holder, dict) else list(enumerate(holder))
    for key, value in items:
        if key in _NOT_WORDS:
            continue
        if isinstance(value, str):
            yield Words(holder, key, (*path, key))
        elif isinstance(value, dict | list):
            own = value.get("index") if by_index and isinstance(holder, list) and isinstance(value, dict) else None
            yield from words_in(value, (*path, own if isinstance(own, int) else key), by_index=by_index)


def plain_texts(holder: Holder, found: list[str] | None = None, depth: int = 0) -> list[str] | None:
    """The strings of `words_in` without the way to each; None if there is one that takes a closer look: JSON, or what
    is nested too deeply."""
    if depth > MAX_DEPTH:
        return None
    found = [] if found is None else found
    for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
        if key in _NOT_WORDS:
            continue
        if isinstance(value, str):
            if key == "arguments":
                return None
            found.append(value)
        elif isinstance(value, dict | list) and plain_texts(value, found, depth + 1) is None:
            return None
    return found


def says_more(delta: Holder) -> bool:
    """Whether a piece of a stream says anything beside words: a role, the name of a tool."""
    for key, value in delta.items() if isinstance(delta, dict) else enumerate(delta):
        if isinstance(value, dict | list):
            if says_more(value):
                return True
        elif value is not None and key != "index" and (key in _NOT_WORDS or not isinstance(value, str)):
            return True
    return False


def at_path(path: Path, text: str) -> dict[str, Any]:
    """The piece of a stream that says `text` at `path`, and nothing else."""
    value: Any = text
    for step in reversed(path):
        value = {step: value} if isinstance(step, str) else [_indexed(step, value)]
    return value


def _indexed(index: int, value: Any) -> Any:
    return {"index": index, **value} if isinstance(value, dict) else value
