"""The caller: who sent a request, as far as it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. Whoever is equal may do the same, so that a decision about one can be remembered.

    Attributes:
        key_id: The account: what conversations, the log and limits go by. A key's id; of a user who came with a token,
            an id that is made of issuer and subject.
        name: For people to read.
        kind: What proved it: an API `key`, or the token of a `user`.
        user: Whose key it is, or whose token.
        team: The team that it counts for.
        scopes: What the credentials are good for; None: everything that policy allows.
        tier: The tier of service; None is the default one.
    """

    key_id: str
    name: str
    kind: Literal["key", "user"] = "key"
    user: str | None = None
    team: str | None = None
    scopes: frozenset[str] | None = None
    tier: str | None = None

    @property
    def principals(self) -> frozenset[str]:
        """What documents may call the caller by in their `access`: its key, its user, its team."""
        named = (("key", self.name if self.kind == "key" else None), ("user", self.user), ("team", self.team))
        return frozenset(f"{kind}:{name}" for kind, name in named if name)
