"""Which turns of a conversation stay when it has grown over its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

_INSTRUCTIONS = frozenset({"system", "developer"})


def first_kept(
    roles: Sequence[str], sizes: Sequence[int], *, added_from: int, max_messages: int, max_bytes: int
) -> tuple[int, int]:
    """Decides what goes: the messages with index `pinned <= index < kept`.

    Instructions at the very beginning are pinned, because a conversation that loses them changes its character.
    Behind them whole turns go, oldest first: a turn begins with what the user says and ends before the user speaks
    again, so that no answer stays without its question. If that is not enough, all goes but what was just added.

    Args:
        roles: Of every message, oldest first; `sizes` in bytes likewise.
        added_from: Index of the first message that was just added; it and those behind it always stay.

    Returns:
        `(pinned, kept)`; nothing goes where they are equal.
    """
    pinned = 0
    while pinned < added_from and roles[pinned] in _INSTRUCTIONS:
        pinned += 1
    before = [0, *accumulate(sizes)]

    def fits(kept: int) -> bool:
        messages = pinned + len(roles) - kept
        return messages <= max_messages and before[pinned] + before[-1] - before[kept] <= max_bytes

    starts = (index for index in range(pinned + 1, added_from) if roles[index] == "user" and roles[index - 1] != "user")
    for kept in (pinned, *starts):
        if fits(kept):
            return pinned, kept
    return pinned, max(pinned, added_from)
