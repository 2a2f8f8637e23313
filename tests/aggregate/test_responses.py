"""Kept responses on both databases: chains and branches, owners, bounds, forgetting."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from parkway.aggregate.config import ResponsesConfig
from parkway.aggregate.responses import KeptResponse, Responses, prune_responses
from parkway.core.chat import Message
from parkway.core.errors import InvalidRequest, NotFound, PreviousResponseNotFound
from parkway.store import schema
from parkway.store.sql import Database


def kept(name: str, previous: str | None = None, *, said: str = "", created_ms: int = 1) -> KeptResponse:
    return KeptResponse(
        response_id=f"resp_{name}",
        previous_id=None if previous is None else f"resp_{previous}",
        model="m",
        turns=[Message(role="user", content=f"{name}?"), Message(role="assistant", content=said or f"{name}!")],
        body=b"{}",
        created_ms=created_ms,
    )


async def heard(responses: Responses, name: str, key: str = "k") -> list[object]:
    return [message.content for message in await responses.history(key, f"resp_{name}")]


async def test_chains_branch_and_belong_to_a_key(database: Database) -> None:
    responses = Responses(database, ResponsesConfig())
    for each in (kept("a"), kept("b", "a"), kept("c", "b"), kept("d", "a")):
        assert await responses.keep("k", each)
    assert await heard(responses, "c") == ["a?", "a!", "b?", "b!", "c?", "c!"]
    assert await heard(responses, "d") == ["a?", "a!", "d?", "d!"]
    with pytest.raises(PreviousResponseNotFound, match="resp_c"):
        await heard(responses, "c", key="another")
    await responses.delete("k", "resp_b")
    with pytest.raises(PreviousResponseNotFound, match="resp_b"):
        await heard(responses, "c")
    with pytest.raises(NotFound):
        await responses.delete("k", "resp_b")
    with pytest.raises(NotFound):
        await responses.get("another", "resp_a")
    assert await responses.get("k", "resp_a") == b"{}"


async def test_the_bounds(database: Database) -> None:
    responses = Responses(database, ResponsesConfig(max_chain=2, max_bytes=1024, max_responses=3))
    for each in (kept("a"), kept("b", "a"), kept("c", "b")):
        await responses.keep("k", each)
    assert len(await heard(responses, "b")) == 4
    with pytest.raises(InvalidRequest, match="max_chain"):
        await heard(responses, "c")
    assert not await responses.keep("k", kept("large", said="x" * 1024))
    for each in (kept("m", said="x" * 700), kept("n", "m", said="x" * 700)):
        assert await responses.keep("k", each)
    with pytest.raises(InvalidRequest, match="max_bytes"):
        await heard(responses, "n")
    await responses.keep("other", kept("z"))
    for number in range(3):
        await responses.keep("k", kept(f"new{number}0", created_ms=2))
    with database.read() as connection:
        rows = connection.scalars(select(schema.responses.c.response_id).order_by(schema.responses.c.response_id))
        assert list(rows) == ["resp_new00", "resp_new10", "resp_new20", "resp_z"]


async def test_old_ones_are_forgotten(database: Database) -> None:
    responses = Responses(database, ResponsesConfig())
    for number in range(5):
        await responses.keep("k", kept(f"r{number}", created_ms=number))
    assert await database.run(lambda connection: prune_responses(connection, 4, 3)) == 3
    assert await database.run(lambda connection: prune_responses(connection, 4, 3)) == 1
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(schema.responses)) == 1


async def test_input_in_pages(database: Database) -> None:
    responses = Responses(database, ResponsesConfig())
    await responses.keep("k", kept("a"))
    page = await responses.input_items("k", "resp_a", limit=1)
    assert (page.first_id, page.last_id, page.has_more) == ("msg_a_in0", "msg_a_in0", False)
    assert (await responses.input_items("k", "resp_a", after="msg_a_in0")).data == []
    with pytest.raises(InvalidRequest, match="after"):
        await responses.input_items("k", "resp_a", after="nonsense")
