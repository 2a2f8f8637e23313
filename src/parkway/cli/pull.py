"""`parkway pull`: gets a model from a hub."""

from __future__ import annotations

import os
import sys
import time
from contextlib import nullcontext
from typing import Protocol

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress

from parkway.launch.hub import DEFAULT_ENDPOINT, Hub, RemoteFile
from parkway.launch.pull import Progress, Reference, pull
from parkway.store.home import Home
from parkway.store.models import PulledModels, readable_bytes


@click.command("pull")
@click.argument("model", metavar="OWNER/NAME[@REVISION]")
@click.option("--name", help="What the model is called here.  [default: the repository's NAME]")
@click.option("--endpoint", help="The hub.  [default: $HF_ENDPOINT, else https://huggingface.co]")
def command(model: str, name: str | None, endpoint: str | None) -> None:
    """Get a model from Hugging Face into $PARKWAY_HOME/models.

    Safetensors weights only, of families that the engine runs. Every file is checked against the hub's checksum. A
    pull that was broken off goes on where it was when it is given again; one of a newer commit takes the place of the
    older one. REVISION is a branch, a tag or a commit. For gated and private repositories set $HF_TOKEN, which is sent
    to the hub alone.

    \b
    Examples:
      parkway pull Qwen/Qwen3-0.6B
      parkway pull Qwen/Qwen3-0.6B@c1899de289a04d12100db370d81485cdf75e47ca --name qwen
      parkway pull my/model --endpoint https://hub.example.com
    """
    reference = Reference.parse(model)
    models = PulledModels(Home.open())
    token = os.environ.get("HF_TOKEN", "").strip() or None
    hub = Hub(endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT, token, models.folder / ".hub")
    with _progress() as progress:
        pulled = pull(hub, models, reference, name or reference.name, progress)
    click.echo(f"{pulled.name} is here ({readable_bytes(pulled.size_bytes)}): parkway engine --model {pulled.name}")


class _Context(Protocol):
    def __enter__(self) -> Progress: ...

    def __exit__(self, *details: object) -> bool | None: ...


def _progress() -> _Context:
    """A bar on a terminal, lines elsewhere; on standard error both."""
    return _Bars() if sys.stderr.isatty() else nullcontext(_Lines())


class _Lines:
    """One line for each file, when it has come."""

    def __init__(self) -> None:
        self._action = ""
        self._file: RemoteFile | None = None
        self._begun_s = 0.0

    def say(self, line: str) -> None:
        click.echo(line, err=True)

    def begin(self, action: str, file: RemoteFile, have_bytes: int) -> None:
        self._action, self._file, self._begun_s = action, file, time.monotonic()
        if have_bytes:
            self.say(f"going on with {file.name} after {readable_bytes(have_bytes)}")

    def advance(self, size_bytes: int) -> None:
        """Nothing: a log has no use for it."""

    def end(self) -> None:
        if self._file is not None and self._action == "pulling":
            took = time.monotonic() - self._begun_s
            self.say(f"pulled {self._file.name} ({readable_bytes(self._file.size_bytes)} in {took:.1f} s)")


class _Bars:
    """A bar for the file that is at hand, and a line for each that is done."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        text = TextColumn("{task.description}", markup=False)
        self._rich = RichProgress(text, *columns, console=console, transient=True)
        self._lines = _Lines()

    def __enter__(self) -> _Bars:
        self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._rich.stop()

    def say(self, line: str) -> None:
        self._rich.console.print(line, markup=False, highlight=False)

    def begin(self, action: str, file: RemoteFile, have_bytes: int) -> None:
        self._action, self._file = action, file
        self._task = self._rich.add_task(f"{action} {file.name}", total=file.size_bytes, completed=have_bytes)

    def advance(self, size_bytes: int) -> None:
        self._rich.advance(self._task, size_bytes)

    def end(self) -> None:
        self._rich.remove_task(self._task)
        if self._action == "checking":
            self.say(f"{self._file.name}  {readable_bytes(self._file.size_bytes)}")
