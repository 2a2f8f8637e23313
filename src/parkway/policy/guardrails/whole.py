"""Watching a growing text with a check that wants to see all of it."""

from __future__ import annotations

from collections.abc import Callable

from parkway.policy.guardrails.finding import Finding

_MAX_CHARS = 65_536
_FIRST_LOOK = 200


class GrowingText:
    """Looks again whenever the text has grown by a half, so that all looks together cost three times the last one.

    Args:
        find: The check; sees at most the first 65,536 characters.
    """

    def __init__(self, find: Callable[[str], list[Finding]]) -> None:
        self._find = find
        self._parts: list[str] = []
        self._chars = 0
        self._look_at = _FIRST_LOOK

    def add(self, piece: str, *, final: bool = False) -> Finding | None:
        if self._chars < _MAX_CHARS:
            self._parts.append(piece[: _MAX_CHARS - self._chars])
            self._chars += len(piece)
        if not final and self._chars < self._look_at:
            return None
        self._look_at = max(self._chars + 1, self._chars * 3 // 2)
        found = self._find("".join(self._parts))
        # Nothing of such a text can be cut out; it ends with what has arrived now.
        return Finding(0, len(piece), found[0].kind, found[0].score) if found else None
