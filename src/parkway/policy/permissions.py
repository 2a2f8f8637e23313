"""Who may do what: Cedar decides, and its decisions are remembered for as long as the policies are the same."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import cedarpy

from parkway.core.errors import NotAllowed
from parkway.policy.caller import Caller
from parkway.policy.policies import Policies

log = logging.getLogger(__name__)

Action = Literal["use", "search", "run", "call", "administer"]

RESOURCES: dict[Action, str] = {
    "use": "Model", "search": "Knowledge", "run": "Agent", "call": "Tool", "administer": "Installation",
}  # fmt: skip
"""What each action is done to: an entity type of the schema."""

INSTALLATION = "parkway"
"""The name of the one resource that is administered."""

MAX_DECISIONS = 20_000
MAX_NAME_LENGTH = 512

_DECISIONS_AT_ONCE = 8  # about half a millisecond, before other requests get their turn


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether something is allowed, and why.

    Attributes:
        reasons: The policies that decided; none of them where nothing permits it.
        errors: What went wrong in a policy. Then it is denied, whatever the other policies say: a `forbid` that fails
            is otherwise left out by Cedar.
    """

    allowed: bool
    reasons: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class Permissions:
    """The policies in force, and what they said so far.

    What they said of one caller is remembered for all in whom they can see no difference: a hundred thousand keys
    without scopes are one to the built-in policies.
    """

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._decisions: dict[tuple[object, ...], Decision] = {}

    @property
    def policies(self) -> Policies:
        return self._policies

    def replace(self, policies: Policies) -> None:
        """Puts other policies into force, for every decision from now on."""
        self._policies = policies
        self._decisions = {}

    def check(self, caller: Caller, action: Action, name: str = INSTALLATION) -> None:
        """Returns if `caller` may.

        Args:
            name: Of the model, knowledge base, agent or tool.

        Raises:
            NotAllowed: The caller may not; the message says who, what, and where it is decided.
        """
        decision = self.decide(caller, action, name)
        if not decision.allowed:
            raise NotAllowed(self._refusal(caller, action, name, decision))

    def allows(self, caller: Caller, action: Action, name: str = INSTALLATION) -> bool:
        """Whether `caller` may."""
        return self.decide(caller, action, name).allowed

    async def allowed(self, caller: Caller, action: Action, names: Iterable[str]) -> list[str]:
        """Those of `names` for which `caller` may. Others get their turn between decisions that are new."""
        found: list[str] = []
        fresh = 0
        for name in names:
            fresh += self._question(caller, action, name) not in self._decisions
            if self.allows(caller, action, name):
                found.append(name)
            if fresh >= _DECISIONS_AT_ONCE:
                fresh = 0
                await asyncio.sleep(0)
        return found

    def decide(self, caller: Caller, action: Action, name: str = INSTALLATION) -> Decision:
        """What the policies say; about 50 microseconds where it is not known yet."""
        question = self._question(caller, action, name)
        known = self._decisions.get(question)
        if known is not None:
            return known
        if len(name) > MAX_NAME_LENGTH:
            return Decision(allowed=False, errors=(f"a name has at most {MAX_NAME_LENGTH} characters",))
        decision = self._evaluate(caller, action, name)
        if len(self._decisions) >= MAX_DECISIONS:
            del self._decisions[next(iter(self._decisions))]  # the oldest
        self._decisions[question] = decision
        return decision

    def _question(self, caller: Caller, action: Action, name: str) -> tuple[object, ...]:
        """Equal wherever the policies cannot but say the same."""
        question = (action, name, caller.kind, caller.scopes)
        telling = self._policies.telling
        return (*question, *(getattr(caller, field) for field in telling)) if telling else question

    def _evaluate(self, caller: Caller, action: Action, name: str) -> Decision:
        principal = {"type": "Key" if caller.kind == "key" else "User", "id": caller.key_id}
        resource = {"type": RESOURCES[action], "id": name}
        request = {"principal": principal, "action": {"type": "Action", "id": action}, "resource": resource}
        entities = [_principal(principal, caller), _resource(resource, name)]
        try:
            answer = cedarpy.is_authorized(request, self._policies.parsed, json.dumps(entities))
        except ValueError as error:  # what cannot be told to Cedar at all, such as half of a surrogate pair
            return Decision(allowed=False, errors=(str(error)[:1000],))
        errors = tuple(answer.diagnostics.errors)
        if errors:
            log.error("permissions: %s; denied", "; ".join(errors)[:1000])
        reasons = tuple(sorted(self._policies.title(policy) for policy in answer.diagnostics.reasons))
        return Decision(allowed=answer.allowed and not errors, reasons=reasons, errors=errors)

    def _refusal(self, caller: Caller, action: Action, name: str, decision: Decision) -> str:
        if action == "administer":
            what = "may not administer this installation (metrics, and what others did)"
        else:
            what = f"may not {action} the {RESOURCES[action].lower()} {name[:128]!r}"
        if decision.errors:
            why = "a policy could not be evaluated, and then everything is denied"
        elif decision.reasons:
            why = f"forbidden by {', '.join(decision.reasons)}"
        else:
            why = "nothing permits it" + ("" if caller.scopes is None else f"; its scopes are {_listed(caller)}")
        return f"{_who(caller)} {what}: {why}. Decided by {self._policies.place}."


def _who(caller: Caller) -> str:
    what = "The key" if caller.kind == "key" else "The user"
    return f'{what} "{caller.name}" ({caller.key_id})'


def _listed(caller: Caller) -> str:
    scopes = sorted(caller.scopes or ())
    return ", ".join(scopes[:10]) + (", ..." if len(scopes) > 10 else "") if scopes else "none"


def _principal(uid: dict[str, str], caller: Caller) -> dict[str, Any]:
    attributes: dict[str, Any] = {"name": caller.name}
    attributes |= {
        field: value
        for field, value in (("user", caller.user), ("team", caller.team), ("tier", caller.tier))
        if value is not None
    }
    if caller.scopes is not None:
        attributes["scopes"] = sorted(caller.scopes)
    parents = [] if caller.team is None else [{"type": "Team", "id": caller.team}]
    return {"uid": uid, "attrs": attributes, "parents": parents}


def _resource(uid: dict[str, str], name: str) -> dict[str, Any]:
    attributes = {} if uid["type"] == "Installation" else {"name": name, "scope": f"{uid['type'].lower()}:{name}"}
    return {"uid": uid, "attrs": attributes, "parents": []}
