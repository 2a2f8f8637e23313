"""`parkway up`: starts everything and keeps it running."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import click

from parkway.cli.options import config_option
from parkway.launch.adapters import check_adapters
from parkway.launch.local import up
from parkway.launch.reload import Source
from parkway.launch.settings import FILE_NAME, Settings
from parkway.store.home import Home


@click.command("up")
@config_option
@click.option("--host", help="The address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="The port; 0 takes any free one.  [default: 8000]")
def command(config: Path | None, host: str | None, port: int | None) -> int:
    """Start Parkway: the gateway, the worker, and an engine for each local model.

    Prints `ready http://HOST:PORT` on standard output once the first request would succeed, and on standard error one
    line for each thing that happens. SIGTERM or Ctrl-C stops it: running requests are finished first. Ctrl-C again
    stops at once.

    \b
    Examples:
      parkway up
      parkway up --port 9000
      parkway up --config /etc/parkway.yaml --host 0.0.0.0
    """
    settings = Settings.find(config)
    check_adapters(settings, config or Path(FILE_NAME))
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}

    def adjust(settings: Settings) -> Settings:
        return settings.model_copy(update={"gateway": settings.gateway.model_copy(update=given)})

    source = Source((config or Path(FILE_NAME)).absolute(), adjust)
    return up(adjust(settings), Home.open(), _say, _announce, source)


def _say(line: str) -> None:
    # Whoever read this may be gone; that is no reason to stop serving.
    with contextlib.suppress(OSError, ValueError):
        print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _announce(address: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(f"ready {address}", flush=True)
