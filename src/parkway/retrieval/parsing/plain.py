"""Plain text: paragraphs between empty lines, lists, tables of columns, underlined headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

from parkway.retrieval.document import Block, BlockKind, Parsed

_PARAGRAPH = re.compile(r"[^\n]*\S[^\n]*(?:\n[^\n]*\S[^\n]*)*")
_ITEM = re.compile(r"\s*(?:[-*+•‣◦▪–]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])\s+\S")
_COLUMNS = re.compile(r"\S\s*(?:\||\t)\s*\S")
_UNDERLINE = re.compile(r"(=|-|~|\^|\*)\1{2,}\s*")
_WRAPPED = 120
"""In characters: where a line is longer, lines are paragraphs and nobody has wrapped them."""


def read_plain(text: str) -> Parsed:
    """Normalised text with its blocks."""
    blocks: list[Block] = []
    for match in _PARAGRAPH.finditer(text):
        blocks.extend(_blocks(match.start(), match.group().split("\n")))
    title = text[blocks[0].start : blocks[0].end].strip() if blocks and blocks[0].kind == "heading" else ""
    return Parsed(text, tuple(blocks), title)


def _blocks(start: int, lines: list[str]) -> Iterator[Block]:
    if len(lines) > 1 and _UNDERLINE.fullmatch(lines[1]) and len(lines[1].rstrip()) >= len(lines[0].strip()) > 0:
        end = start + len(lines[0]) + 1 + len(lines[1])
        yield Block("heading", start, end, 1 if lines[1][0] in "=*" else 2)
        start, lines = end + 1, lines[2:]
    kinds: list[BlockKind] = [_kind(line) for line in lines]
    for index, kind in enumerate(kinds):  # what goes on under an item belongs to it; a line alone is no table
        if kind == "paragraph" and index and kinds[index - 1] == "list" and lines[index][0].isspace():
            kinds[index] = "list"
        if kind == "table" and "table" not in (*kinds[max(0, index - 1) : index], *kinds[index + 1 : index + 2]):
            kinds[index] = "paragraph"
    at = 0
    for kind, group in groupby(kinds):
        count = len(list(group))
        part = lines[at : at + count]
        at += count
        unwrapped = kind == "paragraph" and max(map(len, part)) > _WRAPPED
        for piece in part if unwrapped else ["\n".join(part)]:
            yield Block(kind, start, start + len(piece))
            start += len(piece) + 1


def _kind(line: str) -> BlockKind:
    if _ITEM.match(line):
        return "list"
    return "table" if _COLUMNS.search(line) else "paragraph"
