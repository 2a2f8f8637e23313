"""From nothing to the newest tables, once, twice, by many at a time, and not backwards."""

from __future__ import annotations

import subprocess
import sys

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, inspect, text

from parkway.core.errors import StartupError
from parkway.store import schema
from parkway.store.migrations import configuration
from parkway.store.sql import Database
from parkway.store.version import current_revision


def test_the_newest_step_is_the_one_that_the_schema_names() -> None:
    assert ScriptDirectory.from_config(configuration()).get_heads() == [schema.REVISION]


def test_steps_lead_to_the_schema(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []
        for table in schema.metadata.tables.values():  # which alembic does not compare
            wanted = {str(one.name) for one in table.constraints if isinstance(one, CheckConstraint)}
            assert {str(one["name"]) for one in inspect(connection).get_check_constraints(table.name)} == wanted
            assert inspect(connection).get_pk_constraint(table.name)["name"] == f"pk_{table.name}"


def test_a_second_migration_changes_nothing(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(text("INSERT INTO revisions VALUES ('a', 1)"))
    database.migrate()
    with database.read() as connection:
        assert current_revision(connection) == schema.REVISION
        assert connection.execute(text("SELECT topic FROM revisions")).scalars().all() == ["a"]


def test_four_processes_at_once_all_succeed(database_url: str) -> None:
    program = (
        "import sys; from parkway.store.sql import Database; import parkway.store.migrations; "
        "print('ready', flush=True); sys.stdin.readline(); "
        f"database = Database.open({database_url!r}); database.migrate(); database.migrate()"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    database = Database.open(database_url)
    with database.read() as connection:
        assert current_revision(connection) == schema.REVISION
    database.close()


def test_a_database_newer_than_the_code_is_left_alone(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(
        StartupError, match=rf"schema 9999, and Parkway .* up to {schema.REVISION}: a newer Parkway was here"
    ):
        database.migrate()
    with database.read() as connection:
        assert current_revision(connection) == "9999"


def test_tables_of_somebody_else_are_left_alone(database_url: str) -> None:
    database = Database.open(database_url)
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE keys (door text)"))
    with pytest.raises(StartupError, match="did not make and needs the names of: keys"):
        database.migrate()
    with database.read() as connection:
        assert inspect(connection).get_table_names() == ["keys"]
    database.close()


def test_a_step_that_fails_leaves_no_half_of_itself(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import alembic.op

    create_index = alembic.op.create_index

    def fail(name: str, *arguments: object) -> None:
        if name == "ix_feedback_created_ms":
            raise KeyError("the last statement")
        create_index(name, *arguments)  # pyright: ignore[reportArgumentType]

    database = Database.open(database_url)
    monkeypatch.setattr(alembic.op, "create_index", fail)
    with pytest.raises(KeyError, match="the last statement"):
        database.migrate()
    with database.read() as connection:
        assert inspect(connection).get_table_names() == []
    monkeypatch.undo()
    database.migrate()
    database.close()


def test_the_way_back_leaves_nothing(database: Database) -> None:
    config = configuration()
    with database.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with database.read() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
