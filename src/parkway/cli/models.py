"""`parkway models`: which models there are, and where each is served."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import click

from parkway.cli.listing import print_json, print_table
from parkway.cli.options import config_option, json_option
from parkway.cli.state import open_store, settings_in_force
from parkway.launch import running
from parkway.launch.registry import open_registry


@click.command("models")
@config_option
@json_option
def command(config: Path | None, as_json: bool) -> None:
    """List the models and where each is served.

    \b
    Examples:
      parkway models
      parkway models --json
    """
    with open_store(config) as (home, database):
        registry = open_registry(settings_in_force(home, config), home, database, lambda _: None)
        endpoints = registry.list()
        runs = running.read(home) is not None
    if not runs:
        # A supervisor that was killed could not say that its engines are gone.
        endpoints = [replace(found, state="down") if found.source == "local" else found for found in endpoints]
    if as_json:
        print_json([asdict(endpoint) for endpoint in endpoints])
        return
    columns = ("model", "state", "endpoint", "url", "weight")
    print_table(columns, [(e.model, e.state, e.endpoint_id, e.url, e.weight) for e in endpoints])
    if not runs:
        click.echo("Parkway is not running on this home; start it with: parkway up", err=True)
