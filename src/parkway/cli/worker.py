"""`parkway worker`: the worker process, started by `parkway up`."""

from __future__ import annotations

from pathlib import Path

import click

from parkway.cli.options import config_option, lifeline_option
from parkway.launch import lifeline as life
from parkway.launch.process_log import log_to_stderr
from parkway.launch.settings import Settings
from parkway.launch.worker import run
from parkway.store.home import Home


@click.command("worker", hidden=True)
@config_option
@click.option(
    "--source",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file whose changes are followed.  [default: --config]",
)
@lifeline_option
def command(config: Path | None, source: Path | None, lifeline: int | None) -> None:
    """Run the worker alone: what has to be done now and then. `parkway up` starts it.

    \b
    Example:
      parkway worker --config parkway.yaml
    """
    if lifeline is not None:
        life.hold(lifeline)
    log_to_stderr()
    run(Settings.find(config), Home.open(), source or config)
