"""Compiles the engine's kernels while Parkway is installed; a hook of hatchling.

Without a C compiler, or on another processor than x86-64, the package is as good as without them: torch does the work.
"""

import os
import platform
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("src/parkway/engine/native")
FLAGS = ("-O3", "-std=c11", "-shared", "-fPIC", "-fno-math-errno", "-Wall", "-Wextra")


class BuildKernels(BuildHookInterface):
    """Puts kernels.so beside the sources, and into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the hook's signature
        library = Path(self.root, FOLDER, "kernels.so")
        reason = _compile(Path(self.root, FOLDER), library)
        if reason:
            library.unlink(missing_ok=True)
            self.app.display_warning(f"The engine goes without its fast kernels: {reason}.")
            return
        build_data["artifacts"].append(f"/{FOLDER}/kernels.so")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sys.platform}_{platform.machine()}"


def _compile(folder: Path, library: Path) -> str | None:
    """Make `library` in one step, for engines may be starting meanwhile; returns why that cannot be."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"they are for Linux on x86-64, not for {sys.platform} on {platform.machine()}"
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        return "there is no C compiler (Debian: apt install gcc libc6-dev; then install Parkway again)"
    new = library.with_suffix(".new")
    digest = runpy.run_path(str(folder / "sources.py"))["digest"](folder)
    sources = sorted(str(path) for path in folder.glob("*.c"))
    made = subprocess.run(  # noqa: S603 - the compiler, on our own sources
        [compiler, *FLAGS, f'-DPARKWAY_SOURCES="{digest}"', "-o", str(new), *sources, "-lm"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        new.unlink(missing_ok=True)
        return f"{compiler} failed: {made.stderr.strip()[-2000:]}"
    new.replace(library)
    return None
