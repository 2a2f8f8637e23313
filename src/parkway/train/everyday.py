"""Everyday questions in the words that people use, with the line that answers them, written for this project."""

from dataclasses import dataclass
from pathlib import Path

from parkway.train.corpus import Example

WORDS = Path(__file__).parent / "words"


@dataclass(frozen=True, slots=True)
class Everyday:
    """An everyday task and the ways in which people want it.

    A want reads on after "How do I", unless it ends with a question mark: then it is the whole question.
    """

    example: Example
    wanted: tuple[str, ...]


def read_everyday(table: str) -> tuple[Everyday, ...]:
    """Read rows of `command | task | line | one want; another want`; rows that begin with # are remarks."""
    found: list[Everyday] = []
    for row in table.strip().splitlines():
        if row.startswith("#"):
            continue
        # The line may hold pipes itself, so it is whatever the fields around it leave.
        command, task, *line, wanted = row.split(" | ")
        example = Example(command, about="", task=task, line=" | ".join(line))
        found.append(Everyday(example, tuple(each.strip() for each in wanted.split(";"))))
    return tuple(found)


EVERYDAY = read_everyday((WORDS / "everyday.txt").read_text(encoding="utf-8"))

# Programs that a stranger is likely to ask about first: their examples are seen more often in training.
PROGRAMS = frozenset(each.example.program for each in EVERYDAY) | frozenset(
    (WORDS / "programs.txt").read_text(encoding="utf-8").split()
)
