"""Bytes to text with blocks. It runs where it may crash: see `sandbox`."""

from __future__ import annotations

from parkway.core.errors import Unreadable
from parkway.retrieval.document import Parsed
from parkway.retrieval.parsing import kind
from parkway.retrieval.parsing.config import ParsingConfig
from parkway.retrieval.parsing.data import read_csv, read_json, read_json_lines
from parkway.retrieval.parsing.encoding import Decoded, decode
from parkway.retrieval.parsing.extraction import read_extracted
from parkway.retrieval.parsing.html import read_html, said_encoding
from parkway.retrieval.parsing.markdown import read_markdown
from parkway.retrieval.parsing.plain import read_plain
from parkway.retrieval.parsing.source import language_of, read_source
from parkway.retrieval.parsing.writing import check_length, normalised


def parse(data: bytes, name: str, media_type: str, config: ParsingConfig) -> Parsed:
    """The text of a file.

    Args:
        name: Of the file; its ending helps to tell what it is.
        media_type: As the sender has it, with a `charset` perhaps; may be empty.

    Raises:
        Unreadable: With the reason.
    """
    if not data:
        raise Unreadable("is empty")
    what = kind.kind_of(data, name, media_type, 4 * config.max_bytes)
    extracted = "/" in what
    parsed = read_extracted(data, what, config) if extracted else _read_text(data, what, name, media_type, config)
    if not parsed.text.strip():
        raise Unreadable(_silence(parsed))
    return parsed


def _read_text(data: bytes, what: str, name: str, media_type: str, config: ParsingConfig) -> Parsed:
    said = _charset(media_type) or (said_encoding(data) if what == kind.HTML or data.startswith(b"<?xml") else "")
    decoded = decode(data, said=said)
    check_length(len(decoded.text), config.max_characters)
    most = config.max_characters
    # Of values, what the writer normalises: a line separator in one of them ends no record.
    text = decoded.text if what in (kind.CSV, kind.JSON, kind.JSON_LINES) else normalised(decoded.text)
    if what == kind.HTML:
        parsed = read_html(text, most)
    elif what == kind.CSV:
        parsed = read_csv(text, most)
    elif what == kind.JSON:
        parsed = read_json(text, most)
    elif what == kind.JSON_LINES:
        parsed = read_json_lines(text, most)
    elif what == kind.MARKDOWN:
        parsed = read_markdown(text)
    elif what == kind.SOURCE:
        parsed = read_source(text, language_of(name) or "")
    else:
        parsed = read_plain(text)
    return _with_encoding(parsed, decoded)


def _with_encoding(parsed: Parsed, decoded: Decoded) -> Parsed:
    encoding = f"{decoded.encoding} (guessed)" if decoded.guessed else decoded.encoding
    return Parsed(
        parsed.text, parsed.blocks, parsed.title, {**parsed.metadata, "encoding": encoding}, parsed.scanned_pages
    )


def _charset(media_type: str) -> str:
    for parameter in media_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip("\"'")
    return ""


def _silence(parsed: Parsed) -> str:
    pages = parsed.scanned_pages
    if not pages:
        return "has no text"
    return f"is scanned: {page_ranges(pages)} {'has' if len(pages) == 1 else 'have'} a picture and no text"


def page_ranges(pages: tuple[int, ...]) -> str:
    """`page 3`, `pages 1-4, 7`."""
    ranges: list[list[int]] = []
    for page in pages:
        if ranges and ranges[-1][1] == page - 1:
            ranges[-1][1] = page
        else:
            ranges.append([page, page])
    told = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:20]]
    return f"{'page' if len(pages) == 1 else 'pages'} {', '.join(told)}{', ...' if len(ranges) > 20 else ''}"
