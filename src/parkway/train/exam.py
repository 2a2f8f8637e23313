"""The examination of park-mini: questions that it never saw, and how many it answers rightly."""

# ruff: noqa: S311 - draws are for variety and must follow the seed; nothing here is secret

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from parkway.core.errors import ConfigurationError
from parkway.train import refusals
from parkway.train.corpus import Example, Split, normalised
from parkway.train.dialogue import Source, description, explanation
from parkway.train.everyday import WORDS
from parkway.train.phrasing import FRAMES, HELD_OUT_FRAMES, question
from parkway.train.respondent import Reply, Respondent


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked and what is wanted; a question without `programs` and `says` should be declined."""

    text: str
    programs: frozenset[str] = frozenset()  # any of these is the right command
    line: str | None = None  # the right line, where there is only one
    says: str | None = None  # the whole right answer, where it is no command

    @classmethod
    def about(cls, text: str, example: Example) -> "Question":
        """A question that only the line of `example` answers."""
        return cls(text, frozenset({program(example.line)}), example.line)

    def matches(self, reply: Reply) -> bool:
        """Whether the reply is the one right line or answer, to the letter."""
        return reply.text.strip() == self.says if self.says is not None else reply.line == self.line


@dataclass(frozen=True, slots=True)
class Figures:
    """How a part went. Shares are of all its questions; None where the part has no right command or line."""

    name: str
    asked: int
    right_command: float | None
    right_line: float | None  # to the letter; where no line is asked for, the answer
    declined: float
    ended: float  # the answer stopped by itself


@dataclass(frozen=True, slots=True)
class Part:
    """Questions of one kind."""

    name: str
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """A part and the replies to its questions, in their order."""

    part: Part
    replies: tuple[Reply, ...]

    def figures(self) -> Figures:
        """Count what is right."""
        pairs = list(zip(self.part.questions, self.replies, strict=True))
        return Figures(
            name=self.part.name,
            asked=len(pairs),
            right_command=_share([program(reply.line) in each.programs for each, reply in pairs if each.programs]),
            right_line=_share([each.matches(reply) for each, reply in pairs if each.line or each.says]),
            declined=_share([reply.declined for reply in self.replies]) or 0.0,
            ended=_share([reply.ended for reply in self.replies]) or 0.0,
        )

    def first(self, count: int) -> "Sheet":
        """The same sheet with no more than its first `count` questions."""
        return Sheet(Part(self.part.name, self.part.questions[:count]), self.replies[:count])


def examine(directory: Path, asked: Iterable[Part]) -> list[Sheet]:
    """Ask everything of the model in `directory`, greedily; parts without questions are left out."""
    respondent = Respondent(directory)
    answered = ((part, respondent.answer([each.text for each in part.questions])) for part in asked if part.questions)
    return [Sheet(part, tuple(replies)) for part, replies in answered]


def parts(source: Source, split: Split, outside: Sequence[str], seed: int, count: int) -> list[Part]:
    """The examination: at most `count` questions of each kind, drawn by `seed`; `outside` are all asked."""
    rng = random.Random(f"examination {seed}")
    clear = [each for each in split.trained if normalised(each.task) not in source.ambiguous]
    trained = rng.sample(clear, min(count, len(clear)))
    described = rng.sample([each for each in source.usual if each.about], count) if len(source.usual) > count else ()
    held_out = split.held_out[:count]
    invented = [refusals.invented_name(rng, source.known) for _ in range(count)]
    foreign = [refusals.outside(rng, templates=refusals.HELD_OUT_TEMPLATES) for _ in range(count)]

    def ask(examples: Iterable[Example], frames: tuple[str, ...], *, named: bool) -> tuple[Question, ...]:
        return tuple(Question.about(source.ask(each, rng, frames=frames, named=named), each) for each in examples)

    return [
        Part("trained tasks, new phrasing, command named", ask(trained, HELD_OUT_FRAMES, named=True)),
        Part("trained tasks, new phrasing, command not named", ask(trained, HELD_OUT_FRAMES, named=False)),
        Part("everyday tasks, new phrasing, command not named", _everyday(source, rng, count)),
        Part("held-out tasks, command named", ask(held_out, FRAMES, named=True)),
        Part("held-out tasks, command not named", ask(held_out, FRAMES, named=False)),
        Part("trained tasks, usual phrasing, names of the asker's own", _with_names(source, clear, rng, count)),
        Part(
            "what a known command does",
            tuple(Question(f"What does {each.command} do?", says=description(each)) for each in described),
        ),
        Part(
            "what a known line does",
            tuple(Question(f"What does `{each.line}` do?", says=explanation(each)) for each in trained),
        ),
        Part("written by hand, never trained, any command that does it", tuple(strangers("strangers.txt"))),
        Part("written by others, never trained, any command that does it", tuple(strangers("others.txt"))),
        Part("outside the field, templates held out", tuple(map(Question, foreign))),
        Part("outside the field, written for this by others", tuple(map(Question, _rows("outside.txt")))),
        Part("outside the field, from judged collections", tuple(map(Question, outside))),
        Part(
            "commands that do not exist",
            tuple(Question(question(rng.choice(clear).task, name, rng)) for name in invented),
        ),
        Part(
            "commands that do not exist, written by others",
            tuple(Question(row.split(" | ")[1]) for row in _rows("unknown.txt")),
        ),
        Part("trained tasks, usual phrasing, command named", ask(trained, FRAMES, named=True)),
        Part("trained tasks, usual phrasing, command not named", ask(trained, FRAMES, named=False)),
    ]


def strangers(name: str) -> list[Question]:
    """Questions as a stranger might type them, each with every program that can do it."""
    pairs = (row.split(" | ") for row in _rows(name))
    return [Question(text, frozenset(programs.split())) for text, programs in pairs]


def read_outside(path: Path, limit: int, seed: int) -> list[str]:
    """Draw questions from the `text` fields of a JSON Lines file.

    Raises:
        ConfigurationError: the file cannot be read, or a line has no such field.
    """
    try:
        texts = [str(json.loads(row)["text"]) for row in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path}: expected JSON Lines of objects with a `text`: {error!r}") from error
    return random.Random(seed).sample(texts, min(limit, len(texts)))


def program(line: str) -> str:
    """The program that a line starts: its first word, or the second behind `sudo`."""
    words = line.split()
    words = words[1:] if words[:1] == ["sudo"] else words
    return words[0] if words else ""


def _rows(name: str) -> list[str]:
    """The rows of one of the examination's own files; # begins a remark."""
    rows = (WORDS / "exam" / name).read_text(encoding="utf-8").splitlines()
    return [row for row in rows if not row.startswith("#")]


def _with_names(source: Source, examples: Sequence[Example], rng: random.Random, count: int) -> tuple[Question, ...]:
    shuffled = rng.sample(examples, len(examples))
    drawn = (source.ask_with_names(each, rng, named=True) for each in shuffled)
    return tuple(Question.about(*given) for given in islice((each for each in drawn if each), count))


def _everyday(source: Source, rng: random.Random, count: int) -> tuple[Question, ...]:
    wants = [(wanted, each.example) for each in source.everyday for wanted in each.wanted if not wanted.endswith("?")]
    drawn = rng.sample(wants, min(count, len(wants)))
    return tuple(
        Question.about(question(wanted, None, rng, frames=HELD_OUT_FRAMES), example) for wanted, example in drawn
    )


def _share(outcomes: Sequence[bool]) -> float | None:
    return sum(outcomes) / len(outcomes) if outcomes else None
