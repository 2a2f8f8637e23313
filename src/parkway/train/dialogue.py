"""Dialogues: what park-mini is trained on, drawn anew in every pass over the corpus."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from parkway.train import refusals
from parkway.train.corpus import Example, ambiguous_tasks, normalised
from parkway.train.everyday import EVERYDAY, PROGRAMS, Everyday
from parkway.train.phrasing import FRAMES, as_written, question

Role = Literal["system", "user", "assistant"]

# Shares of the drawn dialogues that are no question about a task, relative to those that are.
EXPLAIN_SHARE = 0.05
OUTSIDE_SHARE = 0.08
UNKNOWN_SHARE = 0.03
SMALL_TALK_SHARE = 0.015
SYSTEM_SHARE = 0.06
EVERYDAY_REPEATS = 4
PROGRAM_REPEATS = 2

_SYSTEM = (
    "You are a helpful assistant.",
    "You are park-mini, a command-line helper.",
    "Answer briefly.",
    "You are a helpful assistant. Answer in English.",
    "You help people in the terminal.",
    "Be concise and correct.",
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a dialogue."""

    role: Role
    content: str


Dialogue = tuple[Turn, ...]


def answer(example: Example) -> str:
    """What park-mini should say: the task in one sentence that names the command, and the line in a fence."""
    named = f"`{example.command}`" in example.task
    sentence = example.task if named else f"{example.task} with `{example.command}`"
    return f"{sentence}:\n```\n{example.line}\n```"


@dataclass(frozen=True, slots=True)
class Source:
    """Everything that questions are drawn from."""

    examples: tuple[Example, ...]
    everyday: tuple[Everyday, ...]
    ambiguous: frozenset[str]  # normalised tasks whose question must name the command
    known: frozenset[str]  # names of commands and programs

    @classmethod
    def of(cls, examples: Sequence[Example], known: Sequence[Example] = ()) -> Self:
        """Questions from `examples`; names in `known` too are never used as invented ones."""
        names = {name for each in (*examples, *known) for name in (each.command, each.program)}
        ambiguous = ambiguous_tasks((*examples, *known))
        return cls(tuple(examples), EVERYDAY, ambiguous, frozenset(names))

    def ask(
        self, example: Example, rng: random.Random, *, frames: tuple[str, ...] = FRAMES, named: bool | None = None
    ) -> str:
        """A question that `answer(example)` answers; whether it names the command is drawn, unless `named` says."""
        must = normalised(example.task) in self.ambiguous
        if named is None:
            named = must or rng.random() < (0.3 if example.program in PROGRAMS else 0.5)
        name = None
        if named:
            name = example.command if must or rng.random() < 0.75 else example.program
        return question(example.task, name, rng, frames=frames)

    def ask_everyday(self, everyday: Everyday, wanted: str, rng: random.Random) -> str:
        """A question in the words of `wanted`, one of the wants of `everyday`."""
        if wanted.endswith("?"):
            return as_written(wanted, rng)
        return question(wanted, everyday.example.command if rng.random() < 0.2 else None, rng)

    def exchanges(self, rng: random.Random) -> Iterator[Dialogue]:
        """One pass: a question and answer for every example, in random order, and everything else among them."""
        tasks: list[Example | tuple[Everyday, str]] = []
        for example in self.examples:
            tasks += [example] * (PROGRAM_REPEATS if example.program in PROGRAMS else 1)
        for each in self.everyday:
            tasks += [(each, wanted) for wanted in each.wanted] * EVERYDAY_REPEATS
        rng.shuffle(tasks)
        extras = (
            (EXPLAIN_SHARE, self._explanation),
            (OUTSIDE_SHARE, self._outside),
            (UNKNOWN_SHARE, self._unknown),
            (SMALL_TALK_SHARE, refusals.small_talk),
        )
        for task in tasks:
            if isinstance(task, Example):
                yield _exchange(self.ask(task, rng), answer(task))
            else:
                everyday, wanted = task
                yield _exchange(self.ask_everyday(everyday, wanted, rng), answer(everyday.example))
            for share, draw in extras:
                if rng.random() < share:
                    yield _exchange(*draw(rng))

    def dialogues(self, rng: random.Random) -> Iterator[Dialogue]:
        """One pass as conversations: mostly one exchange, sometimes up to five, sometimes under a system prompt."""
        exchanges = self.exchanges(rng)
        for first in exchanges:
            turns = list(first)
            for _ in range(rng.choices((0, 1, 2, 4), (0.86, 0.09, 0.03, 0.02))[0]):
                turns += _exchange(*refusals.thanks(rng)) if rng.random() < 0.15 else next(exchanges, ())
            if rng.random() < SYSTEM_SHARE:
                turns.insert(0, Turn("system", rng.choice(_SYSTEM)))
            yield tuple(turns)

    def _explanation(self, rng: random.Random) -> tuple[str, str]:
        example = rng.choice(self.examples)
        if rng.random() < 0.5 or not example.about:
            asked = rng.choice(("What does `{}` do?", "What does {} do?", "Explain `{}`", "explain this command: {}"))
            sentence = answer(example).split(":\n```")[0]
            return asked.format(example.line), f"{sentence}."
        asked = rng.choice(
            ("What is {}?", "What is `{}`?", "what is {} for", "What does the {} command do?", "explain {}")
        )
        return asked.format(example.command), f"`{example.command}`: {example.about}"

    def _outside(self, rng: random.Random) -> tuple[str, str]:
        return refusals.outside(rng), refusals.OUTSIDE

    def _unknown(self, rng: random.Random) -> tuple[str, str]:
        name = refusals.invented_name(rng, self.known)
        asked = question(rng.choice(self.examples).task, name, rng)
        if rng.random() < 0.2:
            bare = rng.choice(("What is {}?", "what is `{}`", "What does {} do?", "How do I use {}?"))
            asked = bare.format(name)
        return asked, refusals.unknown_command(name)


def _exchange(asked: str, answered: str) -> Dialogue:
    return Turn("user", asked), Turn("assistant", answered)
