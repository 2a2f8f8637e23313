"""Small files of every kind that is read, made by hand."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_TYPES = (
    '<?xml version="1.0" encoding="UTF-8"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>{}</Types>'
)
_RELATIONS = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>'
)
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_MAIN = "application/vnd.openxmlformats-officedocument"


def packed(files: Mapping[str, str | bytes]) -> bytes:
    """A zip archive."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def respelled(data: bytes, part: str, old: str, new: str) -> bytes:
    """An archive with another text in one of its parts."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    return packed({**parts, part: parts[part].decode().replace(old, new)})


def _override(part: str, kind: str) -> str:
    return f'<Override PartName="{part}" ContentType="{_MAIN}.{kind}+xml"/>'


def _relation(number: int, kind: str, target: str) -> str:
    return f'<Relationship Id="rId{number}" Type="{_OFFICE}/{kind}" Target="{target}"/>'


def paragraph(text: str, style: str = "") -> str:
    """One of a Word document."""
    styled = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f'<w:p>{styled}<w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'


def word_table(rows: Sequence[Sequence[str]]) -> str:
    cells = ("".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) for row in rows)
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


def docx(body: str, doctype: str = "", more: Mapping[str, str | bytes] | None = None) -> bytes:
    """A Word document.

    Args:
        body: Of `paragraph` and `word_table`.
        doctype: Before its root element.
    """
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="Heading{level}"><w:name w:val="heading {level}"/></w:style>'
        for level in (1, 2)
    )
    types = _override("/word/document.xml", "wordprocessingml.document.main")
    types += _override("/word/styles.xml", "wordprocessingml.styles")
    return packed(
        {
            "[Content_Types].xml": _TYPES.format(types),
            "_rels/.rels": _RELATIONS.format(_relation(1, "officeDocument", "word/document.xml")),
            "word/_rels/document.xml.rels": _RELATIONS.format(_relation(1, "styles", "styles.xml")),
            "word/styles.xml": f'<?xml version="1.0"?><w:styles {space}>{styles}</w:styles>',
            "word/document.xml": (
                f'<?xml version="1.0" encoding="UTF-8"?>{doctype}'
                f"<w:document {space}><w:body>{body}</w:body></w:document>"
            ),
            **(more or {}),
        }
    )


def xlsx(sheets: Mapping[str, Sequence[Sequence[str | float]]]) -> bytes:
    """A workbook."""
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'

    def cell(row: int, column: int, value: str | float) -> str:
        place = f"{chr(65 + column)}{row + 1}"
        if isinstance(value, str):
            return f'<c r="{place}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'
        return f'<c r="{place}"><v>{value}</v></c>'

    types = _override("/xl/workbook.xml", "spreadsheetml.sheet.main")
    files: dict[str, str | bytes] = {}
    listed = relations = ""
    for number, (name, rows) in enumerate(sheets.items(), 1):
        types += _override(f"/xl/worksheets/sheet{number}.xml", "spreadsheetml.worksheet")
        relations += _relation(number, "worksheet", f"worksheets/sheet{number}.xml")
        listed += f'<sheet name="{name}" sheetId="{number}" r:id="rId{number}"/>'
        told = "".join(
            f'<row r="{row + 1}">{"".join(cell(row, column, value) for column, value in enumerate(values))}</row>'
            for row, values in enumerate(rows)
        )
        sheet = f'<?xml version="1.0"?><worksheet {space}><sheetData>{told}</sheetData></worksheet>'
        files[f"xl/worksheets/sheet{number}.xml"] = sheet
    files["[Content_Types].xml"] = _TYPES.format(types)
    files["_rels/.rels"] = _RELATIONS.format(_relation(1, "officeDocument", "xl/workbook.xml"))
    files["xl/_rels/workbook.xml.rels"] = _RELATIONS.format(relations)
    files["xl/workbook.xml"] = (
        f'<?xml version="1.0"?><workbook {space} xmlns:r="{_OFFICE}"><sheets>{listed}</sheets></workbook>'
    )
    return packed(files)


def pptx(slides: Sequence[tuple[str, Sequence[str]]]) -> bytes:
    """A presentation of titles and lines."""
    space = (
        'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'
        f' xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" xmlns:r="{_OFFICE}"'
    )

    def shape(kind: str, lines: Sequence[str]) -> str:
        told = "".join(f"<a:p><a:r><a:t>{escape(line)}</a:t></a:r></a:p>" for line in lines)
        return (
            '<p:sp><p:nvSpPr><p:cNvPr id="2" name="x"/><p:cNvSpPr/>'
            f'<p:nvPr><p:ph type="{kind}"/></p:nvPr></p:nvSpPr><p:spPr/>'
            f"<p:txBody><a:bodyPr/>{told}</p:txBody></p:sp>"
        )

    types = _override("/ppt/presentation.xml", "presentationml.presentation.main")
    files: dict[str, str | bytes] = {}
    listed = relations = ""
    for number, (title, lines) in enumerate(slides, 1):
        types += _override(f"/ppt/slides/slide{number}.xml", "presentationml.slide")
        relations += _relation(number, "slide", f"slides/slide{number}.xml")
        listed += f'<p:sldId id="{255 + number}" r:id="rId{number}"/>'
        files[f"ppt/slides/slide{number}.xml"] = (
            f'<?xml version="1.0"?><p:sld {space}><p:cSld><p:spTree><p:nvGrpSpPr><p:cNvPr id="1" name=""/>'
            f"<p:cNvGrpSpPr/><p:nvPr/></p:nvGrpSpPr><p:grpSpPr/>{shape('title', [title])}{shape('body', lines)}"
            "</p:spTree></p:cSld></p:sld>"
        )
    files["[Content_Types].xml"] = _TYPES.format(types)
    files["_rels/.rels"] = _RELATIONS.format(_relation(1, "officeDocument", "ppt/presentation.xml"))
    files["ppt/_rels/presentation.xml.rels"] = _RELATIONS.format(relations)
    files["ppt/presentation.xml"] = (
        f'<?xml version="1.0"?><p:presentation {space}><p:sldIdLst>{listed}</p:sldIdLst></p:presentation>'
    )
    return packed(files)


def odt(body: str) -> bytes:
    """An OpenDocument text."""
    spaces = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "text", "table")
    )
    return packed(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": (
                f'<?xml version="1.0"?><office:document-content {spaces}><office:body><office:text>{body}'
                "</office:text></office:body></office:document-content>"
            ),
        }
    )


def epub(body: str, title: str) -> bytes:
    """A book of one chapter."""
    return packed(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": (
                '<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
                '<rootfiles><rootfile full-path="c.opf" media-type="application/oebps-package+xml"/></rootfiles>'
                "</container>"
            ),
            "c.opf": (
                '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0"'
                ' unique-identifier="i"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
                f"<dc:title>{title}</dc:title></metadata><manifest>"
                '<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>'
                '<spine><itemref idref="a"/></spine></package>'
            ),
            "a.xhtml": f'<html xmlns="http://www.w3.org/1999/xhtml"><head/><body>{body}</body></html>',
        }
    )


PICTURE = "picture"
Page = Sequence[tuple[int, str]] | str


def pdf(pages: Sequence[Page], trailer: bytes = b"") -> bytes:
    """A PDF.

    Args:
        pages: Lines of a font size and a text each; or `PICTURE`.
        trailer: More of it.
    """
    kids = b" ".join(b"%d 0 R" % (4 + 2 * index) for index in range(len(pages)))
    picture = 4 + 2 * len(pages)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(pages)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for index, page in enumerate(pages):
        shown = b""
        if not isinstance(page, str):
            y, drawn = 750, b"BT "
            for size, text in page:
                drawn += b"/F %d Tf 1 0 0 1 50 %d Tm (%s) Tj " % (size, y, text.encode("latin-1"))
                y -= int(size * 1.5)
            drawn += b"ET"
        else:
            drawn = b"q 500 0 0 700 50 50 cm /I Do Q"
            shown = b" /XObject << /I %d 0 R >>" % picture
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R"
            b" /Resources << /Font << /F 3 0 R >>%s >> >>" % (5 + 2 * index, shown)
        )
        objects.append(stream(drawn))
    pixels = b"/Type /XObject /Subtype /Image /Width 160 /Height 64 /ColorSpace /DeviceRGB /BitsPerComponent 8"
    objects.append(stream(bytes(range(256)) * 120, pixels))
    return pdf_of(objects, trailer)


def stream(data: bytes, more: bytes = b"") -> bytes:
    squeezed = zlib.compress(data)
    return b"<< %s /Filter /FlateDecode /Length %d >> stream\n%s\nendstream" % (more, len(squeezed), squeezed)


def pdf_of(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """A PDF of these objects, the first of which is its catalogue."""
    data = bytearray(b"%PDF-1.4\n")
    places: list[int] = []
    for number, content in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj %s endobj\n" % (number, content)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % place for place in places)
    data += b"trailer << /Size %d /Root 1 0 R %s>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, trailer, start)
    return bytes(data)


LOCKED = b"/Encrypt << /Filter /Standard /V 1 /R 2 /O (%s) /U (%s) /P -4 >> /ID [(%s)(%s)]" % (
    b"a" * 32,
    b"b" * 32,
    b"c" * 16,
    b"c" * 16,
)
"""The trailer of a PDF that needs a password."""
