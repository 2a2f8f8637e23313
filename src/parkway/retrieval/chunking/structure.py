"""Chunks along the document's structure: sections, paragraphs, lists, code, tables, then sentences. The default."""

from __future__ import annotations

from dataclasses import dataclass

from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.chunking.packing import Size, packed
from parkway.retrieval.chunking.unit import outline
from parkway.retrieval.document import Chunk, Parsed

_COSTS = (0.0, 0.1, 0.15, 0.3, 2.0)
"""Of a cut before a section, a block, a line, a sentence, and where there is none of these. Tuned by `evaluation`."""


@dataclass(frozen=True, slots=True)
class Structure:
    """The chunks whose cuts read best, near the target in length."""

    encoder: Encoder
    size: Size
    costs: tuple[float, ...] = _COSTS

    def __call__(self, parsed: Parsed) -> list[Chunk]:
        parts = outline(parsed, self.encoder, self.size.limit)
        units, costs = parts.units, self.costs
        return packed(parsed.text, parts, self.encoder, self.size, lambda index: costs[units[index].before])
