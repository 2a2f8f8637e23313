"""`parkway budgets`: how much of each budget is spent."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec

from parkway.cli.listing import print_json, print_table
from parkway.cli.options import config_option, json_option
from parkway.cli.state import open_store, settings_in_force
from parkway.policy.accounts import AccountState, states

_COLUMNS = ("kind", "subject", "period", "limit", "spent", "left", "%", "renews (UTC)")


@click.command("budgets")
@click.option("--kind", help="Only budgets of this kind: key, user, team, model, agent or task.")
@config_option
@json_option
def command(kind: str | None, config: Path | None, as_json: bool) -> None:
    """Show the budgets with what is spent of them, what is left, and when they renew.

    A budget of each subject has a line for every subject that has spent something in this period. What requests in
    flight have reserved is not in it: `GET /v1/budgets` of a running gateway has that too.

    \b
    Examples:
      parkway budgets
      parkway budgets --kind team
      parkway budgets --json
    """
    with open_store(config) as (home, database), database.read() as connection:
        budgets = settings_in_force(home, config).budgets
        found = states(connection, budgets, time.time_ns() // 1_000_000)
    found = [state for state in found if kind is None or state.kind == kind]
    if as_json:
        print_json([msgspec.structs.asdict(state) for state in found])
    elif not found:
        click.echo("no budgets; they are set in the section `budgets` of parkway.yaml", err=True)
    else:
        print_table(_COLUMNS, [_row(state) for state in found])


def _row(state: AccountState) -> tuple[object, ...]:
    renews = None
    if state.renews_ms is not None:
        renews = time.strftime("%Y-%m-%d %H:%M", time.gmtime(state.renews_ms / 1000))
    share = f"{100 * state.spent / state.limit:.1f}"
    amounts = (_amount(state, amount) for amount in (state.limit, state.spent, state.left))
    return (state.kind, state.name or state.subject, state.period, *amounts, share, renews)


def _amount(state: AccountState, amount: float) -> str:
    return f"${amount:.4f}" if state.unit == "usd" else f"{amount:.0f} tokens"
