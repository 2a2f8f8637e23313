"""What is read of each kind of file."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parkway.core.errors import Unreadable
from parkway.retrieval.document import Parsed
from parkway.retrieval.parsing.config import ParsingConfig
from parkway.retrieval.parsing.parser import page_ranges, parse
from tests.retrieval.parsing import files

CONFIG = ParsingConfig()


def read(data: bytes | str, name: str, media_type: str = "") -> Parsed:
    parsed = parse(data.encode() if isinstance(data, str) else data, name, media_type, CONFIG)
    check(parsed)
    return parsed


def check(parsed: Parsed) -> None:
    """Blocks come in order, do not overlap, and hold everything but white space."""
    end = 0
    for block in parsed.blocks:
        assert end <= block.start < block.end <= len(parsed.text)
        assert not parsed.text[end : block.start].strip()
        end = block.end
    assert not parsed.text[end:].strip()


def told(parsed: Parsed) -> list[tuple[str, str]]:
    return [(block.kind, parsed.text[block.start : block.end]) for block in parsed.blocks]


def test_plain_text_has_paragraphs_lists_tables_and_underlined_headings() -> None:
    parsed = read(
        "Title\n=====\n\nOne line\nand the next.\n\n- a\n- b\n  of b\n\n"
        "x | y\n1 | 2\n\nA | alone.\n\nPart\n----\nText.",
        "a.txt",
    )
    assert told(parsed) == [
        ("heading", "Title\n====="),
        ("paragraph", "One line\nand the next."),
        ("list", "- a\n- b\n  of b"),
        ("table", "x | y\n1 | 2"),
        ("paragraph", "A | alone."),
        ("heading", "Part\n----"),
        ("paragraph", "Text."),
    ]
    assert [block.level for block in parsed.blocks if block.kind == "heading"] == [1, 2]


def test_lines_that_nobody_wrapped_are_paragraphs() -> None:
    long = "word " * 40
    assert len(read(f"{long}\n{long}\n{long}", "a.txt").blocks) == 3


def test_markdown() -> None:
    parsed = read(
        "---\ntitle: The guide\ntags: [a]\n---\n# Guide #\n\nText of it\nin two lines.\n\n"
        "Sub\n---\n\n* one\n\n  more of one\n* two\nstill two\n\n"
        "```python\n# no heading\n\nx = 1\n```\n\n| a | b |\n|---|:-:|\n| 1 | 2 |\nEnd.\n\n"
        "    code\n\n***\n#no heading",
        "README.md",
    )
    assert parsed.title == "The guide"
    assert parsed.metadata["title"] == "The guide"
    assert told(parsed)[1:] == [
        ("heading", "# Guide #"),
        ("paragraph", "Text of it\nin two lines."),
        ("heading", "Sub\n---"),
        ("list", "* one\n\n  more of one\n* two\nstill two"),
        ("code", "```python\n# no heading\n\nx = 1\n```"),
        ("table", "| a | b |\n|---|:-:|\n| 1 | 2 |"),
        ("paragraph", "End."),
        ("code", "    code"),
        ("paragraph", "***"),
        ("paragraph", "#no heading"),
    ]
    assert [block.level for block in parsed.blocks if block.kind == "heading"] == [1, 2]


def test_a_fence_that_is_never_closed_goes_on_to_the_end() -> None:
    assert told(read("~~~\n# a\n\nb", "a.md")) == [("code", "~~~\n# a\n\nb")]


@pytest.mark.parametrize(
    "item",
    [
        "- Install:\n\n  ```sh\n  # a comment\n  x\n\n  # another\n  y\n  ```",
        "1. Do\n   ~~~\n   # a comment\n   ~~~\n2. more",
        "- ```sh\n  # a comment\n  ```",
        "- a\n  ```\n  # never closed\n- b",
    ],
)
def test_code_in_a_list_has_no_headings(item: str) -> None:
    parsed = read(f"{item}\n\n# Heading\n\nText.", "a.md")
    assert told(parsed) == [("list", item), ("heading", "# Heading"), ("paragraph", "Text.")]


def test_line_separators_within_values_end_no_record() -> None:
    assert told(read('{"a": "x\u2028y"}\n{"a": "z\x85w"}', "a.jsonl")) == [
        ("paragraph", "a: x\ny"),
        ("paragraph", "a: z\nw"),
    ]
    assert told(read('{"a": "x\u2028y"}', "a.json")) == [("paragraph", "a: x\ny")]
    assert told(read("a,b\rx\u2028y,z\r", "a.csv")) == [("table", "a | b\nx y | z")]


def test_html_has_the_text_that_a_reader_sees() -> None:
    parsed = read(
        "<!doctype html><html lang=de><head><title>T &amp; x</title><script>alert('no')</script>"
        "<style>no{}</style></head>"
        "<body><nav><ul><li>no</ul></nav><header>no</header><main><h1>Head <em>x</em></h1>"
        "<p>One with <b>bold</b>, <code>c_d</code> and <a href='http://x.y'>a <i>link</i></a>. &lt;tag&gt;<br>new line"
        "<h2>Sub</h2><ol><li>a<li>b<ul><li>nested</ul></ol>"
        "<table><tr><th>x<th>y<tr><td>1 <b>k</b></td><td>2<table><tr><td>in</table></td></tr></table>"
        "<pre><code>def f():\n    pass\n</code></pre><div>div<p>last</p></div><span hidden>no</span></main>"
        "<footer>no</footer></body></html>",
        "a.html",
    )
    assert told(parsed) == [
        ("heading", "Head x"),
        ("paragraph", "One with bold, c_d and a link. <tag>\nnew line"),
        ("heading", "Sub"),
        ("list", "- a\n- b\n  - nested"),
        ("table", "x | y\n1 k | 2 in"),
        ("code", "def f():\n    pass"),
        ("paragraph", "div"),
        ("paragraph", "last"),
    ]
    assert parsed.title == "T & x"
    assert parsed.metadata["language"] == "de"


def test_html_without_a_main_part_is_read_whole() -> None:
    assert told(read("<p>one<p>two<section><header><h2>h</h2></header>x</section>", "a.html")) == [
        ("paragraph", "one"),
        ("paragraph", "two"),
        ("heading", "h"),
        ("paragraph", "x"),
    ]


@pytest.mark.parametrize(
    ("page", "texts"),
    [
        ("<p hidden>no<p>yes<p>more", ["yes", "more"]),
        ("<div><nav><ul><li>no</ul></div><p>yes", ["yes"]),
        ("<ul><li hidden>no<li>yes</ul>", ["- yes"]),
        ("<table><tr><td hidden>no<td>yes</table>", ["yes"]),
        ("<nav><div><nav>no</nav>no</div></nav>yes", ["yes"]),
        ("<select><option>no<option>no</select>yes", ["yes"]),
        ("<form><h1>yes</h1><select><option>no</select><button>no</button></form>", ["yes"]),
        ("<table><caption>yes<tr><td>a</table>", ["yes", "a"]),
        ("<table>yes<tr><td>a</td>too<td>b</table>", ["yes", "too", "a | b"]),
        ("<p>yes " + "word " * 20 + "</p><article>teaser</article>", ["yes" + " word" * 20, "teaser"]),
    ],
)
def test_html_loses_nothing_to_what_is_left_out(page: str, texts: list[str]) -> None:
    assert [text for _, text in told(read(page, "a.html"))] == texts


def test_html_may_leave_out_the_ends_of_elements() -> None:
    for page in ("<dl>" + "<dt>a<dd>b" * 700, "<p><b>a" * 1_400, "<ruby>a<rt>b</ruby>" * 1_400):
        assert read(page, "a.html").text.count("a") in (700, 1_400)


def test_html_keeps_the_lines_of_code_in_one_block() -> None:
    page = "<pre><div>def f():</div><div>    return 1</div>x = 2</pre>end"
    assert told(read(page, "a.html")) == [("code", "def f():\n    return 1\nx = 2"), ("paragraph", "end")]


def test_tables_may_be_wide() -> None:
    cells = [f"c{number}" for number in range(10_000)]
    for data, name in ((",".join(cells), "a.csv"), ("<table><tr><td>" + "<td>".join(cells), "a.html")):
        assert read(data, name).text == " | ".join(cells)


def test_json_keeps_what_is_said_twice() -> None:
    assert told(read('{"a": 1, "b": {"c": 2, "c": [3, 4]}, "a": 5}', "a.json")) == [
        ("paragraph", "a: 1, 5"),
        ("paragraph", "b.c: 2\nb.c: 3, 4"),
    ]


def test_html_says_its_own_encoding() -> None:
    parsed = read("<meta charset=iso-8859-1><p>Größe</p>".encode("latin-1"), "a.html")
    assert parsed.text == "Größe"
    assert parsed.metadata["encoding"] == "cp1252"


def test_csv_is_a_table_whatever_parts_its_columns() -> None:
    assert told(read('name;note\nann;"two\nlines; one cell"\n\nbob;5\n', "a.csv")) == [
        ("table", "name | note\nann | two lines; one cell\nbob | 5")
    ]
    assert told(read("a\tb\n1\t2\n", "a.tsv")) == [("table", "a | b\n1 | 2")]


def test_json_says_the_way_to_each_value() -> None:
    parsed = read('{"a": 1.50, "b": {"c": [1, 2], "d": null}, "list": [{"x": "y\\ud800"}, {"x": true}]}', "a.json")
    assert told(parsed) == [
        ("paragraph", "a: 1.50"),
        ("paragraph", "b.c: 1, 2\nb.d: null"),
        ("paragraph", "list.x: y�"),
        ("paragraph", "list.x: true"),
    ]
    assert told(read("[1, 2, 3]", "a.json")) == [("paragraph", "1, 2, 3")]


def test_json_lines_have_a_paragraph_each() -> None:
    assert told(read('{"a": 1}\n\n{"a": [{"b": 2}]}', "a.jsonl")) == [("paragraph", "a: 1"), ("paragraph", "a.b: 2")]
    assert len(read('{"a": 1}\n{"a": 2}', "a.json").blocks) == 2


def test_program_text_is_parted_where_definitions_begin() -> None:
    parsed = read("import x\n\n\n# why\ndef f():\n    a\n\n    b\n\n\nclass A:\n    pass\n", "a.py")
    assert told(parsed) == [
        ("code", "import x"),
        ("code", "# why\ndef f():\n    a\n\n    b"),
        ("code", "class A:\n    pass"),
    ]
    assert parsed.metadata["language"] == "python"


def test_word() -> None:
    body = files.paragraph("Top", "Heading1") + files.paragraph("First, ünï.") + files.paragraph("Sub", "Heading2")
    body += files.word_table([("Name", "Age"), ("Ann", "3")]) + files.paragraph("End.")
    parsed = read(files.docx(body), "a.docx")
    assert told(parsed) == [
        ("heading", "Top"),
        ("paragraph", "First, ünï."),
        ("heading", "Sub"),
        ("table", "Name | Age\nAnn | 3"),
        ("paragraph", "End."),
    ]
    assert parsed.blocks[0].level < parsed.blocks[2].level


def test_a_workbook_has_a_heading_and_a_table_for_each_sheet() -> None:
    parsed = read(files.xlsx({"People": [("Name", "Age"), ("Ann", 3)], "More": [("x",), (4.5,)]}), "a.xlsx")
    assert told(parsed) == [
        ("heading", "People"),
        ("table", "Name | Age\nAnn | 3"),
        ("heading", "More"),
        ("table", "x\n4.5"),
    ]
    assert [block.page for block in parsed.blocks] == [1, 1, 2, 2]


def test_a_presentation_has_its_slides_as_pages() -> None:
    parsed = read(files.pptx([("One", ["a", "b"]), ("", []), ("Three", ["c"])]), "a.pptx")
    assert told(parsed) == [
        ("heading", "One"),
        ("paragraph", "a"),
        ("paragraph", "b"),
        ("heading", "Three"),
        ("paragraph", "c"),
    ]
    assert [block.page for block in parsed.blocks] == [1, 1, 1, 3, 3]


def test_word_keeps_what_xml_spells_otherwise() -> None:
    """kreuzberg 4.10 drops references, and joins what tabs and hyphens part."""
    run = "<w:r><w:t>Name:</w:t><w:tab/><w:t>Ann</w:t><w:noBreakHyphen/><w:t>Lee</w:t><w:cr/><w:t>next</w:t></w:r>"
    stops = '<w:pPr><w:tabs><w:tab w:val="left" w:pos="720"/></w:tabs></w:pPr>'
    said = "AT&amp;T: a &lt; b &gt; &quot;c&quot; &apos;d&apos;, x&#160;y &#x3c;T&#62; &amp;lt;"
    body = files.paragraph("Q&amp;A", "Heading1") + files.paragraph(said) + f"<w:p>{stops}{run}</w:p>"
    core = (
        '<cp:coreProperties xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties"'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Terms &amp; more</dc:title></cp:coreProperties>'
    )
    parsed = read(
        files.docx(body + files.word_table([("R&amp;D", "List&lt;T&gt;")]), more={"docProps/core.xml": core}), "a.docx"
    )
    assert told(parsed) == [
        ("heading", "Q&A"),
        ("paragraph", "AT&T: a < b > \"c\" 'd', x\xa0y <T> &lt;"),
        ("paragraph", "Name:\tAnn\u2011Lee\nnext"),
        ("table", "R&D | List<T>"),
    ]
    assert parsed.title == "Terms & more"


def test_a_damaged_picture_costs_no_text() -> None:
    picture = bytes(range(256)) * 8
    data = bytearray(files.docx(files.paragraph("Q&amp;A"), more={"word/media/image1.png": picture}))
    place = data.index(b"image1.png") + 60
    data[place : place + 40] = bytes(40)
    assert read(bytes(data), "a.docx").text == "Q&A"


def test_slides_have_no_marks_of_bold_type() -> None:
    plain = files.pptx([("One", ["first", "second"])])
    styled = files.respelled(plain, "ppt/slides/slide1.xml", "<a:r><a:t>first", '<a:r><a:rPr b="1" u="sng"/><a:t>first')
    assert told(read(styled, "a.pptx")) == [("heading", "One"), ("paragraph", "first"), ("paragraph", "second")]


def test_paragraphs_of_a_cell_stay_apart() -> None:
    row = "<table:table-cell><text:p>one</text:p><text:p>two<text:s/>more</text:p></table:table-cell>"
    table = f"<table:table><table:table-row>{row}{row}</table:table-row></table:table>"
    parsed = read(files.odt(f"<text:p>Before.</text:p>{table}<text:p>After.</text:p>"), "a.odt")
    assert told(parsed) == [
        ("paragraph", "Before."),
        ("table", "one two more | one two more"),
        ("paragraph", "After."),
    ]


def test_other_formats_of_text() -> None:
    odt = files.odt('<text:h text:outline-level="1">Head</text:h><text:p>Text.</text:p>')
    assert told(read(odt, "a.odt")) == [("heading", "Head"), ("paragraph", "Text.")]
    book = read(files.epub("<h1>Chapter</h1><p>Text.</p>", "A book"), "a.epub")
    assert told(book) == [("heading", "Chapter"), ("paragraph", "Text.")]
    assert book.title == "A book"
    assert told(read(rb"{\rtf1\ansi First \u252? one.\par Second.\par}", "a.rtf")) == [
        ("paragraph", "First ü one."),
        ("paragraph", "Second."),
    ]


PAGE = [
    (24, "The Title"),
    (12, "This is the first line of a paragraph that"),
    (12, "goes on in the second."),
    (18, "A section"),
    (12, "And its text, which is long enough for a line."),
]


def test_pdf_has_pages_and_says_which_are_scanned() -> None:
    parsed = read(files.pdf([PAGE, files.PICTURE, [], [(12, "The last page.")]]), "a.pdf")
    assert told(parsed) == [
        ("heading", "The Title"),
        ("paragraph", "This is the first line of a paragraph that goes on in the second."),
        ("heading", "A section"),
        ("paragraph", "And its text, which is long enough for a line."),
        ("paragraph", "The last page."),
    ]
    assert [block.page for block in parsed.blocks] == [1, 1, 1, 1, 4]
    assert parsed.scanned_pages == (2,)
    assert parsed.title == "The Title"
    assert parsed.metadata["pages"] == "4"


def test_few_lines_of_a_page_are_no_table() -> None:
    lines = [
        "This is a paragraph whose lines are hyphen-",
        "ated at the end and that goes on with the well",
        "known rule of things that nobody has to read",
    ]
    text = "This is a paragraph whose lines are hyphenated at the end and that goes on with the well"
    assert told(read(files.pdf([[(12, line) for line in lines]]), "a.pdf")) == [
        ("paragraph", f"{text} known rule of things that nobody has to read")
    ]


def test_a_pdf_of_pictures_is_set_aside() -> None:
    with pytest.raises(Unreadable, match="is scanned: pages 1-2 have a picture and no text"):
        read(files.pdf([files.PICTURE] * 2), "a.pdf")
    assert page_ranges((1, 2, 3, 7, 9, 10)) == "pages 1-3, 7, 9-10"
    assert page_ranges((4,)) == "page 4"


def test_a_pdf_has_no_more_pages_than_allowed() -> None:
    with pytest.raises(Unreadable, match=r"has 3 pages; `parsing.max_pages` allows 2"):
        parse(files.pdf([PAGE] * 3), "a.pdf", "", ParsingConfig(max_pages=2))


def test_the_bytes_say_what_a_file_is_and_then_its_type_and_name() -> None:
    assert "pages" in read(files.pdf([PAGE]), "letter.docx").metadata
    assert read("<!doctype html><p>x</p>", "page").text == "x"
    assert read("a,b\n1,2", "no-ending", "text/csv; charset=utf-8").blocks[0].kind == "table"
    assert read("# x", "notes.md", "text/plain").blocks[0].kind == "heading"
    assert read("plain", "strange.xyz").text == "plain"


@pytest.mark.parametrize("word", ["ID3", "BZh", "PAR1", "GIF89a", "Rar!", "OggS"])
def test_a_text_may_begin_with_the_name_of_a_format(word: str) -> None:
    assert read(f"{word} is what such files begin with.", "a.md").text.startswith(word)


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"", "a.txt", "is empty"),
        (b" \n\t\n ", "a.txt", "has no text"),
        (bytes(range(256)) * 20, "a.txt", "is not text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a.md", "is a picture"),
        (b"\x1f\x8b" + bytes(100), "a.txt", "is an archive"),
        (b"BZh91AY&SY" + bytes(100), "a.txt", "is an archive"),
        (b"GIF89a" + bytes(100), "a.gif", "is a picture"),
        (b"\xd0\xcf\x11\xe0" + bytes(100), "a.doc", "of before 2007, or locked with a password"),
        (files.packed({"a.txt": "x"}), "a.zip", "is an archive"),
        (files.docx(files.paragraph("x"))[:-40], "a.docx", "is damaged or cut off"),
        (files.docx(files.paragraph("x"))[:300], "a.docx", "is damaged or cut off"),
        (files.pdf([PAGE])[:400], "a.pdf", "is damaged or cut off"),
        (files.pdf([PAGE], files.LOCKED), "a.pdf", "needs a password"),
        (b"just text", "a.pdf", "is called .pdf and is none"),
        (b"{", "a.json", "is no JSON"),
        (b'{"a": 1}\n{"a":', "a.jsonl", "line 2"),
        (b"[" * 5_000, "a.json", "nested more than 100 deep"),
        (b'{"a":' * 5_000, "a.jsonl", "nested more than 100 deep"),
        (b"<div>" * 5_000, "a.html", "more than 1,000 deep"),
        (b"<script>x</script>", "a.html", "has no text"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_reason(data: bytes, name: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read(data, name)


def test_text_has_a_limit_in_every_format() -> None:
    config = ParsingConfig(max_characters=1_000)
    words = "word " * 1_000
    body = files.docx(files.paragraph(words))
    for data, name in ((words.encode(), "a.txt"), (f"<p>{words}".encode(), "a.html"), (body, "a.docx")):
        with pytest.raises(Unreadable, match="has more than 1,000 characters"):
            parse(data, name, "", config)


@settings(deadline=None)
@given(st.text(max_size=300), st.sampled_from(["a.txt", "a.md", "a.html", "a.py", "a.csv", "a.jsonl"]))
def test_blocks_hold_everything_whatever_the_text(text: str, name: str) -> None:
    with contextlib.suppress(Unreadable):
        check(parse(text.encode("utf-8", "replace"), name, "text/plain; charset=utf-8", CONFIG))


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.py", "a.csv", "a.jsonl"])
@pytest.mark.parametrize(
    "piece",
    [
        "!",
        "*",
        "\n",
        " ",
        "\t",
        "# ",
        "| ",
        "- ",
        "`",
        "\n#",
        "<b>",
        "<p ",
        "&",
        "= ",
        '."',
        "\n\n\tx",
        "-\n",
        '"',
        f"{' ' * 40}- x\n",
        "- - ",
    ],
)
def test_no_text_takes_the_square_of_its_length(piece: str, name: str) -> None:
    """At a million characters that would be hours."""
    for text in (f"x{piece * (200_000 // len(piece))}", f"{piece * (200_000 // len(piece))}x"):
        with contextlib.suppress(Unreadable):
            check(parse(text.encode(), name, "", CONFIG))


MARKUP = st.lists(
    st.sampled_from(
        [
            *"#=-|`~*<>/",
            "\n",
            "\n\n",
            "    ",
            "\t",
            "word",
            "1. ",
            "- ",
            "```",
            "|---|",
            " | ",
            "---",
            "<p>",
            "<ul><li>",
            "<table>",
            "<tr>",
            "<td>",
            "</table>",
            "</p>",
            "<pre>",
            "</pre>",
            "<h1>",
            "<main>",
            "</main>",
            "ß",
            "字。",
        ]
    ),
    max_size=60,
).map("".join)


@settings(deadline=None)
@given(MARKUP, st.sampled_from(["a.txt", "a.md", "a.html", "a.py"]))
def test_blocks_hold_everything_whatever_the_markup(text: str, name: str) -> None:
    try:
        parsed = parse(text.encode(), name, "", CONFIG)
    except Unreadable:
        return
    check(parsed)
    if name != "a.html":
        assert parsed.text == text
    else:
        assert parsed.text.count("word") <= text.count("word")
