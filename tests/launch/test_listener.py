"""The listening socket: bound, and every way in which that fails explained."""

import contextlib
import errno
import os
import socket

import pytest

from parkway.core.errors import StartupError
from parkway.launch import listener
from parkway.launch.listener import bind, bind_each, reachable


def test_port_0_is_any_free_one_and_clients_can_connect() -> None:
    with bind("127.0.0.1", 0) as bound:
        host, port = reachable(bound)
        assert host == "127.0.0.1"
        with socket.create_connection((host, port), timeout=10):
            pass


def test_a_wildcard_is_reached_through_the_loopback() -> None:
    with bind("0.0.0.0", 0) as bound:
        assert reachable(bound)[0] == "127.0.0.1"


def test_a_port_in_use_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_PATIENCE_S", 0.0)
    with bind("127.0.0.1", 0) as bound, pytest.raises(StartupError) as caught:
        port = reachable(bound)[1]
        bind("127.0.0.1", port)
    assert f"port {port} on 127.0.0.1 is in use" in caught.value.message
    assert "--port" in caught.value.message


def test_a_port_that_is_let_go_of_in_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    holder = bind("127.0.0.1", 0)
    port = reachable(holder)[1]
    monkeypatch.setattr(listener.time, "sleep", lambda _: holder.close())
    with bind("127.0.0.1", port) as bound:
        assert reachable(bound)[1] == port


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 300, "192.0.2.1"])
def test_a_host_that_is_not_ours(host: str) -> None:
    with pytest.raises(StartupError, match="is not an address of this machine"):
        bind(host, 0)


def test_a_port_without_the_rights_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(listener, "_bind_patiently", refuse)
    with pytest.raises(StartupError, match=r"port 80 needs rights .* from 1024 on"):
        bind("127.0.0.1", 80)


def test_several_listen_on_one_port_and_all_get_connections() -> None:
    listeners = bind_each("127.0.0.1", 0, 3)
    ports = {each.getsockname()[1] for each in listeners}
    assert len(ports) == 1
    with pytest.raises(StartupError, match="in use"):
        bind_each("127.0.0.1", ports.pop(), 3)
    clients = [socket.create_connection(listeners[0].getsockname()) for _ in range(60)]
    counts: list[int] = []
    for each in listeners:
        each.setblocking(False)
        counts.append(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                each.accept()[0].close()
                counts[-1] += 1
    assert sum(counts) == len(clients)
    assert min(counts) > 0
    for each in (*clients, *listeners):
        each.close()
