"""`parkway run` as a real process: on a Parkway of its own, gone with it, or on the one that runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch.stage import SlowModel, environment, parkway, processes_of, up, wait_until


@pytest.fixture
def slow() -> Iterator[SlowModel]:
    model = SlowModel()
    yield model
    model.close()


@pytest.fixture
def home(tmp_path: Path, slow: SlowModel) -> Path:
    """A home beside a parkway.yaml that names one model, elsewhere and quick to start, and a broken one."""
    (tmp_path / "parkway.yaml").write_text(f"models: {{slow: '{slow.url}', broken: {{path: ./none}}}}")
    return tmp_path / "home"


def test_it_starts_a_parkway_for_one_answer_and_stops_it(home: Path, slow: SlowModel) -> None:
    slow.go.set()
    done = parkway(home, "run", "slow", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, "one two\n", "")
    assert not processes_of(home)
    assert not (home / "run.json").exists()


def test_it_uses_the_one_that_runs_and_leaves_it_running(home: Path, slow: SlowModel) -> None:
    slow.go.set()
    with up(home, {"models": {"slow": slow.url}}) as started:
        started.ready()
        assert parkway(home, "run", "slow", text="from a pipe").stdout == "one two\n"
        assert slow.messages[-1][-1]["content"] == "from a pipe"
        assert started.request("GET", "/readyz").status == 200
        missing = parkway(home, "run", "park-mini", "hello")
        assert missing.returncode == 1
        assert 'does not serve "park-mini"; add it under `models`' in missing.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_however_it_ends_nothing_is_left_behind(home: Path, slow: SlowModel, number: signal.Signals, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "parkway", "run", "slow", "hello"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(home),
        cwd=home.parent,
    )
    assert process.stdout is not None
    assert process.stdout.read(3) == b"one"
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == code
    assert b"Traceback" not in errors
    wait_until(lambda: not processes_of(home), "the end of every process of this home")


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("park-mimi", 1, 'Did you mean "park-mini"? `parkway list` shows them, `parkway pull OWNER/NAME` gets one'),
        ("broken", 3, "no such directory"),
    ],
)
def test_what_is_not_here_is_not_pulled(home: Path, name: str, code: int, message: str) -> None:
    done = parkway(home, "run", name, "hello")
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not processes_of(home)
