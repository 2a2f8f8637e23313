"""Units to chunks: the cuts that cost least, over the whole document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.chunking.grapheme import boundary_before
from parkway.retrieval.chunking.sentence import stripped
from parkway.retrieval.chunking.unit import Outline, Unit
from parkway.retrieval.document import Chunk, searched_text

CutCost = Callable[[int], float]
"""What a cut before a unit costs, by its number."""


@dataclass(frozen=True, slots=True)
class Size:
    """How long chunks shall be.

    Attributes:
        target: Tokens of text.
        limit: The most, headings and the encoder's own included.
        short, long: How much it costs to be below or above the target, as a share of it, squared.
    """

    target: int
    limit: int
    short: float = 1.0
    long: float = 1.0


def packed(text: str, outline: Outline, encoder: Encoder, size: Size, cut: CutCost) -> list[Chunk]:
    """Chunks of whole units."""
    units = outline.units
    groups = [units[start:end] for start, end in _cheapest(outline, size, cut)]
    return fitted(text, groups, outline.contexts, encoder, size.limit)


def fitted(
    text: str, groups: Sequence[Sequence[Unit]], contexts: Sequence[tuple[str, ...]], encoder: Encoder, limit: int
) -> list[Chunk]:
    """The groups as chunks, counted as they are embedded; one that turns out too long is halved until it fits."""
    done: list[Chunk] = []
    waiting = list(groups)
    while waiting:
        chunks = [_chunk(group, contexts) for group in waiting]
        counts = encoder.count([searched_text(chunk.headings, text[chunk.start : chunk.end]) for chunk in chunks])
        halves: list[Sequence[Unit]] = []
        for group, chunk, count in zip(waiting, chunks, counts, strict=True):
            if count <= limit:
                done.append(Chunk(chunk.start, chunk.end, chunk.headings, chunk.page, count))
            else:
                halves.extend(_halves(text, group))
        waiting = halves
    return sorted(done, key=lambda chunk: (chunk.start, chunk.end))


def _cheapest(outline: Outline, size: Size, cut: CutCost) -> list[tuple[int, int]]:
    """The best way to cut: for each unit the cheapest way to have a cut before it, from those before it.

    As Knuth and Plass break paragraphs into lines ("Breaking paragraphs into lines", 1981).
    """
    units, overheads = outline.units, outline.overheads
    least = min(overheads, default=0)
    best = [0.0] + [float("inf")] * len(units)
    origin = [0] * (len(units) + 1)
    for end in range(1, len(units) + 1):
        price = cut(end) if end < len(units) else 0.0
        tokens = 0
        for start in range(end - 1, -1, -1):
            tokens += units[start].tokens
            if tokens + least > size.limit and end - start > 1:
                break
            if tokens + overheads[units[start].context] > size.limit and end - start > 1:
                continue
            off = (tokens - size.target) / size.target
            cost = best[start] + price + off * off * (size.short if off < 0 else size.long)
            if cost < best[end]:
                best[end], origin[end] = cost, start
    spans: list[tuple[int, int]] = []
    end = len(units)
    while end:
        spans.append((origin[end], end))
        end = origin[end]
    return spans[::-1]


def _chunk(group: Sequence[Unit], contexts: Sequence[tuple[str, ...]]) -> Chunk:
    return Chunk(group[0].start, group[-1].end, contexts[group[0].context], group[0].page)


def _halves(text: str, group: Sequence[Unit]) -> list[Sequence[Unit]]:
    if len(group) > 1:
        middle = len(group) // 2
        return [group[:middle], group[middle:]]
    unit = group[0]
    middle = boundary_before(text, (unit.start + unit.end) // 2, unit.start)
    if not unit.start < middle < unit.end:
        middle = (unit.start + unit.end) // 2
    spans = [*stripped(text, unit.start, middle), *stripped(text, middle, unit.end)]
    return [[unit._replace(start=start, end=end)] for start, end in spans]
