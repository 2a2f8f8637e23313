"""Figures per model over a window of time, computed by the store: exact, and with as many rows as there are models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Float,
    Row,
    Select,
    and_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
)

from parkway.feedback.record import CANCELLED, OK, SEARCH, UNKNOWN_MODEL
from parkway.store import schema

_PERCENTS = (50, 95, 99)

_requests = schema.requests.c
_feedback = schema.feedback.c

# Clients may send any model name; one row stands for all that nobody serves.
_served = or_(_requests.endpoint_id.is_not(None), _requests.model.in_(select(schema.endpoints.c.model)))
_model = case((_served, _requests.model), else_=UNKNOWN_MODEL).label("model")


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Exact, by nearest rank: pN is the smallest measured value that N % of all values do not exceed."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class ModelStats:
    """What one model did in a window.

    Attributes:
        model: `unknown` stands for every name that nobody serves.
        requests: All that arrived in the window and ended.
        errors: Those that neither were answered nor were cancelled by the client; refusals count.
        error_rate: `errors` over `requests`, 0 to 1.
        requests_per_s: Over the whole window.
        tokens_per_s: Tokens written, over the whole window.
        first_token_ms: Of streamed requests that were answered; None if there was none.
        total_ms: Of requests that were answered: refusals are fast and would make a failing model look quick.
        mean_score: 0 to 1, a thumb counting as 0 or 1; the latest word on each request; None if nobody said any.
        scores: Requests that somebody scored.
    """

    model: str
    requests: int
    errors: int
    error_rate: float
    requests_per_s: float
    tokens_per_s: float
    first_token_ms: Percentiles | None
    total_ms: Percentiles | None
    mean_score: float | None
    scores: int


def stats(connection: Connection, since_ms: int, until_ms: int) -> list[ModelStats]:
    """The figures of every model that had requests in `[since_ms, until_ms)`, sorted by model.

    Args:
        since_ms: Milliseconds since 1970; `until_ms` likewise. Requests belong to the window that they arrived in.
    """
    window_s = max(until_ms - since_ms, 1) / 1000
    asked_a_model = _requests.surface != SEARCH
    window = and_(_requests.started_ms >= since_ms, _requests.started_ms < until_ms, asked_a_model)
    counts = connection.execute(_counts(window)).all()
    first_token = _percentiles(connection, window, _requests.first_token_ms)
    total = _percentiles(connection, window, _requests.total_ms)
    scores = {row.model: row for row in connection.execute(_scores(window))}
    return [
        _of_model(row, window_s, first_token.get(row.model), total.get(row.model), scores.get(row.model))
        for row in sorted(counts, key=lambda row: row.model)
    ]


def _of_model(
    row: Row[Any], window_s: float, first_token: Percentiles | None, total: Percentiles | None, score: Row[Any] | None
) -> ModelStats:
    return ModelStats(
        model=row.model,
        requests=row.requests,
        errors=row.errors,
        error_rate=row.errors / row.requests,
        requests_per_s=row.requests / window_s,
        tokens_per_s=int(row.tokens or 0) / window_s,
        first_token_ms=first_token,
        total_ms=total,
        mean_score=score.mean if score else None,
        scores=score.scores if score else 0,
    )


def _counts(window: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    failed = _requests.outcome.not_in((OK, CANCELLED))
    return (
        select(
            _model,
            func.count().label("requests"),
            func.sum(case((failed, 1), else_=0)).label("errors"),
            func.sum(_requests.completion_tokens).label("tokens"),
        )
        .where(window)
        .group_by(_model)
    )


def _percentiles(
    connection: Connection, window: ColumnElement[bool], measure: ColumnElement[Any]
) -> Mapping[str, Percentiles]:
    """By model, for the answered requests that have the measure.

    Rank p of n values is the ceiling of p * n / 100. Source: the nearest-rank method, Hyndman and Fan (1996), type 1.
    """
    answered = (
        select(_model, measure.label("value"))
        .where(window, _requests.outcome == OK, measure.is_not(None))
        .cte("answered")
    )
    ranked: CTE = select(
        answered.c.model,
        answered.c.value,
        func.row_number().over(partition_by=answered.c.model, order_by=answered.c.value).label("rank"),
        func.count().over(partition_by=answered.c.model).label("n"),
    ).cte("ranked")
    ranks = {percent: (ranked.c.n * percent + 99) // 100 for percent in _PERCENTS}
    query = (
        select(
            ranked.c.model,
            *(
                func.max(case((ranked.c.rank == rank, ranked.c.value))).label(f"p{percent}")
                for percent, rank in ranks.items()
            ),
        )
        .where(ranked.c.rank.in_(ranks.values()))
        .group_by(ranked.c.model)
    )
    return {row.model: Percentiles(row.p50, row.p95, row.p99) for row in connection.execute(query)}


def _scores(window: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    """Mean and number of the latest scores, one a request."""
    thumb = case((_feedback.thumb == 1, 1.0), (_feedback.thumb == -1, 0.0))
    score = func.coalesce(_feedback.score, cast(thumb, Float))
    latest = (
        select(
            _model,
            score.label("score"),
            func.row_number()
            .over(
                partition_by=_feedback.request_id,
                order_by=(_feedback.created_ms.desc(), _feedback.feedback_id.desc()),
            )
            .label("age"),
        )
        .join_from(schema.feedback, schema.requests, _feedback.request_id == _requests.request_id)
        .where(window, score.is_not(None))
        .cte("latest")
    )
    return (
        select(latest.c.model, func.avg(latest.c.score).label("mean"), func.count().label("scores"))
        .where(latest.c.age == literal(1))
        .group_by(latest.c.model)
    )
