"""One of the processes that share a model with an engine: `python -m parkway.engine.follower`, started by the engine.

It reads what it is to do as one JSON line, and ends when its standard input does: with the engine, however that ends.
"""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import torch
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage] - as its documentation imports it

from parkway.core.tasks import start_thread
from parkway.engine.backend import prepare
from parkway.engine.cache import KVCache
from parkway.engine.config import EngineConfig
from parkway.engine.device import choose_dtype
from parkway.engine.directory import ModelDirectory
from parkway.engine.parallel import Group, divide, follow
from parkway.engine.weights import load_decoder, own

log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
EX_SOFTWARE = 70


class Orders(msgspec.Struct):
    """What a follower is told."""

    directory: str
    dtype: str
    quantization: str
    threads: int
    rank: int
    size: int
    port: int


@contextmanager
def leading(directory: Path, config: EngineConfig, threads: int) -> Iterator[Group]:
    """Start the other processes of a divided model, and end them with the context."""
    # Loopback: the processes are on one machine.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    size = config.tensor_parallel
    store = TCPStore(_HOST, 0, size, is_master=True, wait_for_workers=False)
    followers: list[subprocess.Popen[bytes]] = []
    ending = threading.Event()
    try:
        for rank in range(1, size):
            orders = Orders(str(directory), config.dtype, config.quantization, threads, rank, size, store.port)
            followers.append(_start(orders))
        for follower in followers:
            start_thread(lambda follower=follower: _end_with(follower, ending), name="follower")
        group = Group(0, size, store)
        yield group
        group.close()
    finally:
        ending.set()
        for follower in followers:
            if follower.stdin is not None:
                follower.stdin.close()
        for follower in followers:
            try:
                follower.wait(5.0)
            except subprocess.TimeoutExpired:
                follower.kill()


def _end_with(follower: subprocess.Popen[bytes], ending: threading.Event) -> None:
    """End this process with the follower: alone it could answer nothing, and would wait for ever."""
    code = follower.wait()
    if not ending.is_set():
        log.critical("a process of the model ended with code %s", code)
        os._exit(EX_SOFTWARE)


def _start(orders: Orders) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "parkway.engine.follower"]
    follower = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)  # noqa: S603 - our own
    assert follower.stdin is not None, "a pipe was asked for"  # noqa: S101
    follower.stdin.write(msgspec.json.encode(orders) + b"\n")
    follower.stdin.flush()
    return follower


def main() -> None:
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    threading.Thread(target=_end_with_input, daemon=True).start()
    torch.set_num_threads(orders.threads)
    store = TCPStore(_HOST, orders.port, orders.size, is_master=False)
    group = Group(orders.rank, orders.size, store)
    dtype = choose_dtype(orders.dtype)
    decoder = load_decoder(ModelDirectory(Path(orders.directory)), dtype, group, borrowed=True)
    backend = prepare(decoder, quantization=orders.quantization)
    own(decoder)
    divide(decoder, group)
    [blocks] = group.hear()
    follow(decoder, KVCache(decoder.shape, dtype, blocks=blocks), group, backend.attention)


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
