"""`parkway list`: the models on this machine."""

from __future__ import annotations

import click

from parkway.cli.listing import print_json, print_table
from parkway.cli.options import json_option
from parkway.launch.local_models import LocalModel, local_models
from parkway.store.home import Home
from parkway.store.models import readable_bytes


@click.command("list")
@json_option
def command(as_json: bool) -> None:
    """List the models on this machine: the built-in ones, and those that were pulled.

    Only whole models are listed. Which of them are served: parkway models.

    \b
    Examples:
      parkway list
      parkway list --json
    """
    models = local_models(Home.open())
    if as_json:
        print_json([_shown(model) for model in models])
        return
    rows = [
        (
            model.name,
            readable_bytes(model.size_bytes),
            readable_count(model.facts.parameters) if model.facts else None,
            model.facts.family if model.facts else None,
            model.source,
        )
        for model in models
    ]
    print_table(("model", "size", "parameters", "family", "source"), rows)


def readable_count(count: int) -> str:
    """A number of parameters for people: `0.6 B`, `22.7 M`."""
    return f"{count / 1e9:.1f} B" if count >= 5e8 else f"{count / 1e6:.1f} M"


def _shown(model: LocalModel) -> dict[str, object]:
    """What a program reads about a model."""
    return {
        "name": model.name,
        "size_bytes": model.size_bytes,
        "parameters": model.facts.parameters if model.facts else None,
        "family": model.facts.family if model.facts else None,
        "source": model.source,
        "built_in": model.manifest is None,
        "path": str(model.path),
    }
