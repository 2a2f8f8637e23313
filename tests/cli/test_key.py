"""`parkway key`, on a home where nothing runs."""

from __future__ import annotations

from parkway.policy.keys import KeyStore, ensure_first_key
from parkway.store.home import Home
from parkway.store.sql import Database
from tests.cli.conftest import Command


def test_a_key_is_printed_once_and_nothing_else_on_standard_output(parkway: Command) -> None:
    made = parkway("key", "create", "laptop")
    assert made.code == 0
    assert made.out.startswith("pk-")
    assert len(made.out.split()) == 1
    assert "cannot be shown again" in made.err
    secret = made.out.strip().rpartition("-")[2]
    listed = parkway("key", "list")
    assert "laptop" in listed.out
    assert secret not in listed.out
    assert secret not in parkway("key", "list", "--json").out


def test_listed_as_json(parkway: Command) -> None:
    made = parkway("key", "create", "laptop", "--json").json
    (listed,) = parkway("key", "list", "--json").json
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert {"key_id", "name", "owner", "team", "scopes", "tier", "created_ms", "expires_ms", "revoked_ms"} == set(
        listed
    )
    assert made["key"].startswith(f"pk-{made['key_id']}-")


def test_revoked_and_still_listed(parkway: Command) -> None:
    key_id = parkway("key", "create", "laptop", "--json").json["key_id"]
    assert parkway("key", "revoke", key_id).out == f'revoked key "laptop" ({key_id})\n'
    assert parkway("key", "list", "--json").json[0]["revoked_ms"] > 0


def test_an_unknown_id_is_an_error(parkway: Command) -> None:
    done = parkway("key", "revoke", "nothing")
    assert done.code == 1
    assert done.err.startswith('error: There is no key "nothing"')


def test_a_name_that_cannot_be_one(parkway: Command) -> None:
    done = parkway("key", "create", "")
    assert done.code == 1
    assert "must be 1 to 100 printable characters" in done.err


def test_the_first_key_is_shown(parkway: Command, home: Home, database: Database) -> None:
    key = ensure_first_key(home, KeyStore(database))
    assert key is not None
    shown = parkway("key", "show")
    assert shown.out.startswith(f"pk-{key.key_id}-")
    assert shown.err == ""
    assert parkway("key", "show", "--json").json["key_id"] == key.key_id
    parkway("key", "revoke", key.key_id)
    assert "revoked" in parkway("key", "show").err


def test_before_the_first_start_there_is_none_to_show(parkway: Command) -> None:
    done = parkway("key", "show")
    assert done.code == 1
    assert "parkway up" in done.err
    assert "parkway key create NAME" in done.err


def test_a_key_with_rights(parkway: Command) -> None:
    made = parkway(
        "key", "create", "ci", "--owner", "ada", "--team", "ml", "--tier", "gold", "--expires", "30d",
        "--scope", "model:park-mini", "--scope", "admin", "--json",
    ).json  # fmt: skip
    assert {name: made[name] for name in ("owner", "team", "tier", "scopes")} == {
        "owner": "ada", "team": "ml", "tier": "gold", "scopes": ["admin", "model:park-mini"],
    }  # fmt: skip
    assert made["expires_ms"] - made["created_ms"] == 30 * 86_400_000
    listed = parkway("key", "list").out
    assert all(word in listed for word in ("owner", "ada", "ml", "gold", "admin model:park-mini", "expires"))
    shown = parkway("key", "show", made["key_id"])
    assert "scopes   admin model:park-mini\n" in shown.out
    assert made["key"].rpartition("-")[2] not in shown.out + parkway("key", "show", made["key_id"], "--json").out


def test_rights_that_cannot_be(parkway: Command) -> None:
    done = parkway("key", "create", "ci", "--scope", "models:x")
    assert done.code == 1
    assert "is not a scope" in done.err
    assert parkway("key", "create", "ci", "--expires", "soon").code == 2
    assert parkway("key", "show", "nothing").code == 1
    assert parkway("key", "list", "--json").json == []
