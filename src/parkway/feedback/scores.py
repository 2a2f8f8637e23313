"""What people say about an answer: a thumb, a score, a comment, a corrected answer."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection, insert, or_, select

from parkway.core.errors import InvalidRequest, NotFound
from parkway.core.ids import new_id
from parkway.feedback.log import RequestLog
from parkway.store import schema
from parkway.store.sql import Database

Thumb = Literal["up", "down"]
Score = Annotated[float, Meta(ge=0, le=1, description="0 is useless, 1 is perfect")]
Comment = Annotated[str, Meta(max_length=4000)]
Correction = Annotated[str, Meta(max_length=32_000, description="what the answer should have been")]
AnswerId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        pattern="^[!-~]+$",
        description="the `x-request-id` of an answer (`req_...`), or the `id` inside it (`chatcmpl-...`)",
    ),
]

_THUMBS: dict[Thumb, int] = {"up": 1, "down": -1}


class FeedbackRequest(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The body of `POST /v1/feedback`: a request, and at least one thing to say about it."""

    request_id: AnswerId
    thumb: Thumb | None = None
    score: Score | None = None
    comment: Comment | None = None
    correction: Correction | None = None


class Feedback(msgspec.Struct, kw_only=True):
    """Feedback as it was stored. `created` is in seconds since 1970."""

    id: str
    created: int
    request_id: str
    thumb: Thumb | None
    score: float | None
    comment: str | None
    correction: str | None
    object: Literal["feedback"] = "feedback"


class Scores:
    """Feedback on requests, taken from the key that made the request and from no other."""

    def __init__(self, database: Database, log: RequestLog) -> None:
        self._database = database
        self._log = log

    async def add(self, request: FeedbackRequest, key_id: str) -> Feedback:
        """Stores what `key_id` says about one of its requests. Said again, the later word counts.

        Raises:
            InvalidRequest: Nothing is said, or a text holds a NUL character.
            NotFound: The key made no such request, or its log record was shed.
            StoreUnavailable: The store does not answer.
        """
        _check(request)
        pending = self._log.find(request.request_id, key_id)

        def work(connection: Connection) -> Feedback:
            request_id = pending.request_id if pending else _resolve(connection, request.request_id, key_id)
            return _insert(connection, request, request_id, key_id)

        return await self._database.run(work)


def _check(request: FeedbackRequest) -> None:
    said = (request.thumb, request.score, request.comment, request.correction)
    if all(value is None or value == "" for value in said):
        raise InvalidRequest("nothing is said; send at least one of `thumb`, `score`, `comment`, `correction`")
    for name in ("comment", "correction"):
        if "\0" in (getattr(request, name) or ""):
            raise InvalidRequest(f"`{name}`: holds a NUL character, which no store keeps; remove it", param=name)


def _resolve(connection: Connection, answer_id: str, key_id: str) -> str:
    """Our id of the key's request that is meant; the newest, should an endpoint have repeated an answer's id."""
    requests = schema.requests.c
    query = (
        select(requests.request_id)
        .where(requests.key_id == key_id, or_(requests.request_id == answer_id, requests.response_id == answer_id))
        .order_by(requests.started_ms.desc())
        .limit(1)
    )
    request_id = connection.scalar(query)
    if request_id is None:
        # The same words whether it is unknown or another key's: who asks learns nothing about other keys.
        raise NotFound(
            f"`request_id`: this key made no request {answer_id!r}; send the `x-request-id` header of an answer, "
            f"or the `id` inside it",
            param="request_id",
        )
    return request_id


def _insert(connection: Connection, request: FeedbackRequest, request_id: str, key_id: str) -> Feedback:
    feedback_id = new_id("fb")
    created_ms = time.time_ns() // 1_000_000
    connection.execute(
        insert(schema.feedback).values(
            feedback_id=feedback_id,
            request_id=request_id,
            key_id=key_id,
            thumb=_THUMBS[request.thumb] if request.thumb else None,
            score=request.score,
            comment=request.comment,
            correction=request.correction,
            created_ms=created_ms,
        )
    )
    return Feedback(
        id=feedback_id,
        created=created_ms // 1000,
        request_id=request_id,
        thumb=request.thumb,
        score=request.score,
        comment=request.comment,
        correction=request.correction,
    )
