"""A virtual environment for each peer, so that nobody's versions get into anybody's way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

BUILD = {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"}
"""llama.cpp is built from its sources for this very processor; its readers of pictures are left out."""


class NotInstalled(Exception):
    """A peer's packages cannot be had here; the text says why."""


def interpreter(name: str, cache: Path) -> Path:
    """The Python of the environment of `name`, which has exactly what `bench/peers/NAME.txt` pins.

    Raises:
        NotInstalled: pip failed.
    """
    wanted = (HERE / f"{name}.txt").read_text()
    folder = cache / name
    python, installed, log = folder / "bin/python", folder / "installed.txt", cache / f"{name}-install.log"
    if installed.is_file() and installed.read_text() == wanted:
        return python
    print(f"installs {name} (minutes; {log})", flush=True)
    steps = (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        # The pins are whole: without --no-deps pip would look for more, such as gigabytes of CUDA for torch.
        [str(python), "-m", "pip", "install", "--no-deps", "--no-input", "-r", str(HERE / f"{name}.txt")],
    )
    with log.open("w") as output:
        for step in steps:
            status = subprocess.run(step, stdout=output, stderr=output, env={**os.environ, **BUILD}).returncode
            if status != 0:
                raise NotInstalled(f"not installed: {_reason(log)} ({log})")
    installed.write_text(wanted)
    return python


def _reason(log: Path) -> str:
    """The last line of pip's log that says what was wrong."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["pip said nothing"])[-1].strip()
