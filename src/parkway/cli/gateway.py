"""`parkway gateway`: one gateway process, started by `parkway up`."""

from __future__ import annotations

import socket
from pathlib import Path

import click

from parkway.cli.options import config_option, lifeline_option
from parkway.launch import lifeline as life
from parkway.launch.gateway import run
from parkway.launch.listener import bind
from parkway.launch.process_log import log_to_stderr
from parkway.launch.settings import Settings
from parkway.store.home import Home


@click.command("gateway", hidden=True)
@config_option
@click.option(
    "--fd",
    "fds",
    type=int,
    multiple=True,
    help="A listening socket, inherited; may be repeated.  [default: listen as configured]",
)
@click.option(
    "--source",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file whose changes are followed.  [default: --config]",
)
@lifeline_option
def command(config: Path | None, fds: tuple[int, ...], source: Path | None, lifeline: int | None) -> None:
    """Serve the gateway alone. `parkway up` starts it; the models that it knows are those in the store.

    \b
    Example:
      parkway gateway --config parkway.yaml
    """
    if lifeline is not None:
        life.hold(lifeline)
    log_to_stderr()
    settings = Settings.find(config)
    listeners = [socket.socket(fileno=fd) for fd in fds] or [bind(settings.gateway.host, settings.gateway.port)]
    run(settings, Home.open(), listeners, source or config)
