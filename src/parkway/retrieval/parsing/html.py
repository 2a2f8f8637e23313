"""HTML: what a reader of the page would read, without scripts, navigation and other furniture."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from parkway.core.errors import Unreadable
from parkway.retrieval.document import BlockKind, Parsed
from parkway.retrieval.parsing.writing import Writer

_SKIPPED_TAGS = (
    "script style noscript template svg math iframe object canvas audio video select button textarea"
    " nav aside footer dialog"
)
_SKIPPED = frozenset(_SKIPPED_TAGS.split())
_BLOCK_TAGS = (
    "address article aside blockquote body caption center dd details div dl dt fieldset figcaption figure footer form"
    " header hgroup hr html legend li main menu ol p pre section summary table tbody tfoot thead title tr ul"
)
_BLOCKS = frozenset(_BLOCK_TAGS.split())
_VOID_TAGS = "area base br col embed hr img input link meta source track wbr"
_VOID = frozenset(_VOID_TAGS.split())
_LISTS = frozenset(("ul", "ol", "menu", "dl"))
_HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_ENDS_PARAGRAPH = _BLOCKS | _HEADINGS
_MAX_DEPTH = 1_000
_LONGEST_TAG = 100_000
"""In characters. A tag or comment that is longer and never ends is left out, as browsers do."""
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w.:-]{1,40})", re.IGNORECASE)
_LEAST_ARTICLE = 0.3
"""Of a page's text, in its one `article`, for the page to be about that; with less it is a teaser or the like."""
_SPACE = re.compile(r"[ \t\n\r\f]+")


def said_encoding(data: bytes) -> str:
    """The encoding that the page itself names; empty if none."""
    match = _CHARSET.search(data[:4096]) or _XML_ENCODING.search(data[:400])
    return match.group(1).decode("ascii", "replace") if match else ""


def read_html(text: str, most: int) -> Parsed:
    """The page's text, block by block. If it has a `main` part, or one `article` with much of the text, only that.

    Args:
        most: Characters.
    """
    main = _main_part(text)
    part = None if main is None else _read(text, most, main)
    if part is not None and part.text and main == "main":
        return part
    whole = _read(text, most, None)
    return part if part is not None and len(part.text) > _LEAST_ARTICLE * len(whole.text) else whole


def _read(text: str, most: int, main: str | None) -> Parsed:
    reader = _Reader(most, main)
    reader.feed(text)
    if len(reader.rawdata) < _LONGEST_TAG:
        reader.close()  # what was not ended is looked at again, from each of its marks on
    return reader.finish()


def _main_part(text: str) -> str | None:
    if re.search(r"<main[\s>]", text, re.IGNORECASE):
        return "main"
    return "article" if len(re.findall(r"<article[\s>]", text, re.IGNORECASE)) == 1 else None


class _Reader(HTMLParser):
    def __init__(self, most: int, main: str | None) -> None:
        super().__init__(convert_charrefs=True)
        self._writer = Writer(most)
        self._most = most
        self._main = main
        self._open: list[str] = []
        self._skipped: int | None = None  # where in `_open` the element is that is left out, with all in it
        self._in_main = 0
        self._kind: BlockKind = "paragraph"
        self._level = 0
        self._inline: list[str] = []
        self._length = 0
        self._items: list[str] = []
        self._lists = 0
        self._pre = 0
        self._in_title = False
        self._title = ""
        self._description = ""
        self._language = ""
        self._rows: list[list[str]] | None = None
        self._tables = 0
        self._cell = False

    def finish(self) -> Parsed:
        self._close_table()
        self._close_block()
        self._close_list()
        metadata = {"language": self._language, "description": self._description}
        return self._writer.parsed(title=self._title, metadata={name: v[:500] for name, v in metadata.items() if v})

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag not in _VOID:
            self._push(tag)
        if self._skipped is not None:
            return
        if tag == "html":
            self._language = attributes.get("lang") or ""
        if tag == "meta" and (attributes.get("name") or "").lower() == "description":
            self._description = attributes.get("content") or ""
        if not self._is_skipped(tag, attributes):
            self._begin(tag, attributes)
        elif tag not in _VOID:
            self._skipped = len(self._open) - 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        """Ends the element, with what was left open in it, be it left out or not."""
        if tag in self._open[-50:] or (self._skipped is not None and tag == self._open[self._skipped]):
            while self._pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self._title += data[: 500 - len(self._title)]
            return
        if self._skipped is not None or (self._main is not None and not self._in_main):
            return
        self._length += len(data)
        if self._length > 2 * self._most:
            raise Unreadable(f"has more than {self._most:,} characters of text")
        self._inline.append(data if self._pre else _SPACE.sub(" ", data))

    def _is_skipped(self, tag: str, attributes: dict[str, str | None]) -> bool:
        if tag in _SKIPPED or "hidden" in attributes or attributes.get("aria-hidden") == "true":
            return True
        if tag == "header":  # outside of the text proper it is the site's
            return not self._in_main and not {"article", "main", "section"} & set(self._open[-20:])
        return attributes.get("role") in ("navigation", "banner", "contentinfo", "search")

    def _push(self, tag: str) -> None:
        if tag == "li" and "li" in self._open and self._open[-1] not in _LISTS:
            self._implied_end("li", _LISTS)
        elif tag in ("dt", "dd"):
            self._implied_end("dt", _LISTS)
            self._implied_end("dd", _LISTS)
        elif tag in ("option", "optgroup"):
            self._implied_end("option", ("select", "datalist"))
        elif tag in ("td", "th"):
            self._implied_end("td", ("tr", "table"))
            self._implied_end("th", ("tr", "table"))
        elif tag == "tr":
            self._implied_end("tr", ("table",))
            self._implied_end("caption", ("table",))
        elif tag in _ENDS_PARAGRAPH:
            self._implied_end("p", ("td", "th", "table", "caption", "button"))
        if len(self._open) >= _MAX_DEPTH:
            if self._skipped is not None:
                return
            raise Unreadable(f"has elements more than {_MAX_DEPTH:,} deep")
        self._open.append(tag)

    def _pop(self) -> str:
        """Ends the innermost element."""
        tag = self._open.pop()
        if self._skipped is None:
            self._end(tag)
        elif len(self._open) == self._skipped:
            self._skipped = None
        return tag

    def _implied_end(self, tag: str, within: frozenset[str] | tuple[str, ...]) -> None:
        """Ends the open `tag`, as its next sibling does without saying so."""
        for index in range(len(self._open) - 1, max(-1, len(self._open) - 30), -1):
            if self._open[index] in within:
                return
            if self._open[index] == tag:
                while len(self._open) > index:
                    self._pop()
                return

    def _begin(self, tag: str, attributes: dict[str, str | None]) -> None:
        if tag == "title" and not self._title:
            self._in_title = True
        elif tag == self._main:
            self._in_main += 1
        elif tag == "br":
            self._inline.append("\n")
        elif tag == "img" and (alternative := attributes.get("alt")):
            self.handle_data(f" {alternative} ")
        elif tag == "table":
            self._tables += 1
            if self._tables == 1:
                self._close_block()
                self._close_list()
                self._rows = []
        elif tag == "tr" and self._rows is not None and self._tables == 1:
            self._rows.append([])
        elif tag in ("td", "th") and self._rows is not None and self._tables == 1:
            self._outside_cells()
            self._cell = True
        elif self._rows is not None:
            self._inline.append(" ")
        elif tag in _LISTS:
            self._close_block()
            self._lists += 1
        elif tag == "pre":
            self._close_block()
            self._kind, self._pre = "code", self._pre + 1
        elif self._pre:
            self._new_line(tag)
        elif tag in _HEADINGS:
            self._close_block()
            self._close_list()
            self._kind, self._level = "heading", int(tag[1])
        elif tag in _BLOCKS:
            self._close_block()

    def _end(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif tag == self._main:
            self._close_block()
            self._in_main -= 1
        elif tag == "table":
            self._tables -= 1
            if self._tables == 0:
                self._close_table()
        elif tag in ("td", "th") and self._rows is not None and self._tables == 1:
            self._close_cell()
        elif tag == "caption" and self._rows is not None and self._tables == 1:
            self._outside_cells()
        elif self._rows is not None:
            if tag in _BLOCKS:
                self._inline.append(" ")
        elif tag in _LISTS:
            self._close_block()
            self._lists = max(0, self._lists - 1)
            if self._lists == 0:
                self._close_list()
        elif self._pre and tag != "pre":
            self._new_line(tag)
        elif tag in _ENDS_PARAGRAPH:
            self._close_block()
            self._pre -= tag == "pre"
            self._kind, self._level = "paragraph", 0

    def _new_line(self, tag: str) -> None:
        """Of code, where a block begins or ends in it."""
        if tag in _ENDS_PARAGRAPH and self._inline and not self._inline[-1].endswith("\n"):
            self._inline.append("\n")

    def _outside_cells(self) -> None:
        """What a table says there, as its caption, stands before it."""
        self._writer.add("paragraph", _SPACE.sub(" ", "".join(self._inline)))
        self._inline = []

    def _close_cell(self) -> None:
        if not self._cell:
            self._outside_cells()
        elif self._rows:
            self._rows[-1].append("".join(self._inline))
        self._inline, self._cell = [], False

    def _close_table(self) -> None:
        if self._rows is not None:
            self._close_cell()
            self._writer.add_table(self._rows)
            self._rows = None

    def _close_block(self) -> None:
        if self._rows is not None:
            return
        text = "".join(self._inline)
        self._inline = []
        if not text.strip():
            return
        if self._kind != "code":
            text = "\n".join(line.strip() for line in text.strip().split("\n"))
        if self._kind == "heading":
            text = " ".join(text.split())
        if self._lists and self._kind == "paragraph":
            self._items.append(f"{'  ' * min(self._lists - 1, 8)}- {' '.join(text.split())}")
            return
        self._close_list()
        self._writer.add(self._kind, text, level=self._level)

    def _close_list(self) -> None:
        if self._items:
            self._writer.add("list", "\n".join(self._items))
            self._items = []
