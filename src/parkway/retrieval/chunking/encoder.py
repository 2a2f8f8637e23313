"""What a chunker has to know of the model that will read its chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

Count = Callable[[Sequence[str]], Sequence[int]]
"""The tokens of each text, with those that the encoder puts around it."""

_BATCH = 4096  # texts at once: a tokenizer shares out a batch among cores, and holds all of its answer in memory


@dataclass(frozen=True)
class Encoder:
    """The encoder's reading.

    Attributes:
        counter: Its tokenizer's own count.
        reads: The most tokens, those around included; it ignores what follows.
    """

    counter: Count
    reads: int

    @cached_property
    def around(self) -> int:
        """Tokens of a text without words."""
        return self.counter([""])[0]

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, with those around it."""
        counts: list[int] = []
        for start in range(0, len(texts), _BATCH):
            counts.extend(self.counter(texts[start : start + _BATCH]))
        return counts
