"""The home at start: made, usable, on a disk with room, and one Parkway at a time."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from parkway.core.errors import StartupError
from parkway.store.home import Home
from parkway.store.sql import Database


class TestOpen:
    def test_makes_it_for_the_owner_alone(self, tmp_path: Path) -> None:
        home = Home.open(tmp_path / "a" / "b")
        assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
        assert [path.name for path in home.path.iterdir()] == ["logs"]
        assert home.database_url == f"sqlite:///{tmp_path}/a/b/parkway.db"

    def test_the_argument_comes_before_the_environment_before_the_default(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("PARKWAY_HOME", raising=False)
        assert Home.open().path == tmp_path / ".parkway"
        monkeypatch.setenv("PARKWAY_HOME", "~/elsewhere")
        assert Home.open().path == tmp_path / "elsewhere"
        assert Home.open(tmp_path / "here").path == tmp_path / "here"

    def test_a_relative_path_is_made_absolute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert Home.open(Path("home")).path == tmp_path / "home"

    @pytest.mark.parametrize("name", ["a b", "a?b=c", "100%25", "ü#@:"])
    def test_the_database_is_inside_whatever_the_home_is_called(self, tmp_path: Path, name: str) -> None:
        home = Home.open(tmp_path / name)
        Database.open(home.database_url).close()
        assert (tmp_path / name / "parkway.db").is_file()

    def test_a_file_in_its_place_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "home").write_text("")
        with pytest.raises(StartupError, match="home is not a directory"):
            Home.open(tmp_path / "home")
        with pytest.raises(StartupError, match="not a directory"):
            Home.open(tmp_path / "home" / "deeper")

    def test_an_unwritable_place_is_told(self, somebody_elses: Path) -> None:
        with pytest.raises(StartupError, match=r"Permission denied .*Set PARKWAY_HOME to a directory"):
            Home.open(somebody_elses / "home")

    def test_an_unwritable_home_is_told(self, somebody_elses: Path) -> None:
        with pytest.raises(StartupError, match=r"Permission denied"):
            Home.open(somebody_elses)

    def test_a_full_disk_is_told(self, small_disk: Path) -> None:
        home = Home.open(small_disk / "home")
        fill(small_disk / "filler")
        with pytest.raises(StartupError, match=r"disk of the home .* is full \(0 KiB are free"):
            Home.open(home.path)
        assert not list(home.path.glob(".probe*"))
        (small_disk / "filler").unlink()
        Home.open(home.path)

    def test_a_limit_on_the_size_of_files_is_told_as_a_full_disk(self, tmp_path: Path) -> None:
        program = (
            "import resource, sys; from pathlib import Path; from parkway.store.home import Home\n"
            "from parkway.core.errors import StartupError\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            f"try: Home.open(Path({str(tmp_path)!r}))\n"
            "except StartupError as error: print(error)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert "is full" in done.stdout, done.stderr


class TestLock:
    def test_a_second_one_is_refused_with_the_first_ones_pid(self, tmp_path: Path) -> None:
        home = Home.open(tmp_path)
        with (
            home.lock(),
            pytest.raises(StartupError, match=rf"Another Parkway \(pid {os.getpid()}\) runs on this home"),
        ):
            home.lock()
        home.lock().release()

    def test_the_refusal_has_the_address_of_the_first_one_once_it_is_up(self, tmp_path: Path) -> None:
        home = Home.open(tmp_path)
        with home.lock():
            home.run_file.write_text(json.dumps({"pid": os.getpid(), "url": "http://127.0.0.1:8000"}))
            with pytest.raises(StartupError, match=rf"\(pid {os.getpid()}, http://127\.0\.0\.1:8000\)"):
                home.lock()

    @pytest.mark.parametrize("left", ['{"pid": 1, "url": "http://old"}', "{half", "[]", "\xff", ""])
    def test_what_an_earlier_run_left_is_not_told(self, tmp_path: Path, left: str) -> None:
        home = Home.open(tmp_path)
        home.run_file.write_bytes(left.encode("latin-1"))
        with home.lock(), pytest.raises(StartupError, match=rf"\(pid {os.getpid()}\)"):
            home.lock()

    def test_a_killed_one_leaves_no_lock(self, tmp_path: Path) -> None:
        home = Home.open(tmp_path)
        program = (
            "import time; from pathlib import Path; from parkway.store.home import Home\n"
            f"lock = Home(Path({str(tmp_path)!r})).lock(); print('locked', flush=True); time.sleep(60)"
        )
        holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(StartupError, match=f"pid {holder.pid}"):
            home.lock()
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
        home.lock().release()

    def test_children_do_not_hold_it(self, tmp_path: Path) -> None:
        home = Home.open(tmp_path)
        with home.lock():
            child = subprocess.Popen(["sleep", "60"], close_fds=False)
        home.lock().release()
        child.kill()
        child.wait()


def fill(path: Path) -> None:
    """Writes until the disk has nothing left."""
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        while True:
            file.write(b"x" * 4096)
