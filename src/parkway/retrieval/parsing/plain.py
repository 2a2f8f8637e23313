"""Plain text: paragraphs between empty lines, lists, tables of columns, underlined headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby, zip_longest

from parkway.retrieval.document import Block, BlockKind, Parsed

_ITEM = re.compile(r"\s*(?:[-*+•‣◦▪–]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])\s+\S")
_COLUMNS = re.compile(r"\S\s*(?:\||\t)\s*\S")
_UNDERLINE = re.compile(r"(=|-|~|\^|\*)\1{2,}\s*")
_WIKI = re.compile(r"\s{0,3}((?:= ){1,5}=|={1,6})\s+(\S.*?)\s+\1\s*")
_TITLE = re.compile(r"(?![a-z_])\w.{0,60}?\w\w.{0,60}")
_NO_TITLE_END = tuple(".,;:!?…。，；：！？-–—")
_TITLE_WORDS = 12
_TITLE_LEVEL = 3  # below what is marked as a heading
_BEGINNING = 1_000  # characters of a line that are looked at for columns
_WRAPPED = 120
"""In characters: where a line is longer, lines are paragraphs and nobody has wrapped them."""


def read_plain(text: str) -> Parsed:
    """Normalised text with its blocks."""
    blocks: list[Block] = []
    start = 0
    for spoken, group in groupby(text.split("\n"), lambda line: bool(line) and not line.isspace()):
        lines = list(group)
        if spoken:
            blocks.extend(_blocks(start, lines))
        start += sum(map(len, lines)) + len(lines)
    blocks = [_titled(text, block, after) for block, after in zip_longest(blocks, blocks[1:])]
    title = text[blocks[0].start : blocks[0].end] if blocks and blocks[0].kind == "heading" else ""
    return Parsed(text, tuple(blocks), heading_words(title))


def heading_words(heading: str) -> str:
    """A heading without what marks it as one."""
    wiki = _WIKI.fullmatch(heading)
    return wiki.group(2) if wiki is not None else " ".join(heading.split("\n")[0].split())


def _blocks(start: int, lines: list[str]) -> Iterator[Block]:
    """The blocks of lines without an empty one among them."""
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
        unwrapped = kind == "heading" or (kind == "paragraph" and max(map(len, part)) > _WRAPPED)
        for piece in part if unwrapped else ["\n".join(part)]:
            wiki = _WIKI.fullmatch(piece) if kind == "heading" else None
            level = wiki.group(1).count("=") if wiki is not None else 0
            yield Block(kind, start, start + len(piece), level)
            start += len(piece) + 1


def _titled(text: str, block: Block, after: Block | None) -> Block:
    """A short line that nothing ends, before a paragraph that is longer, is a heading."""
    if block.kind != "paragraph" or after is None or after.kind != "paragraph" or block.end - block.start > 90:
        return block
    line = text[block.start : block.end].strip()
    is_title = (
        after.end - after.start > 2 * len(line)
        and _TITLE.fullmatch(line)
        and not line.endswith(_NO_TITLE_END)
        and len(line.split()) <= _TITLE_WORDS
    )
    return Block("heading", block.start, block.end, _TITLE_LEVEL) if is_title else block


def _kind(line: str) -> BlockKind:
    if len(line) <= _WRAPPED and _WIKI.fullmatch(line):
        return "heading"
    if _ITEM.match(line):
        return "list"
    return "table" if _COLUMNS.search(line[:_BEGINNING]) else "paragraph"
