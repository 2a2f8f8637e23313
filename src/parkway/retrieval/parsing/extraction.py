"""What kreuzberg makes of PDF, Office and other files, as blocks."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import kreuzberg

from parkway.core.errors import Unreadable
from parkway.retrieval.document import Parsed
from parkway.retrieval.parsing.config import ParsingConfig
from parkway.retrieval.parsing.spelling import read_back, spelled
from parkway.retrieval.parsing.writing import Writer

PDF = "application/pdf"
_SOFT_HYPHEN = re.compile("[\x02\u00ad]\\s*")
_BOLD = re.compile(r"\*\*(\S[^*]*)\*\*")  # in cells alone it is marked within the text
_WORD = re.compile(r"\w+")
_LEADERS = re.compile(r"(?:\. ?){6,}")  # between a title and its page, in tables of contents
_LOST = 0.1  # share of a page's words that may be missing from its blocks before its plain text is taken instead
_FEW_LINES, _LINE = 6, 40
"""So many lines at most, of so many characters, are taken for a table where the words of a text stand by chance."""
_SENTENCE_END = tuple(".!?:;。！？")
_KNOWN = (
    ("password", "needs a password"),
    ("encrypted", "needs a password"),
    ("security limit", "is larger inside than it may be: {}"),
    ("zip", "is damaged or cut off: {}"),
    ("invalid pdf", "is damaged or cut off, or no PDF"),
)


def read_extracted(data: bytes, media_type: str, config: ParsingConfig) -> Parsed:
    """The text of a file that kreuzberg reads, block by block.

    Raises:
        Unreadable: It is damaged, locked, too long, or has nothing but pictures.
    """
    result = _extract(spelled(data, media_type), media_type)
    pages = (result.metadata.get("pages") or {}).get("total_count") or 0
    if pages > config.max_pages:
        raise Unreadable(f"has {pages:,} pages; `parsing.max_pages` allows {config.max_pages:,}")
    writer = Writer(config.max_characters)
    nodes: list[Any] = list((result.document or {}).get("nodes") or [])
    scanned: tuple[int, ...] = ()
    if media_type == PDF:
        _write_pages(writer, nodes, list(result.pages or []))
        scanned = _scanned(data, result)
    else:
        _write(writer, nodes, _slides(nodes, result))
        if not nodes and result.content.strip():
            for paragraph in result.content.split("\n\n"):
                writer.add("paragraph", _tidied(paragraph))
    return writer.parsed(
        title=html.unescape(read_back(str(result.metadata.get("title") or ""))),
        metadata=_metadata(result, pages),
        scanned_pages=scanned,
    )


def _extract(data: bytes, media_type: str, **more: Any) -> kreuzberg.ExtractionResult:
    settings = kreuzberg.ExtractionConfig(
        use_cache=False,
        enable_quality_processing=False,
        include_document_structure=True,
        output_format="markdown",  # its blocks know headings; in its `plain` they do not
        pages=kreuzberg.PageConfig(extract_pages=True),
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
        content_filter=kreuzberg.ContentFilterConfig(
            include_headers=True, include_footers=True, strip_repeating_text=False
        ),
        **more,
    )
    try:
        return kreuzberg.extract_bytes_sync(data, media_type, settings)
    except kreuzberg.KreuzbergError as error:
        raise Unreadable(_reason(str(error))) from error


def _reason(said: str) -> str:
    short = said.split("\n")[0][:300]
    for word, reason in _KNOWN:
        if word in said.lower():
            return reason.format(short)
    return f"cannot be read: {short}"


def _write(writer: Writer, nodes: Sequence[Any], slides: Iterator[int] | None = None) -> None:
    """Nodes in reading order.

    Args:
        slides: The number of the page that begins with the next heading, and so on; None: nodes say theirs themselves.
    """
    page: int | None = None
    items: list[str] = []
    for index, node in enumerate(nodes):
        content = node["content"]
        kind = content["node_type"]
        if kind != "list_item":
            _write_list(writer, items, page)
        text = _tidied(content.get("text") or "")
        heading = kind in ("heading", "title")
        if slides is not None:
            page = next(slides, page) if heading else page
        elif heading:  # of a sheet, it stands before the table that has the number
            page = next((later["page"] for later in nodes[index : index + 2] if later.get("page")), page)
        else:
            page = node.get("page") or page
        if heading:
            writer.add("heading", " ".join(text.split()), level=content.get("level") or 1, page=page)
        elif kind == "list_item":
            items.append("- " + " ".join(text.split()))
        elif kind == "table":
            writer.add_table(_rows(content["grid"]), page=page)
        elif kind == "code":
            writer.add("code", text, page=page)
        elif text:
            writer.add("paragraph", " ".join(text.split("\n")) if page is not None else text, page=page)
    _write_list(writer, items, page)


def _tidied(text: str) -> str:
    """Without hyphens at line ends and rows of dots, and as the file has it."""
    return _LEADERS.sub("… ", _SOFT_HYPHEN.sub("", read_back(text)))


def _write_list(writer: Writer, items: list[str], page: int | None) -> None:
    if items:
        writer.add("list", "\n".join(items), page=page)
        items.clear()


def _rows(grid: Any) -> Iterator[list[str]]:
    row: list[str] = []
    number = 0
    for cell in sorted(grid["cells"], key=lambda cell: (cell["row"], cell["col"])):
        if cell["row"] != number:
            yield row
            row, number = [], cell["row"]
        row.append(_BOLD.sub(r"\1", read_back(cell["content"])))
    yield row


def _slides(nodes: Sequence[Any], result: kreuzberg.ExtractionResult) -> Iterator[int] | None:
    """The numbers of slides with text: the first line of each is a heading."""
    structure = result.metadata.get("pages") or {}
    if structure.get("unit_type") != "slide":
        return None
    numbers = [page.get("number", 0) for page in structure.get("pages") or [] if not page.get("is_blank")]
    headings = sum(node["content"]["node_type"] == "heading" for node in nodes)
    return iter(numbers if len(numbers) == headings else ())


def _write_pages(writer: Writer, nodes: Sequence[Any], pages: Sequence[Any]) -> None:
    """The blocks of each page, or its plain text where the blocks have lost some of it."""
    by_page: dict[int, list[Any]] = {}
    for node in nodes:
        if (page := node.get("page")) is not None:
            by_page.setdefault(page, []).append(node)
    for page in pages:
        number, content = page["page_number"], page["content"]
        found = by_page.get(number, [])
        if _lost(content, found) <= _LOST and not any(_is_prose(node) for node in found):
            _write(writer, found)
        else:
            for paragraph in _paragraphs(_tidied(content)):
                writer.add("paragraph", paragraph, page=number)


def _is_prose(node: Any) -> bool:
    """Whether a few lines of text were taken for a table: cells then begin in the middle of sentences."""
    grid = node["content"].get("grid")
    if grid is None or grid["rows"] > _FEW_LINES:
        return False
    cells = [cell["content"].strip() for cell in grid["cells"] if cell["content"].strip()]
    going_on = sum(cell[0].islower() for cell in cells)
    return 2 * going_on >= len(cells) and sum(map(len, cells)) >= _LINE * grid["rows"]


def _lost(content: str, nodes: Sequence[Any]) -> float:
    """The share of a page's words that its blocks do not have."""
    words = Counter(_WORD.findall(_SOFT_HYPHEN.sub("", content)))
    if not words:
        return 0.0
    told = [str(node["content"].get("text") or "") for node in nodes]
    told += [
        cell["content"] for node in nodes if "grid" in node["content"] for cell in node["content"]["grid"]["cells"]
    ]
    return (words - Counter(_WORD.findall(_SOFT_HYPHEN.sub("", " ".join(told))))).total() / words.total()


def _paragraphs(content: str) -> Iterator[str]:
    """Lines put together until one that ends a sentence and is short."""
    lines = [" ".join(line.split()) for line in content.replace("\r", "").split("\n")]
    width = max(map(len, lines), default=0)
    paragraph: list[str] = []
    for line in lines:
        if line:
            paragraph.append(line)
        if paragraph and (not line or (line.endswith(_SENTENCE_END) and len(line) < 0.8 * width)):
            yield " ".join(paragraph)
            paragraph = []
    if paragraph:
        yield " ".join(paragraph)


def _scanned(data: bytes, result: kreuzberg.ExtractionResult) -> tuple[int, ...]:
    """Pages without text but with a picture. Pictures are looked at only if there are pages without text."""
    silent = {page["page_number"] for page in result.pages or [] if not page["content"].strip()}
    if not silent:
        return ()
    looked = _extract(
        data,
        PDF,
        images=kreuzberg.ImageExtractionConfig(extract_images=True),
        pdf_options=kreuzberg.PdfConfig(extract_images=True),
    )
    shown = {page["page_number"] for page in looked.pages or [] if page.get("images")}
    shown |= {image.get("page_number") for image in looked.images or []}
    return tuple(sorted(silent & shown))


def _metadata(result: kreuzberg.ExtractionResult, pages: int) -> dict[str, str]:
    found: dict[str, Any] = dict(result.metadata)
    core = found.get("core_properties")
    if isinstance(core, dict):
        found = {
            "authors": core.get("creator"),
            "created_at": core.get("created"),
            "subject": core.get("subject"),
            **found,
        }
    named = {
        "author": ", ".join(found["authors"]) if isinstance(found.get("authors"), list) else found.get("authors"),
        "subject": found.get("subject"),
        "language": found.get("language"),
        "created": found.get("created_at"),
        "pages": pages or None,
        "sheets": ", ".join(found.get("sheet_names") or []),
    }
    return {name: read_back(str(value))[:500] for name, value in named.items() if value}
