"""A question: what a request asks, under a name that only the same question of the same people has."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from parkway.aggregate.response_cache.config import Scope
from parkway.core.wire import encode

_FORM = 1
"""Raised when keys or answers change their form, so that nothing of an older Parkway is found in a shared Redis."""

CHANGES_NOTHING = frozenset({
    "metadata", "model", "priority", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier",
    "store", "stream", "stream_options", "user",
})  # fmt: skip
"""Fields that do not change an answer, and `model`, which stands in the key by itself."""

WORLDLY = frozenset({"tools", "functions", "web_search_options"})
"""Fields with which an answer is more than words, or depends on more than the request."""

Generation = tuple[int, int]

Owner = tuple[str, ...]
"""Who shares an answer: the kind of scope and what it goes by. Of two kinds no two are equal."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a request asks.

    Attributes:
        key: SHA-256 of everything that makes the answer: whose it is, the model, every field.
        rest: Likewise, but for the text of the last message; None where that is not a text of the user's.
        text: That text.
        model: The name that the client asked for.
        limit: The most tokens that the request itself allows its answer.
        generation: How often all answers, and those of the model, were cleared, as known when it was asked.
    """

    key: bytes
    rest: bytes | None
    text: str
    model: str
    limit: int | None
    generation: Generation


def owner_of(scope: Scope, *, key_id: str, kind: str, user: str | None, team: str | None) -> Owner:
    """Who shares answers with a caller.

    The name of a user who came with a token is good for one issuer only; `key_id`, which is made of both, stands for
    such a user. Whoever has no user or team shares within the key: never with all others who have none either.
    """
    if scope == "everybody":
        return ("everybody",)
    if scope == "team" and team is not None:
        return ("team", kind, team)
    if scope == "user" and user is not None and kind == "key":
        return ("user", user)
    return ("key", key_id)


def ask(
    fields: dict[str, object],
    owner: Owner,
    path: str,
    model: str,
    versions: tuple[object, ...],
    *,
    generation: Generation = (0, 0),
    limit: int | None = None,
    semantic: bool = False,
) -> Question:
    """The question that the decoded fields of a request ask.

    Args:
        path: Of the endpoint that is asked, as `/chat/completions`.
        versions: What stands behind the name of the model now; JSON-ready.
        generation: What of it was cleared.
        semantic: Whether `rest` and `text` are wanted.
    """
    frame = encode((_FORM, owner, path, model, (*versions, generation)))
    # Only the order of the fields themselves is free: in a schema it is the order in which a model answers.
    asked = {name: fields[name] for name in sorted(fields) if name not in CHANGES_NOTHING and fields[name] is not None}
    rest, text = _without_last_text(asked) if semantic else (None, "")
    return Question(
        key=hashlib.sha256(frame + b"\n" + encode(asked)).digest(),
        rest=None if rest is None else hashlib.sha256(frame + b"\n~" + encode(rest)).digest(),
        text=text,
        model=model,
        limit=limit,
        generation=generation,
    )


def _without_last_text(asked: dict[str, object]) -> tuple[dict[str, object] | None, str]:
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages:
        return None, ""
    last = messages[-1]
    if not (isinstance(last, dict) and last.get("role") == "user" and isinstance(last.get("content"), str)):
        return None, ""
    return {**asked, "messages": [*messages[:-1], {**last, "content": None}]}, last["content"]


class KeptAnswer(msgspec.Struct, frozen=True, array_like=True):
    """A whole answer. `stored_s` is in seconds since 1970."""

    model: str
    stored_s: float
    body: bytes
