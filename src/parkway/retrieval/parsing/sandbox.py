"""Reading documents in a process that may crash, hang or be filled up, without harm to anything else."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO

import msgspec

from parkway.core.errors import ParkwayError, Unreadable
from parkway.retrieval.document import Parsed
from parkway.retrieval.parsing.config import ParsingConfig
from parkway.retrieval.parsing.message import Answer, Task, receive, send

_START_TIMEOUT_S = 60.0
_DOCUMENTS = 500  # that one child reads: whatever a parser leaks ends with it
_LARGE = 16 << 20  # bytes of a document after which a child is replaced: it does not give back the memory
_PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT", "LD_LIBRARY_PATH")
"""Of the environment. Keys and passwords stand in other variables."""


class Sandbox:
    """One child process that reads documents, one after the other. It is started when it is needed.

    Blocking, and safe to use from several threads: they wait for each other. Several sandboxes work side by side.
    """

    def __init__(self, config: ParsingConfig | None = None) -> None:
        self.config = config or ParsingConfig()
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._asked: _Child | None = None

    def parse(self, data: bytes, name: str, media_type: str = "") -> Parsed:
        """The text of a document.

        Args:
            name: Its file's; the ending tells what it is where its bytes do not.
            media_type: As the sender has it; may be empty.

        Raises:
            Unreadable: With the reason, which may be that it broke the process that was reading it.
        """
        if not data:
            raise Unreadable("is empty")
        if len(data) > self.config.max_bytes:
            raise Unreadable(
                f"is larger than {self.config.max_bytes:,} bytes ({len(data):,}); `parsing.max_bytes` sets the limit"
            )
        task = Task(_sayable(name)[-1000:], _sayable(media_type)[:1000])
        with self._lock:
            child = self._child
            if child is not None and not child.lives():
                child.kill()  # when memory is short the system ends it first: the next document is not to blame
                child = None
            child = child or _Child(self.config)
            self._child = None  # it comes back only if it is in order afterwards
            self._asked = child
            try:
                answer = child.ask(task, data)
            except BaseException:
                child.kill()
                raise
            finally:
                self._asked = None
            if child.documents < _DOCUMENTS and len(data) < _LARGE:
                self._child = child
            else:
                child.kill()
        if answer.parsed is None:
            raise Unreadable(answer.reason)
        return answer.parsed

    def interrupt(self) -> None:
        """Ends the child in the middle of a document, which then cannot be read. For those who stop."""
        if (child := self._asked) is not None:
            child.end()

    def close(self) -> None:
        """Ends the child. The sandbox may be used again."""
        with self._lock:
            if self._child is not None:
                self._child.kill()
            self._child = None


class _Child:
    """The process, and what is agreed with it."""

    def __init__(self, config: ParsingConfig) -> None:
        self.documents = 0
        self._config = config
        # Four bytes a character at most, and 64 for what is said about each block; there are fewer blocks than
        # characters, and far fewer in any real document.
        self._most = 8 * config.max_characters + (64 << 20)
        self._connection, theirs = socket.socketpair()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter and our own configuration
                [sys.executable, "-P", "-m", "parkway.retrieval.parsing.child", config.model_dump_json()],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            self._connection.close()
            self._errors.close()
            raise ParkwayError(f"the process that reads documents cannot be started: {error}") from error
        finally:
            theirs.close()
        self._connection.settimeout(_START_TIMEOUT_S)
        try:
            receive(self._connection, 100)
        except (EOFError, OSError, ValueError) as error:
            self.kill()
            raise ParkwayError(f"the process that reads documents did not start: {self._last_words()}") from error

    def ask(self, task: Task, data: bytes) -> Answer:
        """Has it read a document."""
        self.documents += 1
        deadline = time.monotonic() + self._config.timeout_s
        try:
            self._send(msgspec.msgpack.encode(task), deadline)
            self._send(data, deadline)
            return msgspec.msgpack.decode(receive(self._connection, self._most, deadline), type=Answer)
        except TimeoutError as error:
            raise Unreadable(f"took over {self._config.timeout_s:g} s to read") from error
        except (EOFError, ConnectionError) as error:
            raise Unreadable(self._why_it_ended()) from error
        except (ValueError, msgspec.MsgspecError) as error:
            raise Unreadable("makes more text than may be kept of one document") from error

    def lives(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Ends it at once, with all that it started."""
        self.end()
        self._process.wait()
        self._connection.close()

    def end(self) -> None:
        """The same from another thread than the one that asks, which is told by the end of its connection."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _send(self, message: bytes, deadline: float) -> None:
        self._connection.settimeout(max(0.001, deadline - time.monotonic()))
        send(self._connection, message)

    def _why_it_ended(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "makes its reader hang"
        memory = f"{self._config.memory_bytes:,} bytes of memory"
        if code == -signal.SIGXCPU:
            return f"took over {self._config.cpu_s} s of computing to read"
        if code == -signal.SIGALRM:
            return f"took over {self._config.timeout_s:g} s to read"
        if "memory allocation" in self._last_words():
            return f"needs more than {memory} to be read"
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"makes its reader crash ({name}): it is damaged, or needs more than {memory}"

    def _last_words(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            self._errors.seek(0)
            return self._errors.read(4096).decode("utf-8", "replace").strip()
        return ""


def _sayable(text: str) -> str:
    """Without the halves of characters that stand for undecodable bytes in file names."""
    return text.encode("utf-8", "replace").decode()
