"""`parkway rm`: deletes a pulled model."""

from __future__ import annotations

import click

from parkway.core.errors import Conflict
from parkway.launch.local_models import served_by
from parkway.launch.settings import BUILT_IN
from parkway.store.home import Home
from parkway.store.models import PulledModels, readable_bytes


@click.command("rm")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(name: str, yes: bool) -> None:
    """Delete the pulled model NAME, or what a broken pull has left of it.

    A model that a running Parkway serves is not deleted.

    \b
    Examples:
      parkway rm Qwen3-0.6B
      parkway rm Qwen3-0.6B --yes
    """
    if name in BUILT_IN:
        raise Conflict(f'"{name}" is a built-in model and comes with the package; it cannot be deleted')
    home = Home.open()
    models = PulledModels(home)
    model = models.find(name)
    if model is not None and (running := served_by(home, model.path)) is not None:
        raise Conflict(
            f'Parkway at {running.url} (pid {running.pid}) serves "{name}"; stop it first, or take the model out '
            "of parkway.yaml and start it again"
        )
    if model is not None and not yes:
        click.confirm(f"Delete {name} ({readable_bytes(model.size_bytes)}, from {model.manifest.source})?", abort=True)
    freed = models.remove(name)
    click.echo(f"deleted {name}; {readable_bytes(freed)} are free again")
