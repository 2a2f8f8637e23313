"""The corpus of park-mini: tldr-pages examples, cleaned, and split into what is trained and what is held out."""

# ruff: noqa: S311 - draws are for variety and must follow the seed; nothing here is secret

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from parkway.core.errors import ConfigurationError

PLATFORMS = ("common", "linux")

_KEYS = ("platform", "command", "about", "task", "line")

_MNEMONIC = re.compile(r"\[([A-Za-z0-9]+)\]")
_CODE = re.compile(r"(`[^`]*`)")
_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}")
_OPTION = re.compile(r"^\[(.*)\]$")
_INLINE_CHOICE = re.compile(r"\[([^\[\]|]*)\|[^\[\]]*\]")
# A page that documents a template engine writes its literal braces with backslashes.
_LITERAL_OPEN, _LITERAL_CLOSE = "\x01", "\x02"


@dataclass(frozen=True, slots=True)
class Example:
    """One task and the command line that does it."""

    command: str  # the name of the page: "tar", "git commit"
    about: str  # one sentence about the command, with its full stop
    task: str  # imperative, no full stop: "Extract an archive"
    line: str  # a line as somebody would type it, with names such as path/to/file where theirs go

    @property
    def program(self) -> str:
        """The first word of the command: `git` of `git commit`."""
        return self.command.split()[0]


@dataclass(frozen=True, slots=True)
class Split:
    """The examples of a run. No held-out task is trained, under any phrasing."""

    trained: tuple[Example, ...]
    held_out: tuple[Example, ...]

    @classmethod
    def draw(cls, examples: Sequence[Example], held_out: int, seed: int) -> Self:
        """Hold out `held_out` examples (fewer where there are not enough) of commands that stay known.

        A candidate's command keeps at least four other examples; its task belongs to it alone, and its line too, so
        that nothing trained gives it away.
        """
        per_command = Counter(example.command for example in examples)
        tasks = Counter(normalised(example.task) for example in examples)
        lines = Counter(example.line for example in examples)
        order = list(examples)
        random.Random(seed).shuffle(order)
        chosen: list[Example] = []
        for example in order:
            if len(chosen) == held_out:
                break
            alone = tasks[normalised(example.task)] == 1 and lines[example.line] == 1
            if alone and per_command[example.command] >= 5:
                per_command[example.command] -= 1
                chosen.append(example)
        away = set(chosen)
        return cls(tuple(each for each in examples if each not in away), tuple(chosen))


def normalised(task: str) -> str:
    """The task without case, punctuation and spacing: equal for tasks that say the same words."""
    return " ".join(re.findall(r"[a-z0-9]+", task.lower()))


def ambiguous_tasks(examples: Iterable[Example]) -> frozenset[str]:
    """Normalised tasks that more than one command does ("Display help"): their questions must name the command."""
    commands: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        commands[normalised(example.task)].add(example.command)
    return frozenset(task for task, names in commands.items() if len(names) > 1)


def read_examples(path: Path, platforms: Sequence[str] = PLATFORMS) -> list[Example]:
    """Read a JSON Lines file of tldr-pages examples, cleaned and without duplicates, in the order of the file.

    Raises:
        ConfigurationError: the file cannot be read, a line of it is not an object with the expected keys, or it has
            no example of these platforms.
    """
    found: dict[tuple[str, str], Example] = {}
    try:
        rows = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}; give the JSON Lines file of tldr-pages") from error
    for number, row in enumerate(rows, start=1):
        example = _read_row(row, platforms, f"{path}:{number}")
        # Pages of aliases only send the reader on to the page of the original.
        if example is not None and example.task and example.line and not example.line.startswith("tldr "):
            found.setdefault((example.command, normalised(example.task)), example)
    if not found:
        raise ConfigurationError(f"{path}: no example of the platforms {', '.join(platforms)}")
    return list(found.values())


def _read_row(row: str, platforms: Sequence[str], place: str) -> Example | None:
    """One line of the file as an example, or None where it is of another platform."""
    try:
        page: dict[str, str] = json.loads(row)
        platform, command, about, task, line = (page[key] for key in _KEYS)
        example = Example(command, clean_about(about), clean_task(task), clean_line(line))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{place}: expected a JSON object with the texts {', '.join(_KEYS)}: {error!r}"
        ) from error
    return example if platform in platforms else None


def clean_task(task: str) -> str:
    """Remove the brackets around mnemonic letters ("E[x]tract"), a final stop, and capitalise the first letter."""
    parts = _CODE.split(task.strip())
    parts = [part if part.startswith("`") else _MNEMONIC.sub(r"\1", part) for part in parts]
    text = re.sub(r"\s+", " ", "".join(parts)).strip().rstrip(".:").strip()
    return text[:1].upper() + text[1:]


def clean_about(about: str) -> str:
    """Keep the first sentence, with its full stop."""
    text = re.sub(r"\s+", " ", about).strip()
    first = re.split(r"(?<=[a-z`)\]])\. (?=[A-Z`])", text, maxsplit=1)[0].rstrip(".")
    return first + "." if first else ""


def clean_line(line: str) -> str:
    """Turn a page's line into one that somebody would type.

    `{{path/to/file}}` becomes path/to/file; of `{{[-x|--xyz]}}` the long form stays, which explains itself; of
    `{{json|table}}` the first choice; dots that say "and so on" go.
    """
    text = line.strip().replace(r"\{\{", _LITERAL_OPEN).replace(r"\}\}", _LITERAL_CLOSE)
    text = _PLACEHOLDER.sub(lambda match: _choose(match.group(1)), text)
    return text.replace(_LITERAL_OPEN, "{{").replace(_LITERAL_CLOSE, "}}").strip()


def _choose(placeholder: str) -> str:
    option = _OPTION.match(placeholder)
    if option:
        return option.group(1).split("|")[-1]
    first = _INLINE_CHOICE.sub(r"\1", placeholder).split("|")[0]
    return re.sub(r"\s*\.\.\.$", "", first)
