"""Conversations in the store: owned, bounded, whole."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import func, select

from parkway.aggregate.config import ConversationConfig
from parkway.aggregate.conversations import Conversations
from parkway.core.chat import Message
from parkway.core.errors import Conflict, InvalidRequest, NotFound
from parkway.store import schema
from parkway.store.sql import Database


@pytest.fixture
def conversations(database: Database) -> Conversations:
    return Conversations(database, ConversationConfig(max_messages=6, max_bytes=2000, max_conversations=3))


def turn(question: str, answer: str = "yes") -> list[Message]:
    return [Message(role="user", content=question), Message(role="assistant", content=answer)]


def texts(messages: list[Message]) -> list[str]:
    return [message.text() for message in messages]


async def test_a_conversation_is_made_continued_and_remembered_exactly(conversations: Conversations) -> None:
    assert await conversations.history("alice", "c1") == []
    first = [
        Message(role="system", content="be brief"),
        Message(role="user", content=[{"type": "text", "text": "päckchen \0 \u2028 😀"}], name="al"),
        Message(role="assistant", tool_calls=[{"id": "1", "type": "function", "function": {"name": "f"}}]),
    ]
    await conversations.append("alice", "c1", first, "req_1")
    assert await conversations.history("alice", "c1") == first
    await conversations.append("alice", "c1", turn("more"), "req_2")
    assert await conversations.history("alice", "c1") == [*first, *turn("more")]


async def test_another_keys_conversation_is_not_there(conversations: Conversations) -> None:
    await conversations.append("alice", "c1", turn("secret"))
    assert await conversations.history("bob", "c1") == []
    assert (await conversations.list("bob")).data == []
    for attempt in (conversations.get("bob", "c1"), conversations.delete("bob", "c1")):
        with pytest.raises(NotFound):
            await attempt
    await conversations.append("bob", "c1", turn("mine"))
    assert texts(await conversations.history("alice", "c1")) == ["secret", "yes"]
    assert texts(await conversations.history("bob", "c1")) == ["mine", "yes"]


async def test_the_oldest_turns_are_forgotten(conversations: Conversations) -> None:
    for number in range(5):
        await conversations.append("alice", "c1", turn(str(number)))
    assert texts(await conversations.history("alice", "c1")) == ["2", "yes", "3", "yes", "4", "yes"]


async def test_bytes_are_bounded_too(conversations: Conversations) -> None:
    await conversations.append("alice", "c1", turn("first", "ä" * 500))
    await conversations.append("alice", "c1", turn("second", "ä" * 500))
    assert texts(await conversations.history("alice", "c1"))[0] == "second"


async def test_what_could_never_fit_is_refused_beforehand(conversations: Conversations) -> None:
    conversations.check(turn("fine"))
    with pytest.raises(InvalidRequest, match="at most 5"):
        conversations.check([Message(role="user", content="x")] * 6)
    with pytest.raises(InvalidRequest, match="2000"):
        conversations.check([Message(role="user", content="x" * 2000)])


async def test_a_key_has_so_many_and_no_more(conversations: Conversations) -> None:
    for number in range(3):
        await conversations.append("alice", f"c{number}", turn("hello"))
    for attempt in (
        conversations.history("alice", "new"),
        conversations.append("alice", "new", turn("hello")),
        conversations.create("alice"),
    ):
        with pytest.raises(InvalidRequest, match="max_conversations"):
            await attempt
    assert len(await conversations.history("alice", "c0")) == 2  # what is there goes on
    assert await conversations.history("bob", "new") == []
    await conversations.delete("alice", "c0")
    await conversations.append("alice", "new", turn("hello"))


async def test_created_read_and_deleted_over_http(conversations: Conversations, database: Database) -> None:
    made = await conversations.create("alice", title="packing")
    assert made.id.startswith("conv_")
    assert (made.title, made.message_count) == ("packing", 0)
    assert await conversations.history("alice", made.id) == []
    await conversations.append("alice", made.id, turn("hello"))
    read = await conversations.get("alice", made.id)
    assert (read.title, read.message_count, read.messages) == ("packing", 2, turn("hello"))
    with pytest.raises(Conflict):
        await conversations.create("alice", made.id)
    await conversations.delete("alice", made.id)
    with pytest.raises(NotFound):
        await conversations.get("alice", made.id)
    with pytest.raises(NotFound):
        await conversations.delete("alice", made.id)
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(schema.messages)) == 0


async def test_listing_goes_page_by_page_and_sees_each_once(database: Database) -> None:
    conversations = Conversations(database, ConversationConfig())
    made = [(await conversations.create("alice", f"c{number}")).id for number in range(7)]
    seen: list[str] = []
    after: str | None = None
    sizes: list[int] = []
    while True:
        page = await conversations.list("alice", limit=3, after=after)
        sizes.append(len(page.data))
        seen += [conversation.id for conversation in page.data]
        if not page.has_more:
            break
        after = seen[-1]
        await conversations.append("alice", "c0", turn("moves nothing"))
    assert sizes == [3, 3, 1]
    assert sorted(seen) == made
    assert len(seen) == 7


@pytest.mark.parametrize("limit", [0, -1, 101])
async def test_a_page_has_its_bounds(conversations: Conversations, limit: int) -> None:
    with pytest.raises(InvalidRequest, match="limit"):
        await conversations.list("alice", limit=limit)


async def test_a_page_after_nothing(conversations: Conversations) -> None:
    with pytest.raises(InvalidRequest, match="after"):
        await conversations.list("alice", after="nowhere")


@pytest.mark.parametrize("conversation_id", ["", "a b", "ä", "a\n", "x" * 65, "a/b", "\0"])
async def test_an_id_that_is_none_is_refused(conversations: Conversations, conversation_id: str) -> None:
    for attempt in (
        conversations.history("alice", conversation_id),
        conversations.append("alice", conversation_id, turn("x")),
        conversations.create("alice", conversation_id),
        conversations.get("alice", conversation_id),
        conversations.delete("alice", conversation_id),
    ):
        with pytest.raises(InvalidRequest, match="conversation id"):
            await attempt


async def test_turns_that_end_at_the_same_time_do_not_mix(database_url: str, database: Database) -> None:
    """Two gateways on one store, eight answers to one conversation at once."""
    other = Database.open(database_url)
    config = ConversationConfig()
    gateways = [Conversations(database, config), Conversations(other, config)]
    try:
        await asyncio.gather(
            *(gateways[n % 2].append("alice", "c1", turn(f"q{n}", f"a{n}"), f"req_{n}") for n in range(8))
        )
    finally:
        other.close()
    said = texts(await gateways[0].history("alice", "c1"))
    assert sorted(said[::2]) == [f"q{n}" for n in range(8)]
    assert [question[1:] for question in said[::2]] == [answer[1:] for answer in said[1::2]]


async def test_the_bound_of_a_key_holds_when_many_begin_at_once(database: Database) -> None:
    conversations = Conversations(database, ConversationConfig(max_conversations=3))
    ended = await asyncio.gather(*(conversations.create("alice") for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(result, InvalidRequest) for result in ended) == 7
    assert len((await conversations.list("alice")).data) == 3
