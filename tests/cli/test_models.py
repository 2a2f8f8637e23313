"""`parkway models`."""

from __future__ import annotations

import os

from parkway.launch import running
from parkway.launch.running import Running
from parkway.router.endpoint import Endpoint
from parkway.router.registry import Registry
from parkway.store.home import Home
from parkway.store.sql import Database
from tests.cli.conftest import Command


def _fill(database: Database) -> None:
    registry = Registry(database)
    registry.put(
        Endpoint(endpoint_id="far@0", model="far", url="https://h/v1", upstream_model="x", weight=3, source="config")
    )
    registry.put(Endpoint(endpoint_id="near#0", model="near", url="http://n/v1", upstream_model="near", source="local"))


def _run(home: Home, configuration: str = "") -> None:
    """Makes it look as if Parkway ran, with this configuration."""
    (home.path / "running.yaml").write_text(configuration)
    running.write(home, Running(url="http://127.0.0.1:1", pid=os.getpid()))


def test_a_table_of_endpoints(parkway: Command, database: Database, home: Home) -> None:
    _fill(database)
    _run(home)
    done = parkway("models")
    assert done.out.splitlines() == [
        "model  state  endpoint  url           weight",
        "far    ready  far@0     https://h/v1       3",
        "near   ready  near#0    http://n/v1        1",
    ]
    assert done.err == ""


def test_engines_of_a_parkway_that_does_not_run_are_down(parkway: Command, database: Database) -> None:
    _fill(database)
    done = parkway("models", "--json")
    assert {row["model"]: row["state"] for row in done.json} == {"far": "ready", "near": "down"}
    assert "start it with: parkway up" in parkway("models").err


def test_the_running_configuration_is_used_from_any_directory(parkway: Command, home: Home) -> None:
    elsewhere = Database.open(f"sqlite:///{home.path}/elsewhere.db")
    elsewhere.migrate()
    _fill(elsewhere)
    elsewhere.close()
    assert parkway("models", "--json").json == []
    _run(home, f"store: {{url: 'sqlite:///{home.path}/elsewhere.db'}}")
    assert len(parkway("models", "--json").json) == 2
