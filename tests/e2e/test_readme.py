"""The README's tour, run as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import Parkway

ROOT = Path(__file__).parents[2]


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in `language`, in order."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


@pytest.mark.timeout(300)
def test_the_tour(tmp_path: Path) -> None:
    if not (ROOT / "src/parkway/models/park-mini/model.safetensors").exists():
        pytest.skip("the tour asks park-mini, whose weights are not here")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with Parkway(tmp_path / "home", {}) as running:
        shell = "\n".join(
            ["set -eu", *blocks("sh"), f"{sys.executable} - <<'PYTHON'\n{blocks('python')[0]}\nPYTHON"]
        ).replace("http://127.0.0.1:8000", running.url)
        shell = shell.replace("source .venv/bin/activate", f'export PATH="{Path(sys.executable).parent}:$PATH"')
        done = subprocess.run(
            ["bash", "-c", shell],
            cwd=tmp_path,
            env={**os.environ, **running.environment},
            capture_output=True,
            text=True,
            timeout=250,
        )
        assert done.returncode == 0, done.stderr
        for expected in ("tar", '"id":"park-mini"', '"thumb":"up"', "park-mini", "docs/keys-and-limits.md:", "[1]"):
            assert expected in done.stdout.replace('": ', '":'), done.stdout
