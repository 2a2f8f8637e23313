"""What a check finds in a text: where, and of which kind. Never the words themselves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A place in a text, in characters: `text[start:end]`. `score` is how sure the check is, up to 1."""

    start: int
    end: int
    kind: str
    score: float = 1.0


def mark(kind: str) -> str:
    """What stands in a redacted text for a finding of `kind`: `[EMAIL]`. Valid inside of a JSON string."""
    return f"[{kind.upper()}]"
