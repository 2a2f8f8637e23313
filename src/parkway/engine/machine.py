"""What this process may use of the machine, containers considered."""

import ctypes
import os
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def cores() -> int:
    """Physical cores that this process may run on; two threads on one core only fight over its multipliers."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    physical = {_core_of(cpu) for cpu in allowed}
    return max(1, min(len(physical), _cpu_quota(len(allowed))))


def memory_bytes() -> int:
    """Main memory that this process may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read(_CGROUP / "memory.max")
    return min(total, int(limit)) if limit.isdigit() else total


def give_back_memory() -> None:
    """Return to the system what was freed: glibc keeps it, and a model has just been read and laid out anew."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)


def keep_memory() -> None:
    """Let what a step frees be there for the next one. glibc would return it and get it back page by page, zeroed, at
    each step: measured, a twentieth of the time of reading prompts."""
    if sys.platform == "linux":
        option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if option is not None:
            option(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc takes
            option(_M_TRIM_THRESHOLD, 64 << 20)


def _core_of(cpu: int) -> str:
    """The hardware threads of the core that `cpu` belongs to, which names the core."""
    siblings = _read(Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"))
    return siblings or str(cpu)


def _cpu_quota(default: int) -> int:
    """Whole processors that a container's quota amounts to. Source: kernel.org, cgroup-v2, cpu.max."""
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    return max(1, int(quota) // int(period)) if quota.isdigit() and period.isdigit() else default


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # not Linux, or no such limit
        return ""
