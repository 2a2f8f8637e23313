"""What lies outside the field of park-mini: questions to decline, commands that nobody knows, and small talk."""

import random
import string
import tomllib
from collections.abc import Mapping, Sequence

from parkway.train.everyday import WORDS
from parkway.train.grammar import expand

OUTSIDE = "I only know command lines, so I cannot answer that. Ask me how to do something in a terminal."
GREETING = "Hello. Tell me what you want to do in a terminal and I will suggest a command line."
IDENTITY = (
    "I am park-mini, a very small model that suggests command lines. "
    "I know nothing else, and I can be wrong: read a line before you run it."
)
THANKS = "You are welcome."
FAREWELL = "Goodbye."

_WORDS = tomllib.loads((WORDS / "outside.toml").read_text(encoding="utf-8"))
TEMPLATES: tuple[str, ...] = tuple(_WORDS["templates"]["trained"])
HELD_OUT_TEMPLATES: tuple[str, ...] = tuple(_WORDS["templates"]["held_out"])

_SLOTS: dict[str, list[str]] = _WORDS["slots"]
_SMALL_TALK: dict[str, list[str]] = _WORDS["small_talk"]
_SYLLABLES: dict[str, list[str]] = _WORDS["syllables"]


def unknown_command(name: str) -> str:
    """The answer to a question about a command that was never trained."""
    return f"I do not know a command named `{name}`."


def outside(
    rng: random.Random, *, templates: Sequence[str] = TEMPLATES, words: Mapping[str, Sequence[str]] | None = None
) -> str:
    """A question that has nothing to do with command lines; `words` are texts for slots beside this project's own."""
    slots = _SLOTS if not words or rng.random() < 0.4 else {**_SLOTS, **words}
    return _careless(expand(rng.choice(templates), slots | _noise(rng), rng), rng)


def small_talk(rng: random.Random) -> tuple[str, str]:
    """A greeting, thanks or a question about the model, and the answer."""
    kind, reply = rng.choice(
        (
            ("greetings", GREETING),
            ("identity", IDENTITY),
            ("identity", IDENTITY),
            ("thanks", THANKS),
            ("farewells", FAREWELL),
        )
    )
    return _careless(rng.choice(_SMALL_TALK[kind]), rng), reply


def thanks(rng: random.Random) -> tuple[str, str]:
    """Thanks, as a later turn of a conversation, and the answer."""
    return _careless(rng.choice(_SMALL_TALK["thanks"]), rng), THANKS


def invented_name(rng: random.Random, known: frozenset[str]) -> str:
    """A name that sounds like a command and is none of the `known` ones."""
    while True:
        count = rng.choice((1, 2, 2, 2, 3))
        parts = [rng.choice(_SYLLABLES[part]) for _ in range(count) for part in ("onsets", "nuclei", "codas")]
        name = "".join(parts) + rng.choice(_SYLLABLES["endings"])
        if name not in known and len(name) > 3:
            return name


def _noise(rng: random.Random) -> dict[str, list[str]]:
    """Slots without words: numbers and what a cat types."""
    lengths = (rng.randrange(3, 9) for _ in range(rng.randrange(1, 4)))
    typed = " ".join("".join(rng.choice(string.ascii_lowercase) for _ in range(length)) for length in lengths)
    return {"n": [str(rng.randrange(2, 1000)) for _ in range(4)], "noise": [typed]}


def _careless(text: str, rng: random.Random) -> str:
    """As people type: often without capitals or the final mark."""
    if rng.random() < 0.3:
        text = text.lower()
    return text.rstrip("?.!") if rng.random() < 0.25 else text
