"""`parkway ps`: which local models are loaded, and what they use."""

from __future__ import annotations

import click

from parkway.cli.listing import print_json, print_table
from parkway.cli.options import json_option
from parkway.core.errors import StartupError
from parkway.launch.control import ModelState, overview
from parkway.store.home import Home
from parkway.store.models import readable_bytes

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


@click.command("ps")
@json_option
def command(as_json: bool) -> None:
    """Show each local model of the Parkway that runs on this home: its state, its memory, and when it is unloaded.

    knowledge: the process that has the documents open; it counts as models do.
        asleep: loaded when somebody asks for it. waiting: for memory that others use. given up: it cannot be loaded.

    \b
    Examples:
      parkway ps
      parkway ps --json
    """
    home = Home.open()
    found = overview(home)
    if found is None:
        raise StartupError(f"no Parkway runs on this home ({home.path}); start it with: parkway up")
    if as_json:
        print_json(found)
        return
    columns = ("name", "state", "since", "memory", "needs up to", "requests", "unloaded in")
    print_table(columns, [_row(model) for model in found.models])
    click.echo(f"{readable_bytes(found.used_bytes)} of {readable_bytes(found.limit_bytes)} in use", err=True)
    for model in found.models:
        if model.reason:
            click.echo(f"{model.name}: {model.reason}", err=True)


def _row(model: ModelState) -> tuple[object, ...]:
    return (
        model.name,
        model.state,
        readable_s(model.since_s),
        None if model.memory_bytes is None else readable_bytes(model.memory_bytes),
        None if model.needs_bytes is None else readable_bytes(model.needs_bytes),
        model.requests,
        None if model.unloads_in_s is None else readable_s(model.unloads_in_s),
    )


def readable_s(seconds: float) -> str:
    """A length of time for people: `12 s`, `5 min`, `3 h`."""
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"
