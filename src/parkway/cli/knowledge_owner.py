"""`parkway knowledge-owner`: the process that has the documents' index open, started by `parkway up`."""

from __future__ import annotations

import socket
from pathlib import Path

import click

from parkway.cli.options import config_option, lifeline_option
from parkway.launch import lifeline as life
from parkway.launch.process_log import log_to_stderr
from parkway.launch.settings import Settings
from parkway.store.home import Home


@click.command("knowledge-owner", hidden=True)
@config_option
@click.option("--partition", type=click.IntRange(0, 63), default=0, help="Which part of the documents, from 0.")
@click.option("--partitions", type=click.IntRange(1, 64), default=1, help="How many parts there are.")
@click.option("--replica", type=click.IntRange(0, 16), default=0, help="Which replica, from 1; 0: the owner.")
@click.option("--fd", type=int, help="A bound socket, inherited.  [default: a free port of 127.0.0.1]")
@click.option(
    "--source",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file whose changes are followed.  [default: --config]",
)
@lifeline_option
def command(
    config: Path | None,
    partition: int,
    partitions: int,
    replica: int,
    fd: int | None,
    source: Path | None,
    lifeline: int | None,
) -> None:
    """Own the documents alone: their index, their encoder, their ingestion; or be a replica that answers searches.
    `parkway up` starts it.

    Prints `ready http://HOST:PORT` once its indexes are open. $PARKWAY_ENGINE_TOKEN is what clients must send.

    \b
    Example:
      parkway knowledge-owner --config parkway.yaml
    """
    if lifeline is not None:
        life.hold(lifeline)
    log_to_stderr()
    settings = Settings.find(config)
    # Imported late: torch takes seconds, and a wrong option is told before that.
    from parkway.launch.owner import run
    from parkway.launch.replica import run_replica

    listener = socket.create_server(("127.0.0.1", 0)) if fd is None else socket.socket(fileno=fd)
    if replica:
        run_replica(settings, Home.open(), listener, replica, source or config)
    else:
        run(settings, Home.open(), listener, partition, partitions, source or config)
