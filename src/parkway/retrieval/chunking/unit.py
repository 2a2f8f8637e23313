"""The smallest parts of a document that a chunk is put together from: sentences, lines of code, rows, items."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from parkway.retrieval.chunking.encoder import Encoder
from parkway.retrieval.chunking.sentence import sentences, stripped, terminated, words
from parkway.retrieval.document import Block, Parsed

SECTION, BLOCK, LINE, SENTENCE, GLUED = range(5)
"""What begins with a unit, and so how well a cut before it reads: best before a section, worst inside a sentence."""

GAP = 64  # characters of white space that weigh as much as a token: without, a chunk of blanks would have no end
_CLAUSE_TOKENS = 24
_LONGEST_HEADING = 1_000  # in characters
_LINE = re.compile(r"[^\n]+")
_ITEM = re.compile(r"\s*(?:[-*+•‣◦▪–]|\(?\w{1,3}[.)])\s")
_RULE = re.compile(r"[\s|:+=-]+")
_MOST_HEADINGS = 8
_MARKS = re.compile(r"^\s*(?:#{1,6}\s+|(?:=\s*)+)|\s+(?:#+|(?:=\s*)+)\s*$")
_UNDERLINE = re.compile(r"\n\s*([=\-~^*])\1*\s*$")


class Unit(NamedTuple):
    """One part.

    Attributes:
        start, end: Its span in the text, without white space around.
        before: What begins with it: `SECTION` to `GLUED`.
        tokens: Of it alone, without those around; of the white space before it, too.
        context: The number of its headings in `Outline.contexts`.
        page: On which it begins.
    """

    start: int
    end: int
    before: int
    tokens: int
    context: int
    page: int | None


class Outline(NamedTuple):
    """A document, taken apart.

    Attributes:
        units: In order; together they hold everything but white space.
        contexts: The headings that units stand under, with the row of column names for the later rows of a table.
        overheads: The tokens of each context, with those around a text.
    """

    units: list[Unit]
    contexts: list[tuple[str, ...]]
    overheads: list[int]


class _Part(NamedTuple):
    start: int
    end: int
    before: int
    context: tuple[str, ...]
    page: int | None


def outline(parsed: Parsed, encoder: Encoder, limit: int) -> Outline:
    """Takes a document apart.

    Args:
        limit: The most tokens of a chunk, headings and those around included. A unit is never longer than what its
            headings leave of it; they get half of it at most.
    """
    parts = list(_parts(parsed))
    contexts = list(dict.fromkeys(part.context for part in parts))
    short, overheads = _shortened(contexts, encoder, limit)
    number = {context: index for index, context in enumerate(contexts)}
    counts = encoder.count([parsed.text[part.start : part.end] for part in parts])
    units: list[Unit] = []
    end = 0
    for part, count in zip(parts, counts, strict=True):
        context = number[part.context]
        room = limit - overheads[context]
        gap = (part.start - end) // GAP
        whole = Unit(part.start, part.end, part.before, max(1, count - encoder.around), context, part.page)
        pieces = [whole] if whole.tokens <= room and _short(whole, room) else clauses(parsed.text, whole, encoder, room)
        units.append(pieces[0]._replace(tokens=min(pieces[0].tokens + gap, room)))
        units.extend(pieces[1:])
        end = part.end
    return Outline(units, short, overheads)


def clauses(text: str, unit: Unit, encoder: Encoder, room: int) -> list[Unit]:
    """A unit that is too long, in pieces between words."""
    spans = list(words(text, unit.start, unit.end))
    counts = [max(1, count - encoder.around) for count in encoder.count([text[a:b] for a, b in spans])]
    most = min(_CLAUSE_TOKENS, room)
    pieces: list[Unit] = []
    start, tokens, last = unit.start, 0, unit.start
    for (begin, end), count in zip(spans, counts, strict=True):
        weight = min(count + (begin - last) // GAP, room)  # a word of more tokens than fit is caught afterwards
        if tokens and tokens + weight > most:
            pieces.append(unit._replace(start=start, end=last, tokens=tokens, before=GLUED))
            start, tokens = begin, 0
        tokens += weight
        last = end
    pieces.append(unit._replace(start=start, end=last, tokens=tokens, before=GLUED))
    pieces[0] = pieces[0]._replace(before=unit.before)
    return pieces


def _short(unit: Unit, room: int) -> bool:
    """Whether a unit has few enough characters: to a tokenizer the longest word may be a single unknown one."""
    return unit.end - unit.start <= 16 * room


def _parts(parsed: Parsed) -> Iterator[_Part]:
    text = parsed.text
    path: list[tuple[int, str]] = []
    after_heading = False
    for block in _complete(parsed):
        heading = block.kind == "heading"
        if heading:
            path = [(level, words) for level, words in path if level < block.level][-_MOST_HEADINGS:]
        context = tuple(words for _, words in path)
        first = SECTION if heading else BLOCK
        if after_heading:
            first = GLUED
        for part in _of(block, text, context):
            yield part._replace(before=first) if first is not None else part
            first = None
        if heading:
            path.append((block.level, _words(text[block.start : block.end])))
        after_heading = heading


def _words(heading: str) -> str:
    """A heading without the marks of Markdown and its relatives."""
    return " ".join(_MARKS.sub("", _UNDERLINE.sub("", heading.strip()[:_LONGEST_HEADING])).split())


def _complete(parsed: Parsed) -> Iterator[Block]:
    """The blocks, with what stands between them and has words as paragraphs."""
    end = 0
    for block in sorted(parsed.blocks, key=lambda block: (block.start, block.end)):
        start = max(block.start, end)
        if parsed.text[end:start].strip():
            yield Block(kind="paragraph", start=end, end=start, page=block.page)
        if parsed.text[start : block.end].strip():
            yield Block(block.kind, start, block.end, block.level, block.page)
        end = max(end, block.end)
    if parsed.text[end:].strip():
        yield Block(kind="paragraph", start=end, end=len(parsed.text))


def _of(block: Block, text: str, context: tuple[str, ...]) -> Iterator[_Part]:
    if block.kind == "heading":
        spans = [(start, end, GLUED) for start, end in stripped(text, block.start, block.end)]
    elif block.kind == "table":
        yield from _table(block, text, context)
        return
    elif block.kind == "code":
        spans = list(_code(block, text))
    elif block.kind == "list":
        spans = list(_list(block, text))
    else:
        spans = list(_paragraph(block, text))
    for start, end, before in spans:
        yield _Part(start, end, before, context, block.page)


def _paragraph(block: Block, text: str) -> Iterator[tuple[int, int, int]]:
    last = None
    for start, end in sentences(text, block.start, block.end, lines=False):
        line = last is not None and "\n" in text[last:start] and terminated(text[max(0, last - 8) : last])
        yield start, end, LINE if line else SENTENCE
        last = end


def _list(block: Block, text: str) -> Iterator[tuple[int, int, int]]:
    for line in _lines(text, block):
        first = LINE if _ITEM.match(line.group()) else SENTENCE
        for start, end in sentences(text, *line.span(), lines=False):
            yield start, end, first
            first = SENTENCE


def _code(block: Block, text: str) -> Iterator[tuple[int, int, int]]:
    last = None
    for line in _lines(text, block):
        start, end = next(stripped(text, *line.span()))
        blank = last is not None and text.count("\n", last, start) > 1
        yield start, end, (LINE if line.group()[0].isspace() else BLOCK) if blank else SENTENCE
        last = end


def _table(block: Block, text: str, context: tuple[str, ...]) -> Iterator[_Part]:
    """Rows; those after the first stand under it as under a heading."""
    names = ""
    for number, line in enumerate(_lines(text, block)):
        start, end = next(stripped(text, *line.span()))
        under = number > 0 and _RULE.fullmatch(line.group())  # the rule under the names, in Markdown
        yield _Part(
            start, end, GLUED if under or number == 1 else LINE, (*context, names) if names else context, block.page
        )
        if number == 0:
            names = " ".join(line.group().split()).strip("| ")


def _lines(text: str, block: Block) -> Iterator[re.Match[str]]:
    """Those that have words."""
    return (line for line in _LINE.finditer(text, block.start, block.end) if not line.group().isspace())


def _shortened(
    contexts: list[tuple[str, ...]], encoder: Encoder, limit: int
) -> tuple[list[tuple[str, ...]], list[int]]:
    """The contexts as far as they fit into half of a chunk, without those that are too far up, and their tokens."""
    room = limit // 2
    short = list(contexts)
    while True:
        overheads = encoder.count([f"{' > '.join(context)}\n" if context else "" for context in short])
        long = [index for index, count in enumerate(overheads) if count > room and short[index]]
        if not long:
            return short, overheads
        for index in long:
            short[index] = short[index][1:]
