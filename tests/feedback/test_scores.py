"""Feedback: who may give it, on what, and what of it is kept."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from parkway.core.errors import InvalidRequest, NotFound, ParkwayError
from parkway.core.wire import decode, encode
from parkway.feedback.config import FeedbackConfig
from parkway.feedback.log import RequestLog
from parkway.feedback.scores import FeedbackRequest, Scores
from parkway.store import schema
from parkway.store.sql import Database
from tests.feedback.records import make_record


@pytest.fixture
def log(database: Database) -> RequestLog:
    return RequestLog(database, FeedbackConfig())


@pytest.fixture
def scores(database: Database, log: RequestLog) -> Scores:
    return Scores(database, log)


def rows(database: Database) -> list[dict[str, Any]]:
    with database.read() as connection:
        return [dict(row._mapping) for row in connection.execute(select(schema.feedback))]


async def test_feedback_on_a_stored_request_by_either_id(database: Database, log: RequestLog, scores: Scores) -> None:
    log.append(make_record(request_id="req_1", response_id="chatcmpl-1"))
    await log.close()
    first = await scores.add(FeedbackRequest(request_id="req_1", thumb="up", comment="schön"), "alice")
    second = await scores.add(FeedbackRequest(request_id="chatcmpl-1", score=0.25, correction="tar xf a"), "alice")
    stored = {row["feedback_id"]: row for row in rows(database)}
    assert set(stored) == {first.id, second.id}
    assert [stored[first.id][name] for name in ("request_id", "key_id", "thumb", "score", "comment", "correction")] == [
        "req_1",
        "alice",
        1,
        None,
        "schön",
        None,
    ]
    assert stored[second.id]["request_id"] == second.request_id == "req_1"
    assert stored[second.id]["score"] == 0.25
    assert stored[second.id]["correction"] == "tar xf a"
    assert stored[first.id]["created_ms"] // 1000 == first.created


async def test_feedback_on_a_request_that_is_not_stored_yet(
    database: Database, log: RequestLog, scores: Scores
) -> None:
    log.append(make_record(request_id="req_1", response_id="chatcmpl-1"))
    answer = await scores.add(FeedbackRequest(request_id="chatcmpl-1", thumb="down"), "alice")
    assert answer.request_id == "req_1"
    assert [(row["request_id"], row["thumb"]) for row in rows(database)] == [("req_1", -1)]


@pytest.mark.parametrize("stored", [False, True])
async def test_another_keys_request_is_not_there(
    database: Database, log: RequestLog, scores: Scores, stored: bool
) -> None:
    log.append(make_record(request_id="req_1", response_id="chatcmpl-1", key_id="alice"))
    if stored:
        await log.close()
    messages: list[str] = []
    for answer_id in ("req_1", "chatcmpl-1", "req_2"):
        with pytest.raises(NotFound) as error:
            await scores.add(FeedbackRequest(request_id=answer_id, thumb="up"), "bob")
        messages.append(error.value.message.replace(answer_id, "ID"))
    assert len(set(messages)) == 1  # bob cannot tell a request of alice's from none
    assert rows(database) == []


async def test_a_repeated_answer_id_means_the_newest_request(log: RequestLog, scores: Scores) -> None:
    for number in (2, 3, 1):
        log.append(make_record(request_id=f"req_{number}", response_id="same", started_ms=number))
    await log.close()
    assert (await scores.add(FeedbackRequest(request_id="same", thumb="up"), "alice")).request_id == "req_3"


@pytest.mark.parametrize(
    "request_",
    [
        FeedbackRequest(request_id="req_1"),
        FeedbackRequest(request_id="req_1", comment=""),
        FeedbackRequest(request_id="req_1", comment="a\0b"),
        FeedbackRequest(request_id="req_1", correction="a\0b"),
    ],
)
async def test_what_says_nothing_or_cannot_be_kept_is_refused(
    log: RequestLog, scores: Scores, request_: FeedbackRequest
) -> None:
    log.append(make_record(request_id="req_1"))
    with pytest.raises(InvalidRequest, match=r"thumb|NUL"):
        await scores.add(request_, "alice")


async def test_a_score_of_zero_says_something(database: Database, log: RequestLog, scores: Scores) -> None:
    log.append(make_record(request_id="req_1"))
    await scores.add(FeedbackRequest(request_id="req_1", score=0.0), "alice")
    assert [row["score"] for row in rows(database)] == [0.0]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{}", "request_id"),
        (b'{"request_id": ""}', "request_id"),
        (b'{"request_id": "a\\u0000"}', "request_id"),
        (b'{"request_id": "r", "thumb": "sideways"}', "thumb"),
        (b'{"request_id": "r", "thumb": 1}', "thumb"),
        (b'{"request_id": "r", "score": 1.01}', "score"),
        (b'{"request_id": "r", "score": -0.1}', "score"),
        (b'{"request_id": "r", "score": NaN}', "JSON"),
        (b'{"request_id": "r", "rating": 5}', "rating"),
        (encode({"request_id": "r", "comment": "x" * 4001}), "comment"),
        (encode({"request_id": "r", "correction": "x" * 32_001}), "correction"),
    ],
)
def test_a_bad_body_is_refused_by_name(body: bytes, says: str) -> None:
    with pytest.raises(ParkwayError, match=says):
        decode(body, FeedbackRequest)


def test_a_full_body_is_taken() -> None:
    body = encode({"request_id": "r", "thumb": "up", "score": 1, "comment": "x" * 4000, "correction": "y" * 32_000})
    assert decode(body, FeedbackRequest).score == 1
