"""The client's side of HTTP/1.1, against servers that say exactly what a test wants, byte for byte."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from parkway.router.config import RouterConfig
from parkway.router.connection import MAX_HEAD_BYTES, Broken, Late
from parkway.router.connections import Connections, Origin, Unreachable

REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\n{}"
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    def __init__(self) -> None:
        self.connections = 0
        self.port = 0

    @property
    def origin(self) -> Origin:
        return Origin("127.0.0.1", self.port, tls=False)


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield server


def saying(*parts: bytes, close: bool = False, times: int = 100) -> Script:
    """Answers each request by `parts`, sent one by one."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(times):
            await reader.readuntil(b"\r\n\r\n{}")
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            if close:
                return

    return script


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    connections = Connections(RouterConfig(connect_timeout_s=1.0))
    yield connections
    connections.close()


async def ask(connections: Connections, origin: Origin, within_s: float = 5.0) -> tuple[int, bytes]:
    """One exchange: the status and the whole body."""
    answer = await connections.ask(origin, REQUEST, asyncio.get_running_loop().time() + within_s)
    try:
        body = b""
        while part := await answer.read():
            body += part
        return answer.status, body
    finally:
        answer.close()


@pytest.mark.parametrize(
    ("parts", "body"),
    [
        ((WHOLE,), b"hello"),
        ((CHUNKED,), b"hello!"),
        (tuple(WHOLE[i : i + 1] for i in range(len(WHOLE))), b"hello"),
        (tuple(CHUNKED[i : i + 1] for i in range(len(CHUNKED))), b"hello!"),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", WHOLE), b"hello"),
        ((b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + WHOLE,), b"hello"),
        ((b"HTTP/1.1 204 No Content\r\n\r\n",), b""),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",), b""),
        ((b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello",), b"hello"),
    ],
)
async def test_a_connection_carries_one_exchange_after_the_other(
    connections: Connections, parts: tuple[bytes, ...], body: bytes
) -> None:
    async with serving(saying(*parts)) as server:
        for _ in range(3):
            status, found = await ask(connections, server.origin)
            assert (status, found) == (204 if b" 204 " in parts[0] else 200, body)
        assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
    ],
)
async def test_an_answer_that_ends_with_its_connection_is_whole(connections: Connections, answer: bytes) -> None:
    async with serving(saying(answer, close=True)) as server:
        for _ in range(2):
            assert (await ask(connections, server.origin)) == (200, b"hello")
        assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [WHOLE[:-1], CHUNKED[:-1], CHUNKED[:-7], WHOLE[:20], b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello"],
)
async def test_an_answer_that_is_cut_is_told(connections: Connections, answer: bytes) -> None:
    async with serving(saying(answer, close=True)) as server:
        with pytest.raises(Broken, match="before the end of its answer") as told:
            await ask(connections, server.origin)
        assert told.value.http
        assert told.value.answered == (b"\r\n\r\n" in answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: minus\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_told_and_never_kept(connections: Connections, answer: bytes) -> None:
    async with serving(saying(answer)) as server:
        for _ in range(2):
            with pytest.raises(Broken) as told:
                await ask(connections, server.origin)
            assert not told.value.http
        assert server.connections == 2


@pytest.mark.parametrize("more", [b"x", WHOLE, b"\r\nHTTP/1.1 200 OK\r\n\r\n"])
async def test_an_answer_stays_whole_where_more_was_sent_behind_it(connections: Connections, more: bytes) -> None:
    async with serving(saying(WHOLE + more)) as server:
        for _ in range(2):
            assert (await ask(connections, server.origin)) == (200, b"hello")
        assert server.connections == 2, "what came behind could be taken for the next answer"


async def test_what_comes_while_a_connection_rests_ends_it(connections: Connections) -> None:
    said = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(WHOLE)
        await asyncio.sleep(0.02)
        writer.write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
        said.set()
        await reader.read()

    async with serving(script) as server:
        assert (await ask(connections, server.origin)) == (200, b"hello")
        await said.wait()
        await asyncio.sleep(0.02)
        assert (await ask(connections, server.origin)) == (200, b"hello")
        assert server.connections == 2


async def test_a_connection_that_was_closed_while_it_rested_takes_the_others_with_it(connections: Connections) -> None:
    """All of them are of the same server, which has closed one for its idleness or is gone."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        await asyncio.sleep(0.02)
        writer.write(WHOLE)
        await reader.readuntil(b"{}")

    async with serving(script) as server:
        await asyncio.gather(*(ask(connections, server.origin) for _ in range(3)))
        assert server.connections == 3
        with pytest.raises(Broken) as told:
            await ask(connections, server.origin)
        assert told.value.kept_alive
        assert await ask(connections, server.origin) == (200, b"hello")
        assert server.connections == 4


async def test_whoever_waits_past_the_deadline_is_told(connections: Connections) -> None:
    async with serving(saying(b"")) as silent, serving(saying(WHOLE[:-1])) as slow:
        for server in (silent, slow):
            with pytest.raises(Late):
                await ask(connections, server.origin, within_s=0.05)


@pytest.mark.parametrize(("first_s", "second_s"), [(30.0, 0.2), (0.1, 0.3)])
async def test_the_deadline_that_counts_is_that_of_the_exchange_and_not_of_one_before(
    connections: Connections, first_s: float, second_s: float
) -> None:
    """A connection keeps its timer from one exchange to the next."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await saying(WHOLE, times=1)(reader, writer)
        await asyncio.sleep(30)

    async with serving(once) as server:
        assert await ask(connections, server.origin, within_s=first_s) == (200, b"hello")
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(Late):
            await ask(connections, server.origin, within_s=second_s)
        assert loop.time() - began >= second_s - 0.01
        assert server.connections == 1


@pytest.mark.parametrize(
    ("parts", "at_first", "later"),
    [
        ((WHOLE,), b"hello", b""),
        ((WHOLE[:-2], WHOLE[-2:]), None, b"hello"),
        ((CHUNKED,), b"hello!", b""),
    ],
)
async def test_what_rests_of_a_body_is_given_at_once_where_all_of_it_is_here(
    connections: Connections, parts: tuple[bytes, ...], at_first: bytes | None, later: bytes
) -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.1)

    async with serving(slowly) as server:
        answer = await connections.ask(server.origin, REQUEST, asyncio.get_running_loop().time() + 5)
        assert answer.rest() == at_first
        body = b""
        while part := await answer.read():
            body += part
        assert body == later
        answer.close()
        assert answer.rest() is None


async def test_whoever_leaves_cuts_the_socket(connections: Connections) -> None:
    """At the other end somebody works for us, who must learn at once that nobody waits any more."""
    gone = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(CHUNKED[:60])
        try:
            await reader.read()
        finally:
            gone.set()

    async with serving(script) as server:
        asking = asyncio.ensure_future(ask(connections, server.origin))
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.wait([asking])
        async with asyncio.timeout(5):
            await gone.wait()


async def test_a_reader_that_is_slow_holds_the_sender_back(connections: Connections) -> None:
    sent = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000

    async with serving(script) as server:
        loop = asyncio.get_running_loop()
        answer = await connections.ask(server.origin, REQUEST, loop.time() + 30)
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.05)
        assert sent < 20_000_000, "the rest waits in the sender"
        size = 0
        while part := await answer.read():
            size += len(part)
        assert size == 100_000_000
        answer.close()


async def test_nobody_there_is_told_without_the_address(connections: Connections) -> None:
    loop = asyncio.get_running_loop()
    async with serving(saying(WHOLE)) as server:
        gone = server.origin
    for origin, why in (
        (gone, r"no connection \(connection refused\)"),
        (Origin("no-such-host.invalid", 80, tls=False), "its host name is not known"),
        (Origin("a" * 64 + ".invalid", 80, tls=False), "its host name is not known"),
    ):
        with pytest.raises(Unreachable, match=f"^{why}$"):
            await connections.ask(origin, REQUEST, loop.time() + 5)


async def test_a_server_without_tls_or_with_a_strange_certificate_is_refused(
    connections: Connections, tmp_path: Path
) -> None:
    loop = asyncio.get_running_loop()

    async def no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    async with serving(no_tls) as plain:
        with pytest.raises(Unreachable, match="no TLS at its https address"):
            await connections.ask(Origin("127.0.0.1", plain.port, tls=True), REQUEST, loop.time() + 5)
    async with serving(saying(WHOLE), own_certificate(tmp_path)) as server:
        with pytest.raises(Unreachable, match="its certificate is not trusted"):
            await connections.ask(Origin("127.0.0.1", server.port, tls=True), REQUEST, loop.time() + 5)


async def test_over_tls_it_is_the_same(connections: Connections, tmp_path: Path) -> None:
    context = own_certificate(tmp_path)
    connections._tls = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
    async with serving(saying(CHUNKED), context) as server:
        for _ in range(2):
            assert (await ask(connections, Origin("localhost", server.port, tls=True))) == (200, b"hello!")
        assert server.connections == 1


async def test_what_rests_too_long_is_closed() -> None:
    connections = Connections(RouterConfig(keepalive_s=0.1))
    async with serving(saying(WHOLE)) as server:
        await ask(connections, server.origin)
        (connection,) = connections._idle[server.origin]
        async with asyncio.timeout(5):
            while connections._idle:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
        assert not connection.reusable
    connections.close()


async def test_closing_the_pool_cuts_what_is_busy(connections: Connections) -> None:
    async with serving(saying(b"")) as server:
        asking = asyncio.ensure_future(ask(connections, server.origin))
        await asyncio.sleep(0.05)
        connections.close()
        with pytest.raises(Broken):
            await asking


@pytest.mark.parametrize(
    ("url", "origin", "authority"),
    [
        ("http://h:1/v1", Origin("h", 1, False), "h:1"),
        ("https://h/v1", Origin("h", 443, True), "h"),
        ("http://[::1]:80/v1", Origin("::1", 80, False), "[::1]"),
    ],
)
def test_an_origin_is_read_from_a_url(url: str, origin: Origin, authority: str) -> None:
    assert Origin.of(url) == origin
    assert origin.authority == authority


def own_certificate(folder: Path) -> ssl.SSLContext:
    """A server's context with a certificate for localhost that nobody has vouched for."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, pem, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context
