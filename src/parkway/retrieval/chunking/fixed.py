"""Chunks of so many tokens, whatever stands there: the measure of the others, and the one with overlap."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.chunking.packing import fitted
from parkway.retrieval.chunking.sentence import words
from parkway.retrieval.chunking.unit import GAP, GLUED, Unit
from parkway.retrieval.document import Chunk, Parsed


@dataclass(frozen=True, slots=True)
class Fixed:
    """Cuts between words.

    Attributes:
        tokens: Of a chunk, the encoder's own included.
        overlap: Tokens at its beginning that the one before has, too.
    """

    encoder: Encoder
    tokens: int
    overlap: int = 0

    def __call__(self, parsed: Parsed) -> list[Chunk]:
        units = self._words(parsed)
        room = self.tokens - self.encoder.around
        groups: list[list[Unit]] = []
        start = 0
        while start < len(units):
            end, tokens = start, 0
            while end < len(units) and (end == start or tokens + units[end].tokens <= room):
                tokens += units[end].tokens
                end += 1
            groups.append(units[start:end])
            if end == len(units):
                break
            shared, most = 0, min(self.overlap, room - units[end].tokens)
            start, first = end, start
            while start - 1 > first and shared + units[start - 1].tokens <= most:
                start -= 1
                shared += units[start].tokens
        chunks = fitted(parsed.text, groups, [()], self.encoder, self.tokens)
        return self._in_order(parsed.text, chunks) if self.overlap else chunks

    def _in_order(self, text: str, chunks: list[Chunk]) -> list[Chunk]:
        """Without what the overlap says twice of chunks that turned out too long and were cut once more."""
        kept: list[Chunk] = []
        for chunk in chunks:
            if kept and (chunk.start <= kept[-1].start or chunk.end <= kept[-1].end):
                if chunk.end <= (done := kept[-1].end):
                    continue
                start = done + len(text[done : chunk.end]) - len(text[done : chunk.end].lstrip())
                (tokens,) = self.encoder.count([text[start : chunk.end]])
                chunk = msgspec.structs.replace(chunk, start=start, tokens=tokens)
            kept.append(chunk)
        return kept

    def _words(self, parsed: Parsed) -> list[Unit]:
        text = parsed.text
        spans = list(words(text, 0, len(text)))
        counts = self.encoder.count([text[start:end] for start, end in spans])
        pages = iter(sorted((block.start, block.page) for block in parsed.blocks if block.page is not None))
        begins, number = next(pages, (len(text), None))
        page: int | None = None
        units: list[Unit] = []
        last = 0
        for (start, end), count in zip(spans, counts, strict=True):
            while start >= begins:
                page = number
                begins, number = next(pages, (len(text), None))
            tokens = max(1, count - self.encoder.around) + (start - last) // GAP
            units.append(Unit(start, end, GLUED, tokens, 0, page))
            last = end
        return units
