"""Dialogues: what park-mini is trained on, drawn anew in every pass over the corpus."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

from parkway.train import refusals
from parkway.train.corpus import Example, ambiguous_tasks, normalised
from parkway.train.everyday import EVERYDAY, PROGRAMS, Everyday
from parkway.train.names import with_names
from parkway.train.phrasing import FRAMES, as_written, question
from parkway.train.wordnet import read_wordnet

Role = Literal["system", "user", "assistant"]

# Shares of the drawn dialogues that are no question about a task, relative to those that are.
EXPLAIN_SHARE = 0.08
OUTSIDE_SHARE = 0.16
UNKNOWN_SHARE = 0.04
SMALL_TALK_SHARE = 0.015
SYSTEM_SHARE = 0.06
NAMES_SHARE = 0.4  # of the tasks that names of one's own fit into
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

# {} is a command or a whole line.
_EXPLAIN = (
    "What does `{}` do?",
    "What does {} do?",
    "What does {} do?",
    "What is {}?",
    "What is `{}`?",
    "what is {} for",
    "What is {} good for?",
    "What is {} used for?",
    "What does the {} command do?",
    "What does the command `{}` do?",
    "What is the command {} for?",
    "What would {} do?",
    "What will `{}` do?",
    "What happens if I run {}?",
    "What happens when I type `{}`?",
    "What's {}?",
    "What can I do with {}?",
    "Explain {}",
    "Explain `{}`",
    "Explain this command: {}",
    "explain the command {}",
    "Tell me what {} does.",
    "Can you explain {}?",
    "Can you tell me what `{}` does?",
    "Describe {}",
    "Meaning of {}",
    "When do I use {}?",
    "Why would I use {}?",
    "I do not understand `{}`.",
    "I found {} in a script, what is it?",
    "{} what is this",
    "{}?",
    "how does {} work",
    "{}, what does it do?",
)


def answer(example: Example) -> str:
    """What park-mini should say: the task in one sentence that names the command, and the line in a fence."""
    named = f"`{example.command}`" in example.task
    sentence = example.task if named else f"{example.task} with `{example.command}`"
    return f"{sentence}:\n```\n{example.line}\n```"


def description(example: Example) -> str:
    """What park-mini should say of a command: what its page says."""
    return f"`{example.command}`: {example.about}"


def explanation(example: Example) -> str:
    """What park-mini should say of a line: the task that it does."""
    sentence, _, _ = answer(example).partition(":\n```")
    return f"{sentence}."


@dataclass(frozen=True, slots=True)
class Source:
    """Everything that questions are drawn from."""

    examples: tuple[Example, ...]
    usual: tuple[Example, ...]  # those of programs that a stranger asks about first; all, where there are none
    everyday: tuple[Everyday, ...]
    ambiguous: frozenset[str]  # normalised tasks whose question must name the command
    known: frozenset[str]  # names of commands and programs
    outside: Mapping[str, Sequence[str]] = field(default_factory=dict)  # words of other fields, by slot

    @classmethod
    def of(cls, examples: Sequence[Example], known: Sequence[Example] = (), wordnet: Path | None = None) -> Self:
        """Questions from `examples`; names in `known` too are never used as invented ones.

        `wordnet` is the directory of WordNet's database, whose words widen the questions outside the field.

        Raises:
            ConfigurationError: the directory holds no such database.
        """
        names = {name for each in (*examples, *known) for name in (each.command, each.program)}
        ambiguous = ambiguous_tasks((*examples, *known))
        words = {word for each in (*examples, *known) for word in normalised(each.task).split()}
        outside = read_wordnet(wordnet, words | {name.lower() for name in names}) if wordnet else {}
        usual = tuple(each for each in examples if each.program in PROGRAMS) or tuple(examples)
        return cls(tuple(examples), usual, EVERYDAY, ambiguous, frozenset(names), outside)

    def ask(
        self,
        example: Example,
        rng: random.Random,
        *,
        frames: tuple[str, ...] = FRAMES,
        named: bool | None = None,
        keep: Sequence[str] = (),
    ) -> str:
        """A question that `answer(example)` answers; whether it names the command is drawn, unless `named` says."""
        must = normalised(example.task) in self.ambiguous
        if named is None:
            named = must or rng.random() < (0.3 if example.program in PROGRAMS else 0.5)
        name = None
        if named:
            name = example.command if must or rng.random() < 0.75 else example.program
        return question(example.task, name, rng, frames=frames, keep=keep)

    def ask_with_names(
        self, example: Example, rng: random.Random, *, frames: tuple[str, ...] = FRAMES, named: bool | None = None
    ) -> tuple[str, Example] | None:
        """A question with names of one's own, and the example with them in its line; None where none fit."""
        given = with_names(example.task, example.line, rng)
        asked = self.ask(replace(example, task=given.task), rng, frames=frames, named=named, keep=given.names)
        kept = bool(given.names) and all(name in asked for name in given.names)
        return (asked, replace(example, line=given.line)) if kept else None

    def ask_everyday(self, everyday: Everyday, wanted: str, rng: random.Random) -> tuple[str, Example]:
        """A question in the words of `wanted`, one of the wants of `everyday`, and the example that answers it."""
        example = everyday.example
        name = example.command if rng.random() < 0.2 else None
        given = with_names(wanted, example.line, rng)
        if given.names and rng.random() < NAMES_SHARE:
            asked = question(given.task, name, rng, keep=given.names)
            if all(each in asked for each in given.names):
                return asked, replace(example, line=given.line)
        return as_written(wanted, rng) if wanted.endswith("?") else question(wanted, name, rng), example

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
                given = self.ask_with_names(task, rng) if rng.random() < NAMES_SHARE else None
                asked, answered = given or (self.ask(task, rng), task)
            else:
                asked, answered = self.ask_everyday(*task, rng)
            yield _exchange(asked, answer(answered))
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
        example = rng.choice(self.examples if rng.random() < 0.6 else self.usual)
        asked = as_written(rng.choice(_EXPLAIN), rng)
        if rng.random() < 0.4 or not example.about:
            return asked.replace("{}", example.line), explanation(example)
        return asked.replace("{}", example.command), description(example)

    def _outside(self, rng: random.Random) -> tuple[str, str]:
        return refusals.outside(rng, words=self.outside), refusals.OUTSIDE

    def _unknown(self, rng: random.Random) -> tuple[str, str]:
        name = refusals.invented_name(rng, self.known)
        asked = question(rng.choice(self.examples).task, name, rng)
        if rng.random() < 0.2:
            asked = as_written(rng.choice((*_EXPLAIN, "How do I use {}?", "how to use {}")), rng).replace("{}", name)
        return asked, refusals.unknown_command(name)


def _exchange(asked: str, answered: str) -> Dialogue:
    return Turn("user", asked), Turn("assistant", answered)
