"""Which paths of a source are taken."""

from __future__ import annotations

import re
from collections.abc import Sequence


class Patterns:
    """Patterns of paths below a source's root, `/` between their parts.

    `*` and `?` stand for characters of one part, `**` for any parts, `[abc]` for one of them. A pattern without `/` is
    of names, at whatever depth. One that excludes a folder excludes what is in it. What begins with a dot, a folder
    or a file, is left out unless a pattern of `include` names something that does.
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        self._include = [_compiled(pattern) for pattern in include]
        self._exclude = [_compiled(pattern) for pattern in exclude]
        self._hidden_too = any(part.startswith(".") for pattern in include for part in pattern.split("/"))

    def take(self, path: str) -> bool:
        """Whether the file is a document."""
        return self.enter(path) and (not self._include or any(one.fullmatch(path) for one in self._include))

    def enter(self, path: str) -> bool:
        """Whether there may be documents in the folder."""
        parts = path.split("/")
        if not self._hidden_too and any(part.startswith(".") for part in parts):
            return False
        above = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        return not any(one.fullmatch(each) for one in self._exclude for each in above)


def _compiled(pattern: str) -> re.Pattern[str]:
    whole = pattern.strip("/") if "/" in pattern.strip("/") or pattern.startswith("/") else f"**/{pattern.strip('/')}"
    parts = whole.split("/")
    said: list[str] = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            said.append(".*" if last else "(?:[^/]+/)*")
        else:
            said.append(_part(part) + ("" if last else "/"))
    return re.compile("".join(said), re.DOTALL)


def _part(part: str) -> str:
    """A part as a regular expression. Runs of `*` count as one, for time."""
    said, at = "", 0
    part = re.sub(r"\*+", "*", part)
    while at < len(part):
        end = part.find("]", at + 2) if part[at] == "[" else -1
        if part[at] == "*":
            said += "[^/]*"
        elif part[at] == "?":
            said += "[^/]"
        elif end > 0:
            inner = part[at + 1 : end]
            negated = inner[:1] in ("!", "^")
            inner = re.sub(r"([\\\[\]^&~|])", r"\\\1", inner[1:] if negated else inner)
            said += f"[{'^/' if negated else ''}{inner}]"
            at = end
        else:
            said += re.escape(part[at])
        at += 1
    return said
