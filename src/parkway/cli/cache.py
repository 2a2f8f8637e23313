"""`parkway cache`: what is kept of answers."""

from __future__ import annotations

from pathlib import Path

import click

from parkway.aggregate.response_cache.generations import clear
from parkway.cli.listing import print_json
from parkway.cli.options import config_option, json_option
from parkway.cli.state import open_store


@click.group("cache")
def command() -> None:
    """Clear the response cache.

    \b
    Example:
      parkway cache clear
    """


@command.command("clear")
@click.option("--model", help="Only the answers of this model.")
@config_option
@json_option
def clear_answers(model: str | None, config: Path | None, as_json: bool) -> None:
    """Have no gateway give an answer again that it has kept until now. All of them hear of it within a second.

    \b
    Examples:
      parkway cache clear
      parkway cache clear --model park-mini
    """
    with open_store(config) as (_, database), database.begin() as connection:
        clear(connection, model)
    if as_json:
        print_json({"cleared": True, "model": model})
    else:
        click.echo(f'cleared the answers of "{model}"' if model else "cleared all answers")
