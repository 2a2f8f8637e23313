"""What is kept of one request: who, which model, where, how much, how long, and how it ended."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from parkway.core.knowledge import Found

Surface = Literal["chat", "completions", "embeddings", "rerank", "responses", "messages", "search"]
SEARCH: Surface = "search"
"""Of documents alone; `model` is `knowledge/` and the collection then."""

UNKNOWN_MODEL = "unknown"
"""Stands in figures for every model name that nobody serves: clients may send any, figures stay bounded."""

OK = "ok"
CANCELLED = "cancelled"

MAX_NAME_CHARS = 128

_UNFIT = re.compile(r"[\x00-\x1f\x7f]")


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request, as the log keeps it. Holds no word of what was asked or answered.

    Attributes:
        request_id: Ours (`req_...`).
        response_id: The `id` inside the answer, which clients see first; None where there was no answer.
        key_id: The key that asked.
        model: Who answered; where nobody did, as the client named it, known or not; empty if that is not known.
        endpoint_id: The endpoint that answered; None if none was reached.
        status: The HTTP status that the client got. A stream that broke has 200 and says so in `outcome`.
        outcome: `ok`; `cancelled` if the client left; else the `code` of the error (core/errors.py).
        first_token_ms: From the request's arrival to the first token; None where nothing was streamed.
        total_ms: From the request's arrival to the end of the answer.
        attempts: Endpoints that were tried.
        started_ms: When the request arrived, in milliseconds since 1970.
        user, team: Of the key, or of the token.
        agent, task: On whose behalf it was sent, where the client said so.
        cost_usd: By the model's price; None where it has none.
        cache: What answered instead of an endpoint: the cache, `exact` or `semantic`, or an answer that was on its way
            to somebody else (`shared`). Such a request has no tokens here, as it cost none.
        queue_ms: How long it waited for its turn.
        trace_id: Of its trace.
        search: JSON of `SearchRecord`, where documents were searched.
    """

    request_id: str
    key_id: str
    surface: Surface
    model: str
    stream: bool
    status: int
    outcome: str
    total_ms: float
    started_ms: int
    response_id: str | None = None
    endpoint_id: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first_token_ms: float | None = None
    attempts: int = 0
    conversation_id: str | None = None
    user: str | None = None
    team: str | None = None
    agent: str | None = None
    task: str | None = None
    cost_usd: float | None = None
    cache: str | None = None
    queue_ms: float | None = None
    trace_id: str | None = None
    search: str | None = None


class SearchRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a request found in documents.

    Attributes:
        took_ms: By stage; of several collections, which are searched side by side, the longest.
        cached: How many of the collections had been searched for the same before.
    """

    collections: list[str]
    hits: int
    took_ms: dict[str, float]
    cached: int = 0

    @classmethod
    def of(cls, collections: list[str], found: Sequence[Found]) -> SearchRecord:
        took_ms: dict[str, float] = {}
        for each in found:
            for stage, took in each.took_ms.items():
                took_ms[stage] = max(took_ms.get(stage, 0.0), took)
        return cls(collections, sum(len(each.hits) for each in found), took_ms, sum(each.cached for each in found))

    def text(self) -> str:
        """As it stands in the log."""
        return msgspec.json.encode(self).decode()


def bounded(record: RequestRecord) -> RequestRecord:
    """`record` with the names that clients and endpoints choose cut to a size and characters that every store takes."""
    model, response_id, outcome = record.model, record.response_id, record.outcome
    if _fits(model) and _fits(outcome) and (response_id is None or _fits(response_id)):
        return record
    return msgspec.structs.replace(
        record,
        model=_cut(model),
        outcome=_cut(outcome),
        response_id=None if response_id is None else _cut(response_id),
    )


def _fits(name: str) -> bool:
    return len(name) <= MAX_NAME_CHARS and name.isprintable()


def _cut(name: str) -> str:
    return _UNFIT.sub("?", name[:MAX_NAME_CHARS])
