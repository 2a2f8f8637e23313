"""What a process may use of its machine, in a container too."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from parkway.engine import machine


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
    program = """
        import os
        from parkway.engine import machine
        from tests.running import resident_mib

        before = resident_mib(os.getpid())
        held = [bytearray(b"x" * 50_000) for _ in range(2000)]  # too small for mappings of their own
        kept = bytearray(50_000)  # at the end of the heap: without help the rest stays
        assert resident_mib(os.getpid()) > before + 80
        del held
        machine.give_back_memory()
        assert resident_mib(os.getpid()) < before + 40
    """
    in_a_process(program)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is asked")
def test_what_a_step_frees_is_there_for_the_next_one() -> None:
    program = """
        import ctypes, resource
        from parkway.engine import machine

        machine.keep_memory()
        library = ctypes.CDLL(None)
        library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        library.free.argtypes = [ctypes.c_void_p]

        def use() -> int:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            places = [library.malloc(10 << 20) for _ in range(4)]
            for place in places:
                ctypes.memset(place, 1, 10 << 20)
            for place in places:
                library.free(place)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        first, second = use(), use()
        assert first > 8000 and second < 100, (first, second)
    """
    in_a_process(program)


def in_a_process(program: str) -> None:
    """Memory is that of a process: what other tests did to it must not count."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
