"""What is wrong with a child that serves all the same, and how `parkway up` comes to say so at the terminal.

A child says all that is wrong in one line of JSON on its standard output, anew whenever that changes: of what, and how.
The supervisor keeps what each of them says last, and says each thing once, whoever says it first, and when it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from parkway.core.tasks import Tasks

PREFIX = b"trouble "
"""Of the line."""

CONFIGURATION = "the configuration"
"""What all processes read, and each of them may have to refuse."""

Trouble = Mapping[str, str]
"""By what it is wrong with, as a person would call it: how, as the rest of a sentence."""

_SETTLED_S = 2.0
"""Until then one that was started anew has found out what is wrong, and does not say that nothing is."""

_LOOK_S = 1.0
_MOST, _LONGEST = 32, 1000


class Telling:
    """The child's end.

    Args:
        look: What is wrong now.
    """

    def __init__(self, look: Callable[[], Trouble]) -> None:
        self._look = look
        self._told: Trouble | None = None

    def start(self, tasks: Tasks) -> None:
        tasks.start(self._begin(tasks), name="trouble")

    async def _begin(self, tasks: Tasks) -> None:
        await asyncio.sleep(_SETTLED_S)
        tasks.every(_LOOK_S, self._tell, name="trouble")

    async def _tell(self) -> None:
        now = {subject: how[:_LONGEST] for subject, how in [*self._look().items()][:_MOST]}
        if now != self._told:
            self._told = now
            print((PREFIX + msgspec.json.encode(now)).decode(), flush=True)


class Troubles:
    """The supervisor's end.

    Args:
        say: Told one line about each thing that goes wrong, and one when it is over.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._of: dict[str, Trouble] = {}

    def concerns(self, subject: str) -> bool:
        """Whether anything is wrong with it."""
        return any(subject in told for told in self._of.values())

    def listen(self, who: str, line: bytes) -> None:
        """Takes a line of a child, without its prefix."""
        try:
            self.hear(who, msgspec.json.decode(line, type=dict[str, str]))
        except msgspec.MsgspecError:
            return  # something else begins like it

    def hear(self, who: str, trouble: Trouble) -> None:
        """Takes all that is wrong now.

        Args:
            who: The child; empty: the supervisor itself.
        """
        known = {(subject, how[:_LONGEST]) for told in self._of.values() for subject, how in told.items()}
        before = {subject for subject, _ in known}
        self._of[who] = trouble
        for subject, how in trouble.items():
            if (subject, how[:_LONGEST]) not in known:
                self._say(_printable(f"{who}: {subject} {how}" if who else f"{subject} {how}"))
        for subject in sorted(before.difference(*self._of.values())):
            self._say(_printable(f"{subject} is right again"))


def refusal(error: str, source: Path | None) -> str:
    """Of the configuration: why it cannot be used, and where to change it."""
    return f"cannot be used as it is written now, and what was in force stays in force: {error}{_where(error, source)}"


def the_collection(name: str) -> str:
    """What a collection is called here."""
    return f"the collection {name}"


def of_collection(error: str, source: Path | None) -> str:
    """Of a collection that cannot be as it is configured.

    Args:
        source: Where that stands; None where it was added.
    """
    return f"cannot be as it is configured: {error}{_where(error, source)}"


def _where(error: str, source: Path | None) -> str:
    return "" if source is None or str(source) in error else f"; change it in {source}"


def _printable(text: str) -> str:
    """For a terminal: further lines are set in; a name cannot move the cursor."""
    lines = ["".join(char if char.isprintable() else " " for char in line) for line in text.splitlines()]
    return "\n    ".join(lines)
