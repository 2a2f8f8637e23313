"""The store's configuration; light, because every command reads it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from parkway.core.configuration import Section

EtcdUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^/@\s]+/?$")]


class StoreConfig(Section):
    """Where state is kept, and how long to wait for it."""

    url: str | None = None  # None: an SQLite file in the home
    threads: int = Field(default=4, ge=1, le=64)
    waiting: int = Field(default=256, ge=1)  # jobs that may wait for a thread
    connect_timeout_s: float = Field(default=5.0, ge=1)
    lock_timeout_s: float = Field(default=5.0, gt=0)  # SQLite: the wait for another writer
    statement_timeout_s: float = Field(default=30.0, gt=0)  # PostgreSQL


class EtcdConfig(Section):
    """How etcd is reached."""

    etcd: Annotated[list[EtcdUrl], Field(max_length=16)] = []
    """Its members, `https://HOST:2379`; the next one is asked when one does not answer."""
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    """The longest that one member may take for one call."""
    user: Annotated[str, Field(min_length=1)] | None = None
    password_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """The environment variable that holds the password of `user`."""
    ca_file: str | None = None
    """The certificates to trust, in PEM; by default those of the system."""
    cert_file: str | None = None
    key_file: str | None = None
    """The certificate that we show, and its key."""

    @model_validator(mode="after")
    def _whole(self) -> EtcdConfig:
        if (self.user is None) != (self.password_env is None):
            raise ValueError("`user` and `password_env` belong together")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("`cert_file` and `key_file` belong together")
        return self
