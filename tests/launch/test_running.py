"""The file by which other commands find a running Parkway."""

import os
import subprocess
import sys
from pathlib import Path

from parkway.launch import running
from parkway.launch.running import Running
from parkway.store.home import Home


def test_written_read_and_removed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert running.read(home) is None
    running.write(home, Running(url="http://127.0.0.1:1", pid=os.getpid()))
    assert running.read(home) == Running(url="http://127.0.0.1:1", pid=os.getpid())
    running.remove(home)
    running.remove(home)
    assert running.read(home) is None


def test_a_file_that_a_killed_one_left_behind_counts_for_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(30)
    running.write(Home(tmp_path), Running(url="http://127.0.0.1:1", pid=process.pid))
    assert running.read(Home(tmp_path)) is None


def test_a_damaged_file_counts_for_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for content in (b"", b"{", b'{"url": 1}', b"[]"):
        home.run_file.write_bytes(content)
        assert running.read(home) is None


def test_one_that_ended_unnoticed_by_its_parent_is_not_running(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays to be waited for
    running.write(home, Running(url="http://h", pid=process.pid))
    assert running.read(home) is None
    process.wait()
