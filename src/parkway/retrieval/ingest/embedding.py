"""The sentence encoder of a collection, as ingestion needs it; whose it is, is for others to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from parkway.retrieval.chunking.encoder import Encoder


@dataclass(frozen=True, slots=True)
class Embedding:
    """An encoder. Blocking.

    Attributes:
        name: Of the model; another one for other weights, for vectors are kept by it.
        embed: float32 [texts, dimensions] of texts, rows of length 1. Whatever it raises is taken to pass.
        encoder: How it counts, and how much it reads.
    """

    name: str
    dimensions: int
    embed: Callable[[Sequence[str]], Any]
    encoder: Encoder
