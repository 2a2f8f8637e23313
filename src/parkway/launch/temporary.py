"""A Parkway for the length of one command: one model, any free port, gone with whoever started it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parkway.core.errors import ParkwayError, StartupError
from parkway.launch import lifeline
from parkway.launch.local import up
from parkway.launch.settings import ModelConfig, Settings
from parkway.store.home import Home

_STOP_S = 60.0


@contextmanager
def temporary(settings: Settings, home: Home, name: str, model: ModelConfig) -> Iterator[None]:
    """Runs Parkway on `home` with the one model `name` within the context.

    Args:
        settings: What holds for everything else.

    Raises:
        StartupError: It does not start; the message has its reasons.
    """
    held = lifeline.Lifeline()
    with _configuration(settings, name, model) as config, tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", "-m", "parkway.launch.temporary", str(held.child_fd), str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, "PARKWAY_HOME": str(home.path)},
            pass_fds=(held.child_fd,),
            start_new_session=True,  # Ctrl-C stops an answer, not what makes it
        )
        try:
            if process.stdout is None or not process.stdout.readline().startswith("ready "):
                process.wait(_STOP_S)
                said.seek(0)
                errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
                raise StartupError("".join(errors).strip() or f"Parkway ended with exit code {process.returncode}")
            yield
        finally:
            _stop(process)
            held.close()


@contextmanager
def _configuration(settings: Settings, name: str, model: ModelConfig) -> Iterator[Path]:
    """The settings with that model alone as a file, which may hold the password of the database: its owner's alone."""
    gateway = settings.gateway.model_copy(update={"host": "127.0.0.1", "port": 0})
    loaded = model.model_copy(update={"load": "start", "keep_alive_s": None})
    alone = settings.model_copy(update={"gateway": gateway, "models": {name: loaded}, "pulled_models": False})
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(alone.model_dump_json(exclude_unset=True))  # JSON is YAML
        file.flush()
        yield Path(file.name)


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _serve(fd: int, config: Path) -> int:
    """The process itself."""
    lifeline.hold(fd)
    try:
        return up(Settings.find(config), Home.open(), lambda _: None, lambda url: print(f"ready {url}", flush=True))
    except ParkwayError as error:
        for line in error.message.splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(_serve(int(sys.argv[1]), Path(sys.argv[2])))
