"""Which registry the configuration asks for."""

from __future__ import annotations

from parkway.launch.child import Say
from parkway.launch.settings import Settings
from parkway.router.registry import EndpointRegistry, Noted, Registry
from parkway.store.home import Home
from parkway.store.sql import Database


def open_registry(
    settings: Settings, home: Home, database: Database, say: Say, noted: Noted | None = None
) -> EndpointRegistry:
    """The registry, to be written to and read as the Parkway of `home`.

    Args:
        say: Told when etcd is away, and when it is back.
        noted: Told of every change of a registry in the store.

    Raises:
        StartupError: The home cannot be written to.
    """
    publisher = settings.publisher(home)
    if settings.registry.etcd:
        # With aiohttp, which most starts and commands can do without.
        from parkway.router.etcd_registry import EtcdRegistry

        return EtcdRegistry(settings.registry, publisher, say)
    return Registry(database, noted, publisher=publisher)
