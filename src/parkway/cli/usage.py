"""`parkway usage`: what was used and what it cost."""

from __future__ import annotations

import time
from pathlib import Path

import click

from parkway.cli.listing import print_json, print_table
from parkway.cli.options import Duration, config_option, json_option
from parkway.cli.state import open_store
from parkway.feedback.usage import GROUPS, GroupBy, UsageRow, usage

_COLUMNS = ("requests", "prompt tokens", "completion tokens", "usd")


@click.command("usage")
@click.option("--by", "group_by", type=click.Choice(GROUPS), default="model", show_default=True, help="The groups.")
@click.option("--since", type=Duration(), default="30d", show_default=True, help="The window, up to now: 1h, 7d.")
@click.option("--key", help="Only this key, by its id.")
@click.option("--user", help="Only this user.")
@click.option("--team", help="Only this team.")
@click.option("--model", help="Only this model.")
@click.option("--agent", help="Only this agent.")
@click.option("--task", help="Only this task.")
@config_option
@json_option
def command(group_by: GroupBy, since: float, config: Path | None, as_json: bool, **only: str | None) -> None:
    """Show what was used and what it cost, by key, user, team, model, agent, task or day.

    Money is by the prices that models had when they were asked. Days are those of UTC.

    \b
    Examples:
      parkway usage
      parkway usage --by team --since 7d
      parkway usage --by day --team research --json
    """
    now_ms = time.time_ns() // 1_000_000
    filters = {name: value for name, value in only.items() if value is not None}
    with open_store(config) as (_, database), database.read() as connection:
        found = usage(connection, group_by, now_ms - int(since * 1000), now_ms + 1, filters)
    if as_json:
        print_json(found)
    elif not found.data:
        click.echo("no requests in this window; a longer one: parkway usage --since 365d", err=True)
    else:
        rows = [_row(row.name or row.group, row) for row in found.data]
        print_table((group_by, *_COLUMNS), [*rows, _row("total", found.total)])


def _row(name: str | None, row: UsageRow) -> tuple[object, ...]:
    return (name, row.requests, row.prompt_tokens, row.completion_tokens, f"{row.cost_usd:.6f}")
