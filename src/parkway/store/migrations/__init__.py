"""How the tables of a database come to the form of `schema.py`: one file in `versions/` for each step, by Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from parkway import __version__
from parkway.core.errors import StartupError
from parkway.store import schema
from parkway.store.version import current_revision


def upgrade(connection: Connection) -> None:
    """Takes every step that is missing, in the transaction of `connection`, which must shut out other migrations.

    Raises:
        StartupError: The database is newer than this code, or holds tables of our names that are not ours.
    """
    config = configuration()
    current = current_revision(connection)
    known = [step.revision for step in ScriptDirectory.from_config(config).walk_revisions()]
    if current is not None and current not in known:
        raise StartupError(
            f"The database has schema {current}, and Parkway {__version__} knows schemas up to {schema.REVISION}: "
            "a newer Parkway was here. Start that version, restore a copy from before it, or set store.url to another "
            "database"
        )
    foreign = sorted(set(inspect(connection).get_table_names()) & set(schema.metadata.tables))
    if current is None and foreign:
        raise StartupError(
            f"The database has tables that Parkway did not make and needs the names of: {', '.join(foreign)}. "
            "Set store.url to an empty database"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def configuration() -> Config:
    """Alembic's configuration, which needs no file."""
    config = Config()
    # Alembic interpolates its options: a percent sign in the path would be read as a variable.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
