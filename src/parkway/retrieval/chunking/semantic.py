"""Chunks that end where the subject changes: where the sentences before and after have little to do with each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.chunking.packing import Size, packed
from parkway.retrieval.chunking.unit import GLUED, SECTION, outline
from parkway.retrieval.document import Chunk, Parsed

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""[texts, dimensions] of texts, rows of length 1."""

_AROUND = 3  # sentences on either side that are compared
_MOST_UNITS = 200_000
_INSIDE = 2.0


@dataclass(frozen=True, slots=True)
class Semantic:
    """The chunks whose cuts lie at the greatest shifts of meaning, near the target in length.

    As TextTiling (Hearst, 1997) does with words, here with the vectors of sentences. Costs an embedding of every
    sentence, beside those of the chunks.

    Attributes:
        weight: What a cut costs where the meaning shifts least; where it shifts most, nothing.
    """

    encoder: Encoder
    embed: Embed
    size: Size
    weight: float = 0.6

    def __call__(self, parsed: Parsed) -> list[Chunk]:
        parts = outline(parsed, self.encoder, self.size.limit)
        units = parts.units
        if len(units) < 2 or len(units) > _MOST_UNITS:
            ranks = np.full(len(units), 0.5)
        else:
            ranks = _ranks(_likeness(self.embed([parsed.text[unit.start : unit.end] for unit in units])))

        def cost(index: int) -> float:
            before = units[index].before
            if before == SECTION:
                return 0.0
            return _INSIDE if before == GLUED else self.weight * float(ranks[index])

        return packed(parsed.text, parts, self.encoder, self.size, cost)


def _likeness(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of what stands before each unit and what begins with it: the cosine of the means; 0 for the first."""
    sums = np.vstack([np.zeros(vectors.shape[1]), np.cumsum(vectors, axis=0, dtype=np.float64)])
    at = np.arange(len(vectors))
    before = sums[at] - sums[np.maximum(at - _AROUND, 0)]
    after = sums[np.minimum(at + _AROUND, len(vectors))] - sums[at]
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    likeness = np.einsum("ij,ij->i", before, after) / np.maximum(lengths, 1e-9)
    likeness[0] = 0.0
    return likeness


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where each stands among all, from 0 for the least to 1."""
    ranks = np.empty(len(values))
    ranks[np.argsort(np.round(values, 6), kind="stable")] = np.linspace(0.0, 1.0, len(values))
    return ranks
