"""Encodings: said, marked, or guessed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parkway.core.errors import Unreadable
from parkway.retrieval.parsing.config import ParsingConfig
from parkway.retrieval.parsing.encoding import decode
from parkway.retrieval.parsing.parser import parse
from parkway.retrieval.parsing.writing import normalised

JAPANESE = "これは日本語の文章です。漢字とかなが混ざっています。\nカタカナもあります。"
CHINESE = "我们的产品是一个自托管的平台，它可以在您的机器上运行。\n请阅读文档。"
TRADITIONAL = "我們的產品是一個自託管的平台，它可以在您的機器上執行。\n請閱讀文件。"
KOREAN = "우리 제품은 직접 운영하는 플랫폼입니다. 문서를 읽어 주세요."
GERMAN = "Größe und Übermut tun selten gut; das weiß auch die Straße in Köln.\nSüß!"
FRENCH = "« L'été dernier, à Noël, où est-ce ? » – “déjà vu” … 5 €"
POLISH = "Zażółć gęślą jaźń; książka leży na stole, a świat jest piękny."
GREEK = "Καλημέρα κόσμε, αυτό είναι ένα συνηθισμένο κείμενο."
HEBREW = "שלום עולם, זה טקסט רגיל שאנחנו רוצים לקרוא."
RUSSIAN = "Привет, это обычный русский текст, который мы хотим прочитать и понять."


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        (GERMAN, "utf-8", "utf-8"),
        (GERMAN, "utf-8-sig", "utf-8"),
        (CHINESE, "utf-16", "utf-16"),
        (GERMAN, "utf-16-le", "utf-16-le (guessed)"),
        (GERMAN, "utf-16-be", "utf-16-be (guessed)"),
        (GERMAN, "utf-32", "utf-32"),
        (GERMAN, "latin-1", "cp1252 (guessed)"),
        (FRENCH, "cp1252", "cp1252 (guessed)"),
        (JAPANESE, "shift_jis", "cp932 (guessed)"),
        (JAPANESE, "euc_jp", "euc_jp (guessed)"),
        (CHINESE, "gb18030", "gb18030 (guessed)"),
        (TRADITIONAL, "big5", "big5 (guessed)"),
        (KOREAN, "euc_kr", "cp949 (guessed)"),
        (RUSSIAN, "cp1251", "cp1251 (guessed)"),
        (RUSSIAN, "koi8-r", "koi8_r (guessed)"),
        (RUSSIAN, "cp866", "cp866 (guessed)"),
        (POLISH, "cp1250", "cp1250 (guessed)"),
        (GREEK, "cp1253", "cp1253 (guessed)"),
        (HEBREW, "cp1255", "cp1255 (guessed)"),
    ],
)
def test_text_is_read_in_its_encoding_which_is_said(text: str, encoding: str, found: str) -> None:
    parsed = parse(text.encode(encoding), "a.txt", "", ParsingConfig())
    assert parsed.text == text
    assert parsed.metadata["encoding"] == found


def test_what_the_sender_says_comes_before_a_guess() -> None:
    data = "Größe".encode("latin-1")
    assert decode(data, said="ISO-8859-1") == ("Größe", "cp1252", False)
    assert decode("Привет".encode("koi8-r"), said="koi8-r").text == "Привет"
    for nonsense in ("no-such-encoding", "base64", "rot13", "\0", "utf-8"):
        assert decode(data, said=nonsense).encoding == "cp1252"
    assert decode("Größe".encode(), said="latin-1").text == "Größe"


@pytest.mark.parametrize("wrong", [b"\xff", "Größe".encode("latin-1"), "”".encode("cp1252")])
def test_utf8_with_a_wrong_byte_is_utf8(wrong: bytes) -> None:
    for text in (GERMAN, RUSSIAN, JAPANESE):
        found = decode(text.encode() + b"\n" + wrong + b"\n" + text.encode())
        assert found.encoding == "utf-8"
        assert found.guessed
        assert found.text.startswith(text)
        assert found.text.endswith(text)


def test_accents_alone_do_not_make_hebrew() -> None:
    text = "Où est le café ? L'été dernier, à Noël, ça n'a pas été très intéressant. " * 4
    assert decode(text.encode("latin-1")) == (text, "cp1252", True)


def test_encodings_that_switch_are_not_taken_for_utf8() -> None:
    data = JAPANESE.encode("iso2022_jp")
    assert decode(data) == (JAPANESE, "iso2022_jp", True)
    assert decode(data, said="ISO-2022-JP") == (JAPANESE, "iso2022_jp", False)
    assert decode(CHINESE.encode("hz"), said="hz-gb-2312").text == CHINESE
    colours = "\x1b[31mred\x1b[0m größer"
    assert decode(colours.encode()) == (colours, "utf-8", False)
    assert parse(b"<meta charset=iso-2022-jp><p>" + data, "a.html", "", ParsingConfig()).blocks


@pytest.mark.parametrize("text", [RUSSIAN, GREEK, HEBREW, JAPANESE, KOREAN])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_may_have_hardly_any_latin_letter(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == (text, encoding, True)


def test_a_zero_does_not_make_chinese() -> None:
    for text in ("an\0 even number" + " of letters" * 99, "Größe\0" + "word" * 100):
        assert decode(text.encode()) == (text, "utf-8", False)


def test_thai_is_no_cyrillic() -> None:
    text = "นี่คือข้อความภาษาไทยง่าย ๆ สำหรับทดสอบ"
    assert decode(text.encode("cp874")) == (text, "cp874", True)


def test_xml_says_its_own_encoding() -> None:
    text = '<?xml version="1.0" encoding="koi8-r"?><p>Привет, мир</p>'
    assert parse(text.encode("koi8-r"), "a.xml", "", ParsingConfig()).text == text


@pytest.mark.parametrize("data", [b"\xff\xfe" + b"\0\xd8" * 40, b"\xef\xbb\xbf" + b"\xff" * 400, b"\0" * 50])
def test_a_mark_in_front_of_garbage_is_no_text(data: bytes) -> None:
    with pytest.raises(Unreadable):
        parse(data, "a.txt", "", ParsingConfig())


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=400))
def test_bytes_become_text_or_a_reason(data: bytes) -> None:
    try:
        text = decode(data).text
    except Unreadable:
        return
    normalised(text).encode()


@settings(deadline=None)
@given(st.text(min_size=1, max_size=200))
def test_what_is_kept_is_kept_the_same_when_it_is_read_again(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once
    assert "\r" not in once


def test_normalised() -> None:
    assert normalised("a\r\nb\rc\u2028d\x00\x1b\ufeff e\u0301\ud800") == "a\nb\nc\nd e\u0301\ufffd".replace(
        "e\u0301", "é"
    )
