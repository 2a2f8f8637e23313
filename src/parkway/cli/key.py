"""`parkway key`: creates, lists, shows and revokes API keys. Works while Parkway is stopped, too."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import click

from parkway.cli.listing import print_json, print_table
from parkway.cli.options import Duration, config_option, json_option
from parkway.cli.state import open_store
from parkway.core.errors import NotFound
from parkway.policy.keys import Key, KeyStore, first_key


@click.group("key")
def command() -> None:
    """Create, list, show and revoke API keys.

    \b
    Examples:
      parkway key show                the first key
      parkway key create laptop       a further one
      parkway key list --json
      parkway key revoke 3k9x0c7qm2va
    """


@command.command("create")
@click.argument("name")
@click.option("--owner", help="The user whose it is.")
@click.option("--team", help="The team that it counts for.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="What it is good for: model:NAME, model:*, likewise knowledge, agent and tool, or admin; may be repeated.  "
    "[default: everything, administration included]",
)
@click.option("--tier", help="The tier of service.")
@click.option("--expires", "expires_s", type=Duration(), help="How long it is good: 12h, 30d.  [default: for ever]")
@config_option
@json_option
def create(
    name: str,
    owner: str | None,
    team: str | None,
    scopes: tuple[str, ...],
    tier: str | None,
    expires_s: float | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Create a key called NAME and print it. It is kept as a hash: this is the only time that it is shown.

    \b
    Examples:
      parkway key create laptop
      export OPENAI_API_KEY=$(parkway key create laptop)
      parkway key create ci --team build --scope model:park-mini --expires 30d
      parkway key create prometheus --scope admin
    """
    with open_store(config) as (_, database):
        key, plain = KeyStore(database).create(
            name, owner=owner, team=team, scopes=scopes or None, tier=tier, expires_s=expires_s
        )
    if as_json:
        print_json({**_shown(key), "key": plain})
        return
    click.echo(plain)
    click.echo(f'This is key "{key.name}" ({key.key_id}). Keep it now: it cannot be shown again.', err=True)


@command.command("list")
@config_option
@json_option
def list_keys(config: Path | None, as_json: bool) -> None:
    """List all keys, revoked ones too, oldest first.

    \b
    Examples:
      parkway key list
      parkway key list --json
    """
    with open_store(config) as (_, database):
        keys = KeyStore(database).list()
    if as_json:
        print_json([_shown(key) for key in keys])
        return
    rows = [
        (
            key.key_id, key.name, key.owner, key.team, key.tier, _listed(key.scopes),
            _date(key.created_ms), _date(key.expires_ms), _date(key.revoked_ms),
        )
        for key in keys
    ]  # fmt: skip
    print_table(("id", "name", "owner", "team", "tier", "scopes", "created", "expires", "revoked"), rows)


@command.command("show")
@click.argument("key_id", metavar="[ID]", required=False)
@config_option
@json_option
def show(key_id: str | None, config: Path | None, as_json: bool) -> None:
    """Print the first key, which `parkway up` created, or what is known of the key with ID.

    The text of other keys is shown once, when they are created.

    \b
    Examples:
      parkway key show
      export OPENAI_API_KEY=$(parkway key show)
      parkway key show 3k9x0c7qm2va
    """
    if key_id is not None:
        with open_store(config) as (_, database):
            key = KeyStore(database).find(key_id)
        print_json(_shown(key)) if as_json else _print(key)
        return
    with open_store(config) as (home, database):
        plain = first_key(home)
        if plain is None:
            raise NotFound(
                f"{home.first_key_file} does not exist: the first `parkway up` on a home writes it; "
                "a further key is made with: parkway key create NAME"
            )
        key = next((key for key in KeyStore(database).list() if key.key_id in plain), None)
    if key is None or key.revoked_ms is not None:
        click.echo(
            "warning: this key is revoked or belongs to another store; make one: parkway key create NAME", err=True
        )
    if as_json:
        print_json({"key": plain, **(_shown(key) if key else {})})
    else:
        click.echo(plain)


@command.command("revoke")
@click.argument("key_id", metavar="ID")
@config_option
@json_option
def revoke(key_id: str, config: Path | None, as_json: bool) -> None:
    """Revoke the key with ID for good. A running gateway refuses it within a second.

    \b
    Example:
      parkway key revoke 3k9x0c7qm2va
    """
    with open_store(config) as (_, database):
        key = KeyStore(database).revoke(key_id)
    if as_json:
        print_json(_shown(key))
    else:
        click.echo(f'revoked key "{key.name}" ({key.key_id})')


def _shown(key: Key) -> dict[str, object]:
    """What a program reads about a key. Times are in milliseconds since 1970."""
    return dataclasses.asdict(key)


def _print(key: Key) -> None:
    told = {
        "id": key.key_id,
        "name": key.name,
        "owner": key.owner,
        "team": key.team,
        "tier": key.tier,
        "scopes": _listed(key.scopes),
        "created": _date(key.created_ms),
        "expires": _date(key.expires_ms),
        "revoked": _date(key.revoked_ms),
    }
    for name, value in told.items():
        click.echo(f"{name:8} {'-' if value is None else value}")


def _listed(scopes: tuple[str, ...] | None) -> str | None:
    return None if scopes is None else " ".join(scopes) or "none"


def _date(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(milliseconds / 1000))
