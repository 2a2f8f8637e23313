"""`parkway audit`, on a home where nothing runs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from sqlalchemy import delete, update

from parkway.launch.keeping import Keeping
from parkway.policy.audit import AuditConfig
from parkway.policy.chain import Entry, administered, append, now_ms
from parkway.router.endpoint import Endpoint
from parkway.router.registry import Registry
from parkway.store.home import Home
from parkway.store.schema import audit
from parkway.store.sql import Database
from tests.cli.conftest import Command


@pytest.fixture
async def filled(database: Database, home: Home) -> Database:
    """Three decisions and a seal."""
    with database.begin() as connection:
        append(
            connection,
            [
                Entry(kind="allow", action="chat", at_ms=now_ms() - 7_200_000, key_id="alice", model="echo"),
                Entry(kind="deny", action="chat", at_ms=now_ms(), outcome="invalid_api_key", source="10.0.0.1"),
                Entry(kind="limit", action="chat", at_ms=now_ms(), outcome="rate_limit_exceeded", key_id="bob"),
            ],
        )
    await Keeping(database, AuditConfig(), home).anchor()
    return database


def test_listed_by_time_and_kind(parkway: Command, filled: Database) -> None:
    listed = parkway("audit", "list").out.splitlines()
    assert "invalid_api_key" in listed[3]
    assert "10.0.0.1" in listed[3]
    assert [each["kind"] for each in parkway("audit", "list", "--since", "1h", "--json").json] == [
        "genesis", "deny", "limit", "anchor",
    ]  # fmt: skip
    (only,) = parkway("audit", "list", "--kind", "limit", "--json").json
    assert (only["sequence"], only["key_id"]) == (3, "bob")
    assert [each["sequence"] for each in parkway("audit", "list", "--limit", "2", "--json").json] == [3, 4]
    none = parkway("audit", "list", "--kind", "budget")
    assert none.out == ""
    assert "no entries in this window" in none.err


def test_a_whole_log_is_proved(parkway: Command, filled: Database) -> None:
    done = parkway("audit", "verify")
    assert (done.code, done.out.splitlines()[0]) == (0, "ok: 5 entries")
    assert "the key proves everything up to entry 3" in done.out
    head = done.out.splitlines()[1].removeprefix("head: ")
    assert parkway("audit", "verify", "--expect", head).code == 0
    assert "seals: none checked" in parkway("audit", "verify", "--no-key").out
    assert parkway("audit", "verify", "--json").json["faults"] == []


def test_a_changed_entry_is_named(parkway: Command, filled: Database) -> None:
    with filled.begin() as connection:
        connection.execute(update(audit).where(audit.c.sequence == 2).values(entry="{}"))
    done = parkway("audit", "verify")
    assert done.code == 1
    assert "fault: entry 2 " in done.out


def test_a_cut_off_end_is_found_by_the_homes_own_note(parkway: Command, filled: Database) -> None:
    with filled.begin() as connection:
        connection.execute(delete(audit).where(audit.c.sequence >= 3))
    done = parkway("audit", "verify")
    assert done.code == 1
    assert "the end is missing: the chain ends at entry 2, and had an entry 4" in done.out


def test_an_export_is_proved_anywhere(parkway: Command, filled: Database, home: Home, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    assert parkway("audit", "export", str(file)).err == f"5 entries written to {file}\n"
    head = parkway("audit", "verify").out.splitlines()[1].removeprefix("head: ")
    key = str(home.audit_key_file)
    assert parkway("audit", "verify", str(file)).code == 0
    assert parkway("audit", "verify", str(file), "--key", key, "--expect", head).code == 0
    lines = file.read_bytes().splitlines(keepends=True)

    def verify(*changed: bytes) -> str:
        file.write_bytes(b"".join(changed))
        done = parkway("audit", "verify", str(file), "--expect", head)
        assert done.code == 1
        return done.out

    assert "entry 1 " in verify(lines[0], lines[1].replace(b"alice", b"mallo"), *lines[2:])
    assert "entries 2 to 2 are missing" in verify(*lines[:2], *lines[3:])
    assert "entry 2 " in verify(*lines[:3], lines[2], *lines[3:])
    assert "the end is missing" in verify(*lines[:3])
    file.write_bytes(b"nonsense\n")
    done = parkway("audit", "verify", str(file))
    assert done.code == 1
    assert "audit.jsonl:1: not a line of an exported audit log" in done.err


def test_a_key_that_is_not_there_is_an_error(parkway: Command, filled: Database) -> None:
    assert parkway("audit", "verify", "--key", "absent.key").err == "error: absent.key does not exist\n"


def test_changes_of_endpoints_are_decisions(parkway: Command, database: Database) -> None:
    registry = Registry(database, administered)
    endpoint = Endpoint(endpoint_id="e", model="m", url="http://127.0.0.1:1/v1", upstream_model="m")
    registry.put(endpoint)
    registry.replace("config", [])
    registry.put(endpoint)
    registry.remove("e")
    registry.remove("e")
    found = parkway("audit", "list", "--kind", "administration", "--json").json
    assert [(each["action"], each["detail"]) for each in found] == [
        ("endpoint.put", "e (m, ready)"),
        ("endpoint.replace", "config: none"),
        ("endpoint.put", "e (m, ready)"),
        ("endpoint.remove", "e"),
    ]
    assert parkway("audit", "verify").code == 0


def test_keys_made_here_are_decisions(parkway: Command) -> None:
    key_id = parkway("key", "create", "laptop", "--json").json["key_id"]
    parkway("key", "revoke", key_id)
    found = parkway("audit", "list", "--kind", "administration", "--json").json
    assert [each["action"] for each in found] == ["key.create", "key.revoke"]
    assert parkway("audit", "verify").code == 0
    assert "laptop" in msgspec.json.encode(found).decode()
