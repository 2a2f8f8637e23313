"""The socket that clients connect to: bound by the supervisor, so that a gateway that restarts refuses nobody."""

from __future__ import annotations

import errno
import socket
import time

from parkway.core.errors import StartupError

_BACKLOG = 2048
_PATIENCE_S = 1.0


def bind_each(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` sockets that listen on one port, over which the kernel spreads what comes.

    Raises:
        StartupError: As for `bind`.
    """
    if count == 1:
        return [bind(host, port)]
    # Who shares a port is not told that another has it; who does not is.
    with bind(host, port) as alone:
        port = int(alone.getsockname()[1])
    listeners: list[socket.socket] = []
    try:
        for _ in range(count):
            listeners.append(bind(host, port, shared=True))
    except StartupError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket that listens on `host` and `port`; port 0 is one that the system chooses.

    Args:
        shared: Others of this user may listen on the same port.

    Raises:
        StartupError: The port is taken, not permitted, or the host is not this machine's. The message says what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise StartupError(f"--host {host!r} is not an address of this machine: {error}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bind_patiently(listener, address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StartupError(_explain(error, host, port)) from error
    return listener


def reachable(listener: socket.socket) -> tuple[str, int]:
    """Host and port at which this machine itself reaches the listener, also where it listens on every address."""
    host, port = str(listener.getsockname()[0]), int(listener.getsockname()[1])
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104 - compared, not bound


def _bind_patiently(listener: socket.socket, address: tuple[object, ...]) -> None:
    # The children of a Parkway that was killed a moment ago need a few milliseconds to let go of the port.
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return listener.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use by another program; choose another with --port (0: any free one), "
            f"or see who has it: ss -ltnp 'sport = :{port}'"
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs rights that this user does not have; choose one from 1024 on with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host!r} is not an address of this machine; 127.0.0.1 is always one, 0.0.0.0 means all"
    return f"cannot listen on {host} port {port}: {error.strerror}"
