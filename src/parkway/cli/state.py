"""The store, as commands open it: also while Parkway is stopped, and the one that a running Parkway uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parkway.launch import running
from parkway.launch.family import snapshot_of
from parkway.launch.settings import Settings
from parkway.store.home import Home
from parkway.store.sql import Database


def settings_in_force(home: Home, config: Path | None) -> Settings:
    """The configuration of `config`, or without one that with which Parkway runs on `home`, or would be started here.

    Raises:
        ConfigurationError: The configuration is wrong.
    """
    if config is None and running.read(home) is not None:
        config = snapshot_of(home)
    return Settings.find(config)


@contextmanager
def open_store(config: Path | None) -> Iterator[tuple[Home, Database]]:
    """The home and its database in the newest form; see `open_home`."""
    with open_home(config) as (home, _, database):
        yield home, database


@contextmanager
def open_home(config: Path | None) -> Iterator[tuple[Home, Settings, Database]]:
    """The home, its configuration, and its database in the newest form.

    Without `config`, the configuration is the one with which Parkway runs, whatever the working directory; if it does
    not run, the one that it would be started with here.

    Raises:
        ConfigurationError: The configuration is wrong.
        StartupError: The home or the database cannot be used.
    """
    home = Home.open()
    settings = settings_in_force(home, config)
    database = Database.open(settings.store.url or home.database_url, settings.store)
    try:
        database.migrate()
        yield home, settings, database
    finally:
        database.close()
