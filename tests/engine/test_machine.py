"""What a process may use of its machine, in a container too."""

import os
import sys
from pathlib import Path

import pytest

from parkway.engine import machine
from tests.running import resident_mib


def test_never_more_than_there_is() -> None:
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)
    assert 0 < machine.memory_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("quota", "expected"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", None), ("", None)]
)
def test_a_containers_share_of_the_processor_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int | None
) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path / "none")
    unlimited = machine.cores()
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text(quota)
    assert machine.cores() == (expected or unlimited)


def test_a_containers_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000000\n")
    assert machine.memory_bytes() == 1_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory_bytes() > 1_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process holds in memory")
def test_what_was_freed_goes_back_to_the_system() -> None:
    machine.give_back_memory()
    before = resident_mib(os.getpid())
    held = [bytearray(b"x" * 50_000) for _ in range(2000)]  # too small for mappings of their own
    kept = bytearray(50_000)  # at the end of the heap: without help the rest stays
    assert resident_mib(os.getpid()) > before + 80
    del held
    machine.give_back_memory()
    assert resident_mib(os.getpid()) < before + 40
    del kept
