"""The process in which documents are read. It has limits, no network, and nothing to lose."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import msgspec

from parkway.core.errors import Unreadable
from parkway.retrieval.parsing.config import ParsingConfig
from parkway.retrieval.parsing.message import Answer, Task, receive, send
from parkway.retrieval.parsing.parser import parse

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_MAX_FILES = 64
_MAX_WRITTEN = 1 << 20  # to standard error, the only file that it may write to
_GRACE_S = 5


def confine(memory_bytes: int) -> None:
    """Takes from this process what reading a document does not need. What the system does not know is left out."""
    os.nice(5)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # when memory is short it goes first
    if sys.platform == "linux":
        # A network name space of its own, in which there is nobody. Not allowed everywhere.
        ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, _MAX_WRITTEN),
        (resource.RLIMIT_NOFILE, _MAX_FILES),
        (resource.RLIMIT_AS, memory_bytes),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS knows some of them only by name
            resource.setrlimit(kind, (limit, limit))


def main() -> None:
    """Reads documents until the other side of standard input is gone.

    Its arguments: the configuration as JSON.
    """
    config = ParsingConfig.model_validate_json(sys.argv[1])
    connection = socket.socket(fileno=os.dup(0))
    confine(config.memory_bytes)
    send(connection, b"ready")
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            signal.alarm(0)
            header, data = receive(connection, 1 << 20), receive(connection, config.max_bytes)
            _begin(config.timeout_s, config.cpu_s)
            send(connection, _answer(header, data, config))


def _begin(timeout_s: float, cpu_s: int) -> None:
    """A clean standard error, and limits for the next document. Their signals end the process."""
    with contextlib.suppress(OSError):
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime) + cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
    signal.alarm(math.ceil(timeout_s) + _GRACE_S)  # should the other side be gone


def _answer(header: bytes, data: bytes, config: ParsingConfig) -> bytes:
    task = msgspec.msgpack.decode(header, type=Task)
    try:
        answer = Answer(parsed=parse(data, task.name, task.media_type, config))
    except Unreadable as error:
        answer = Answer(reason=error.message)
    except MemoryError:
        answer = Answer(reason=f"needs more than {config.memory_bytes:,} bytes of memory to be read")
    except RecursionError:
        answer = Answer(reason="is nested too deep")
    except Exception as error:  # noqa: BLE001 - a defect in a parser costs the one document, and is named with it
        answer = Answer(reason=f"cannot be read: {type(error).__name__}: {str(error)[:200]}")
    return msgspec.msgpack.encode(answer)


if __name__ == "__main__":
    main()
