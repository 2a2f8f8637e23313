"""The configuration of permissions; that of identity providers is in `issuers.py`, that of limits in `limits.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from parkway.core.configuration import Section

if TYPE_CHECKING:
    from parkway.policy.policies import Policies


class PermissionsConfig(Section):
    """Where it is written who may do what."""

    file: str | None = None
    """Policies in Cedar, in the place of the built-in ones; relative to the configuration file."""

    def policies(self) -> Policies:
        """The policies, read and checked.

        Raises:
            ConfigurationError: The file cannot be read or is wrong.
        """
        from parkway.policy.policies import built_in, load  # with Cedar: 40 ms that no other command needs

        return built_in() if self.file is None else load(Path(self.file))
