"""`parkway chat` as a real process, against a real gateway."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch.stage import SlowModel, Up, environment, parkway, up, wait_until


@pytest.fixture
def slow(model: SlowModel) -> Iterator[SlowModel]:
    """The model, which answers at once unless a test stops it."""
    model.left.clear()
    model.go.set()
    yield model
    model.go.set()


@pytest.fixture(scope="module")
def model() -> Iterator[SlowModel]:
    model = SlowModel()
    yield model
    model.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, model: SlowModel) -> Iterator[Up]:
    models = {"slow": model.url, "gone": "http://127.0.0.1:9/v1"}
    with up(tmp_path_factory.mktemp("chat") / "home", {"models": models}) as started:
        yield started.ready()


def test_one_message_one_answer(gateway: Up, slow: SlowModel) -> None:
    done = parkway(gateway.home, "chat", "--model", "slow", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, "one two\n", "")


def test_a_message_from_standard_input(gateway: Up, slow: SlowModel) -> None:
    done = parkway(gateway.home, "chat", "--model", "slow", text="from a pipe\n")
    assert done.stdout == "one two\n"
    assert slow.messages[-1][-1]["content"] == "from a pipe"
    assert parkway(gateway.home, "chat", "--model", "slow").returncode == 2


def test_a_named_conversation_is_remembered(gateway: Up, slow: SlowModel) -> None:
    for message in ("first", "second"):
        parkway(gateway.home, "chat", "--model", "slow", "--conversation", "remembered", message)
    contents = [message["content"] for message in slow.messages[-1]]
    assert contents == ["first", "one two", "second"]
    parkway(gateway.home, "chat", "--model", "slow", "without a name")
    assert len(slow.messages[-1]) == 1


def test_ctrl_c_stops_the_answer_at_the_endpoint_too(gateway: Up, slow: SlowModel) -> None:
    slow.go.clear()
    command = [sys.executable, "-m", "parkway", "chat", "--model", "slow", "hello"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(gateway.home))
    assert process.stdout is not None
    assert process.stdout.read(3) == b"one"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert slow.left.wait(60)


def test_back_and_forth_on_a_terminal(gateway: Up, slow: SlowModel) -> None:
    terminal = Terminal(gateway.home, "chat", "--model", "slow")
    terminal.enter("hello\n")
    terminal.expect("one two")
    terminal.enter("/good it was\n")
    terminal.expect("noted")
    slow.go.clear()
    terminal.enter("again\n")
    terminal.expect("one")
    terminal.type("\x03")
    terminal.expect("(stopped)")
    assert slow.left.wait(60)
    slow.go.set()
    terminal.enter("/new\n")
    terminal.expect("a new conversation")
    terminal.enter("and now\n")
    terminal.expect("one two")
    assert len(slow.messages[-1]) == 1
    terminal.enter("\x04")
    assert terminal.wait() == 0


def test_an_error_does_not_end_the_talk(gateway: Up, slow: SlowModel) -> None:
    terminal = Terminal(gateway.home, "chat", "--model", "gone")
    terminal.enter("hello\n")
    terminal.expect("error: ")
    terminal.enter("/exit\n")
    assert terminal.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "slw", "x"], 'error: model "slw" does not exist. Did you mean "slow"?'),
        (["x"], "error: several models are served; choose one with --model: gone, slow"),
        (["--model", "slow", "--conversation", "a/b", "x"], "error: "),
        (["--url", "http://127.0.0.1:9", "x"], "error: --url needs the key of that gateway"),
    ],
)
def test_what_is_refused(gateway: Up, arguments: list[str], message: str) -> None:
    done = parkway(gateway.home, "chat", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_gateway(tmp_path: Path) -> None:
    done = parkway(tmp_path / "home", "chat", "hello")
    assert done.returncode == 3
    assert "start it with: parkway up" in done.stderr


class Terminal:
    """A command on a terminal of its own, as a person would use it."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self._seen = ""
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.execve(
                sys.executable, [sys.executable, "-m", "parkway", *arguments], {**environment(home), "TERM": "dumb"}
            )

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def enter(self, text: str) -> None:
        """Types when it is asked to."""
        self.expect("> ")
        self.type(text)

    def expect(self, text: str) -> None:
        """Waits until `text` is printed, after what was expected before."""
        deadline = time.monotonic() + 60
        while (found := self._seen.find(text)) < 0:
            assert time.monotonic() < deadline, f"{text!r} did not come; there is {self._seen!r}"
            if select.select([self._fd], [], [], 0.1)[0]:
                self._seen += re.sub(r"\x1b\[[?0-9;]*[a-z]", "", os.read(self._fd, 4096).decode())
        self._seen = self._seen[found + len(text) :]

    def wait(self) -> int:
        """The exit code."""
        status: list[int] = []

        def ended() -> bool:
            pid, code = os.waitpid(self._pid, os.WNOHANG)
            status.append(code)
            return pid != 0

        wait_until(ended, "the end of the command")
        os.close(self._fd)
        return os.waitstatus_to_exitcode(status[-1])
