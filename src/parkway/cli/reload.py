"""`parkway reload`: new gateway processes, without a refused request."""

from __future__ import annotations

import click

from parkway.launch.control import reload
from parkway.store.home import Home


@click.command("reload")
def command() -> None:
    """Replace the gateway processes of the Parkway that runs on this home, while they serve.

    New ones start on the same port; once they serve, the old ones accept no more connections and finish the answers
    that they have, for up to `gateway.drain_s`. Returns when the new ones serve. If they cannot start, the old ones
    stay. SIGHUP to `parkway up` does the same.

    \b
    Example:
      parkway reload
    """
    reload(Home.open())
    click.echo("reloaded")
