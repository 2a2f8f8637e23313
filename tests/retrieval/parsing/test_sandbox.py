"""Files that are made to harm the process that reads them."""

import os
import signal
import socket
import struct
import subprocess
import time
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest

from parkway.core.errors import Unreadable
from parkway.retrieval.parsing import child
from parkway.retrieval.parsing.config import ParsingConfig
from parkway.retrieval.parsing.parser import parse
from parkway.retrieval.parsing.sandbox import Sandbox
from tests.retrieval.parsing import files

CONFIG = ParsingConfig(cpu_s=2, memory_bytes=700 << 20)
LITTLE = ParsingConfig(max_bytes=1_000_000, max_characters=1_000_000)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(CONFIG)
    yield made
    made.close()


def still_works(sandbox: Sandbox) -> None:
    assert sandbox.parse(b"still here", "a.txt").text == "still here"


def test_documents_are_read_one_after_the_other_by_one_process(sandbox: Sandbox) -> None:
    assert sandbox.parse(b"# x\n\ny", "two\nlines\udcff.md").title == "x"
    first = sandbox._child
    with pytest.raises(Unreadable, match="is no JSON"):
        sandbox.parse(b"{", "a.json")
    with ThreadPoolExecutor(4) as threads:
        texts = list(threads.map(lambda n: sandbox.parse(b"text %d" % n, "a.txt").text, range(20)))
    assert texts == [f"text {n}" for n in range(20)]
    assert sandbox._child is first
    parsed = sandbox.parse(files.pdf([[(12, "A page.")], files.PICTURE]), "a.pdf")
    assert parsed.text == "A page."
    assert parsed.scanned_pages == (2,)


def nested_zip() -> bytes:
    inner = files.packed({"0": bytes(1_000_000)})
    for _ in range(4):
        inner = files.packed({str(number): inner for number in range(10)})
    return inner


def overlapping_zip(copies: int = 5_000) -> bytes:
    """Many names in the directory for one piece of data: 10 MB each (Fifield, "A better zip bomb", 2019)."""
    one = BytesIO()
    with zipfile.ZipFile(one, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", bytes(10_000))
    data = one.getvalue()
    start = struct.unpack("<I", data[-6:-2])[0]
    directory = data[start:-22] * copies
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, copies, copies, len(directory), start, 0)
    return data[:start] + directory + end


def entities(depth: int = 9) -> str:
    told = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(depth))
    return f'<!DOCTYPE d [<!ENTITY l0 "laughter">{told}]>'


def pdf_bomb(size: int = 4_000_000_000) -> bytes:
    """A page whose content is very long once it is unpacked, twice over."""
    squeeze = zlib.compressobj(9)
    piece = b"0 0 m 1 1 l S " * 100_000
    squeezed = squeeze.compress(piece) + squeeze.flush(
        zlib.Z_FULL_FLUSH
    )  # may be repeated: it refers to nothing before
    data = zlib.compress(squeezed + squeezed[2:] * (size // len(piece)))
    content = b"<< /Filter [/FlateDecode /FlateDecode] /Length %d >> stream\n%s\nendstream" % (len(data), data)
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R >>"
    pages = b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
    return files.pdf_of([b"<< /Type /Catalog /Pages 2 0 R >>", pages, page, content])


def test_zip_bombs_are_refused_before_they_are_unpacked(sandbox: Sandbox) -> None:
    with pytest.raises(Unreadable, match="is an archive"):
        sandbox.parse(nested_zip(), "a.zip")
    with pytest.raises(Unreadable, match=r"lie over one another|damaged"):
        sandbox.parse(overlapping_zip(), "a.docx")
    large = files.docx("", more={"word/media/a.bin": bytes(30_000_000)})
    with pytest.raises(Unreadable, match=r"would take 30,.* bytes unpacked; at most 4,000,000 are read"):
        parse(large, "a.docx", "", LITTLE)
    still_works(sandbox)


def test_a_document_that_lies_about_its_size() -> None:
    data = files.docx(files.paragraph("x" * 5_000_000))
    at = data.rindex(b"word/document.xml") - 46  # its entry in the directory
    with pytest.raises(Unreadable, match="has more than 1,000,000 characters"):
        parse(data[: at + 24] + struct.pack("<I", 1000) + data[at + 28 :], "a.docx", "", LITTLE)


def test_entities_of_xml_are_neither_expanded_nor_fetched(sandbox: Sandbox) -> None:
    laughter = sandbox.parse(files.docx(files.paragraph("a &l9; b"), entities()), "a.docx")
    assert laughter.text.split() == ["a", "b"]
    outside = '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd"><!ENTITY % p SYSTEM "http://127.0.0.1:1/"> %p;]>'
    try:
        text = sandbox.parse(files.docx(files.paragraph("a &x; b"), outside), "a.docx").text
    except Unreadable as error:
        text = error.message
    assert "root:" not in text
    still_works(sandbox)


def test_a_pdf_bomb_costs_what_it_may_and_no_more(sandbox: Sandbox) -> None:
    bomb = pdf_bomb()
    assert len(bomb) < 2_000_000
    with pytest.raises(Unreadable, match=r"took over 2 s of computing|needs more than|makes its reader crash"):
        sandbox.parse(bomb, "a.pdf")
    still_works(sandbox)


def test_a_line_of_100_megabytes(sandbox: Sandbox) -> None:
    with pytest.raises(Unreadable, match="has more than 20,000,000 characters"):
        sandbox.parse(b"x" * (100 << 20), "a.txt")
    with pytest.raises(Unreadable, match=r"is larger than 104,857,600 bytes \(104,857,601\)"):
        sandbox.parse(b"x" * ((100 << 20) + 1), "a.txt")
    parsed = sandbox.parse(b"x" * 1_000_000, "a.md")
    assert len(parsed.text) == 1_000_000
    still_works(sandbox)


def test_what_takes_too_long_is_stopped() -> None:
    quick = Sandbox(ParsingConfig(timeout_s=0.5, cpu_s=60))
    with pytest.raises(Unreadable, match=r"took over 0.5 s"):
        quick.parse(b"<p>x</p>" * 2_000_000, "a.html")
    assert quick._child is None
    quick.close()


def test_a_process_that_dies_costs_one_document(sandbox: Sandbox) -> None:
    still_works(sandbox)
    child = sandbox._child
    assert child is not None
    child._process.send_signal(signal.SIGSTOP)

    def crash() -> None:
        while sandbox._asked is not child:
            time.sleep(0.001)
        for number in (signal.SIGSEGV, signal.SIGCONT):
            child._process.send_signal(number)

    with ThreadPoolExecutor(1) as threads, pytest.raises(Unreadable, match=r"makes its reader crash \(SIGSEGV\)"):
        threads.submit(crash)
        sandbox.parse(b"x", "a.txt")
    still_works(sandbox)


def test_a_process_that_dies_between_documents_costs_none(sandbox: Sandbox) -> None:
    still_works(sandbox)
    idle = sandbox._child
    assert idle is not None
    idle._process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, idle._process.pid, os.WEXITED | os.WNOWAIT)
    still_works(sandbox)
    assert sandbox._child is not idle


def test_the_process_has_no_secrets_no_network_and_may_not_write(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PARKWAY_SECRET_FOR_THIS_TEST", "hunter2")
    own = Sandbox(CONFIG)
    still_works(own)
    assert own._child is not None
    process = own._child._process.pid
    environment = Path(f"/proc/{process}/environ").read_bytes()
    assert b"hunter2" not in environment
    assert b"HOME=" not in environment
    limits = {
        line[:26].strip(): line[26:].split()[:2] for line in Path(f"/proc/{process}/limits").read_text().splitlines()
    }
    assert limits["Max address space"] == [str(700 << 20)] * 2
    assert limits["Max file size"] == [str(1 << 20)] * 2
    assert limits["Max core file size"] == ["0", "0"]
    network = Path(f"/proc/{process}/ns/net").stat().st_ino
    if subprocess.run(["unshare", "--user", "--net", "true"], capture_output=True, check=False).returncode == 0:
        assert network != Path("/proc/self/ns/net").stat().st_ino
    opened = {str(entry.readlink()) for entry in Path(f"/proc/{process}/fd").iterdir()}
    assert not any(str(tmp_path) in name or name.endswith(".db") for name in opened)
    own.close()


def test_the_process_ends_when_the_sandbox_is_closed_or_the_other_side_is_gone() -> None:
    own = Sandbox(CONFIG)
    still_works(own)
    assert own._child is not None
    process = own._child._process
    own._child._connection.shutdown(socket.SHUT_RDWR)
    assert process.wait(timeout=20) == 0
    own.close()
    still_works(own)
    own.close()


def test_a_process_is_replaced_after_many_or_large_documents(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parkway.retrieval.parsing.sandbox._LARGE", 15)
    still_works(sandbox)
    assert sandbox._child is not None
    sandbox.parse(b"more than fifteen bytes", "a.txt")
    assert sandbox._child is None


def test_a_defect_in_a_parser_costs_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    from parkway.retrieval.parsing.message import Answer, Task, msgspec

    def broken(*_: object) -> None:
        raise KeyError("defect")

    monkeypatch.setattr(child, "parse", broken)
    answer = child._answer(msgspec.msgpack.encode(Task("a", "")), b"x", CONFIG)
    assert msgspec.msgpack.decode(answer, type=Answer).reason == "cannot be read: KeyError: 'defect'"
