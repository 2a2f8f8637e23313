"""`parkway permissions`: shows the policies, and explains who may do what. Works while Parkway is stopped, too."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from parkway.cli.listing import print_json
from parkway.cli.options import config_option, json_option
from parkway.cli.state import open_store, settings_in_force
from parkway.core.errors import InvalidRequest
from parkway.policy.caller import Caller
from parkway.policy.keys import KeyStore
from parkway.policy.permissions import INSTALLATION, RESOURCES, Action, Permissions
from parkway.policy.policies import load
from parkway.policy.scopes import check_scopes
from parkway.store.home import Home

DENIED = 1
"""Exit code of `check` where the answer is no."""


@click.group("permissions")
def command() -> None:
    """Show the policies in force, and explain who may do what.

    \b
    Examples:
      parkway permissions show > permissions.cedar
      parkway permissions validate permissions.cedar
      parkway permissions check --key 3k9x0c7qm2va --action use --resource model:park-mini
    """


@command.command("show")
@config_option
def show(config: Path | None) -> None:
    """Print the policies in force: those of `permissions.file`, or the built-in ones, which are a good beginning.

    \b
    Example:
      parkway permissions show > permissions.cedar
    """
    click.echo(settings_in_force(Home.open(), config).permissions.policies().text, nl=False)


@command.command("validate")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def validate(file: Path) -> None:
    """Check the policies in FILE against the schema, without putting them into force.

    \b
    Example:
      parkway permissions validate permissions.cedar
    """
    policies = load(file)
    click.echo(f"{file}: {len(policies.parsed)} policies, all valid")


@command.command("check")
@click.option("--key", "key_id", metavar="ID", help="The key that asks, by its id; see `parkway key list`.")
@click.option("--user", help="In its place: a user who comes with a token, by name.")
@click.option("--team", help="With --user: the team that the token says.")
@click.option("--tier", help="With --user: the tier that the token says.")
@click.option("--scope", "scopes", multiple=True, help="With --user: a scope that the token has; may be repeated.")
@click.option("--action", type=click.Choice(get_args(Action)), required=True, help="What is to be done.")
@click.option("--resource", help="To what: model:NAME, knowledge:NAME, agent:NAME or tool:NAME.")
@config_option
@json_option
def check(
    key_id: str | None,
    user: str | None,
    team: str | None,
    tier: str | None,
    scopes: tuple[str, ...],
    action: Action,
    resource: str | None,
    config: Path | None,
    as_json: bool,
) -> int:
    """Say whether a key or a user may do something, and which policy says so. Exit code 1 means no.

    \b
    Examples:
      parkway permissions check --key 3k9x0c7qm2va --action use --resource model:park-mini
      parkway permissions check --user ada --scope admin --action administer
    """
    if (key_id is None) == (user is None):
        raise click.UsageError("one of --key and --user is needed")
    name = _resource_of(action, resource)
    if key_id is not None:
        with open_store(config) as (_, database):
            caller = KeyStore(database).find(key_id).caller
    else:
        caller = Caller(f"user {user}", str(user), "user", user, team, check_scopes(scopes) if scopes else None, tier)
    policies = settings_in_force(Home.open(), config).permissions.policies()
    decision = Permissions(policies).decide(caller, action, name)
    if as_json:
        print_json({
            "allowed": decision.allowed, "policies": decision.reasons, "errors": decision.errors,
            "source": policies.source,
        })  # fmt: skip
    else:
        if decision.reasons:
            click.echo(f"{'allowed' if decision.allowed else 'denied'} by {', '.join(decision.reasons)}")
        else:
            click.echo("denied: no policy permits it")
        for error in decision.errors:
            click.echo(f"a policy failed, which denies everything: {error}")
        click.echo(f"decided in {policies.source}")
    return 0 if decision.allowed else DENIED


def _resource_of(action: Action, resource: str | None) -> str:
    """The name in `--resource`, whose kind has to fit the action."""
    kind = RESOURCES[action].lower()
    if action == "administer":
        if resource is not None:
            raise InvalidRequest("`administer` is about the whole installation; leave --resource out")
        return INSTALLATION
    given, _, name = (resource or "").partition(":")
    if given != kind or not name:
        raise InvalidRequest(f"--resource {resource!r} does not go with --action {action}; one is {kind}:NAME")
    return name
