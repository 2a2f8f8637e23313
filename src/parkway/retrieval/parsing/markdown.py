"""Markdown: headings, lists, code, tables and paragraphs, as they stand in the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from parkway.retrieval.document import Block, BlockKind, Parsed

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_LONGEST = 2_000
"""In characters; what a longer line is, its beginning says."""
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#*)?[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_INNER_FENCE = re.compile(r"(?![`~])[ \t]*+(?:(?:[-*+]|\d{1,9}[.)])[ \t]++)*+(`{3,}(?=[^`]*$)|~{3,})")
"""In an item of a list: indented, or behind its mark."""
_ITEM = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)")
_RULE = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})")
_TABLE_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")
_MATTER = re.compile(r"---[ \t]*\n((?:[^\n]*\n){0,200}?)(?:---|\.\.\.)[ \t]*(?:\n|\Z)")
_FIELD = re.compile(r"([A-Za-z][\w-]{0,40}):[ \t]*(\S.*)")


def read_markdown(text: str) -> Parsed:
    """Normalised text with its blocks. Of front matter, the lines `name: value` become metadata."""
    metadata: dict[str, str] = {}
    blocks: list[Block] = []
    start = 0
    if (matter := _MATTER.match(text)) is not None:
        start = matter.end()
        for line in matter.group(1).split("\n"):
            if (field := _FIELD.fullmatch(line.rstrip())) is not None:
                metadata[field.group(1).lower()] = field.group(2).strip("\"'")[:500]
        if matter.group(1).strip():
            blocks.append(_trimmed(text, Block("code", 0, matter.end())))
    blocks.extend(_trimmed(text, block) for block in _Reader(text, start).blocks())
    title = metadata.get("title", "") or next(
        (_words(text[block.start : block.end]) for block in blocks if block.kind == "heading"), ""
    )
    return Parsed(text, tuple(blocks), title, metadata)


def _words(heading: str) -> str:
    match = _HEADING.fullmatch(heading)
    return (match.group(2) or "") if match else heading.split("\n")[0].strip()


def _trimmed(text: str, block: Block) -> Block:
    end = block.end
    while end > block.start and text[end - 1].isspace():
        end -= 1
    return Block(block.kind, block.start, end, block.level, block.page)


class _Reader:
    """Goes through the lines once."""

    def __init__(self, text: str, start: int) -> None:
        self._lines: list[tuple[int, int, str]] = []  # start, end with the newline, text
        for line in _LINE.finditer(text, start):
            told = line.group()[:_LONGEST].rstrip("\n")
            if len(told) == _LONGEST and told.isspace():
                told = line.group().strip()[:_LONGEST]
            self._lines.append((line.start(), line.end(), told))

    def blocks(self) -> Iterator[Block]:
        at = 0
        while at < len(self._lines):
            start, end, line = self._lines[at]
            if not line.strip():
                at += 1
                continue
            level = 0
            heading = _HEADING.fullmatch(line)
            if heading is not None:
                kind, after, level = "heading", at + 1, len(heading.group(1))
            elif (fence := _FENCE.match(line)) is not None:
                kind, after = "code", self._after_fence(at, fence.group(1))
            elif line.startswith(("    ", "\t")):
                kind, after = "code", self._after_indented(at)
            elif _RULE.fullmatch(line):
                kind, after = "paragraph", at + 1
            elif _ITEM.match(line):
                kind, after = "list", self._after_list(at)
            elif self._is_table(at):
                kind, after = "table", self._after(at, lambda line: "|" in line)
            else:
                kind, after, level = self._paragraph(at)
            end = self._lines[after - 1][1]
            yield Block(kind, start, end, level)
            at = after

    def _line(self, at: int) -> str:
        return self._lines[at][2] if at < len(self._lines) else ""

    def _after(self, at: int, goes_on: Callable[[str], bool]) -> int:
        while at < len(self._lines) and self._line(at).strip() and goes_on(self._line(at)):
            at += 1
        return at

    def _after_fence(self, at: int, fence: str) -> int:
        closing = re.compile(rf" {{0,3}}{re.escape(fence[0])}{{{len(fence)},}}[ \t]*")
        for number in range(at + 1, len(self._lines)):
            if closing.fullmatch(self._line(number)):
                return number + 1
        return len(self._lines)

    def _after_indented(self, at: int) -> int:
        last = at
        while at < len(self._lines) and (not self._line(at).strip() or self._line(at).startswith(("    ", "\t"))):
            if self._line(at).strip():
                last = at
            at += 1
        return last + 1

    def _after_list(self, at: int) -> int:
        """Items, what is indented under them, and lines that go on; an empty line ends it if none of them follows."""
        first = at
        while at < len(self._lines):
            line = self._line(at)
            if (fence := _INNER_FENCE.match(line)) is not None:
                at = self._after_inner_fence(at, fence.group(1))
                continue
            if not line.strip():
                following = self._line(at + 1)
                if not (_ITEM.match(following) or (following.startswith(("  ", "\t")) and following.strip())):
                    break
            elif at > first and (_HEADING.fullmatch(line) or _FENCE.match(line) or _RULE.fullmatch(line)):
                break
            at += 1
        return at

    def _after_inner_fence(self, at: int, fence: str) -> int:
        """The code of an item; without an end it ends where nothing is indented any more."""
        closing = re.compile(rf"[ \t]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*")
        for number in range(at + 1, len(self._lines)):
            line = self._line(number)
            if closing.fullmatch(line):
                return number + 1
            if line.strip() and not line[0].isspace():
                return number
        return len(self._lines)

    def _is_table(self, at: int) -> bool:
        under = self._line(at + 1)
        return "|" in self._line(at) and "-" in under and _TABLE_RULE.fullmatch(under) is not None

    def _paragraph(self, at: int) -> tuple[BlockKind, int, int]:
        first = at
        while at < len(self._lines):
            line = self._line(at)
            if not line.strip():
                break
            if at > first:
                if (under := _UNDERLINE.fullmatch(line)) is not None:
                    return "heading", at + 1, 1 if under.group(1)[0] == "=" else 2
                if _HEADING.fullmatch(line) or _FENCE.match(line) or _RULE.fullmatch(line) or _ITEM.match(line):
                    break
                if self._is_table(at):
                    break
            at += 1
        return "paragraph", at, 0
