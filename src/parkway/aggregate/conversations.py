"""Conversations that the server remembers: the turns of each, bounded, owned by the key that made it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import ColumnElement, Connection, Row, Table, and_, delete, func, insert, select, tuple_, update

from parkway.aggregate.config import ConversationConfig
from parkway.aggregate.turns import first_kept
from parkway.core.chat import Message
from parkway.core.errors import Conflict, InvalidRequest, NotFound
from parkway.core.ids import new_id
from parkway.core.wire import encode
from parkway.store import schema
from parkway.store.sql import Database

MAX_PAGE = 100

# Advisory locks are numbers shared by all programs of a database; this one says what ours are about.
_CREATION_LOCKS = 0x636F6E76  # "conv"

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

_conversations = schema.conversations.c
_messages = schema.messages.c
_decode = msgspec.json.Decoder(Message).decode


class ConversationRequest(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The body of `POST /v1/conversations`. Without an `id` the server chooses one."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")] | None = None
    title: Annotated[str, Meta(max_length=200, pattern=r"^[^\x00]*$")] | None = None


class Conversation(msgspec.Struct, kw_only=True):
    """A conversation as its owner sees it; `messages` only where one is asked for. Times are seconds since 1970."""

    id: str
    title: str | None
    created: int
    updated: int
    message_count: int
    object: Literal["conversation"] = "conversation"
    messages: list[Message] | UnsetType = UNSET


class ConversationPage(msgspec.Struct, kw_only=True):
    """Conversations, the newest first. `has_more` says that `after` the last of them there are others."""

    data: list[Conversation]
    has_more: bool
    object: Literal["list"] = "list"


class Conversations:
    """The conversations of all keys. To a key, another's conversations are not there.

    Every method raises `InvalidRequest` for an id that is not 1 to 64 of `[A-Za-z0-9_.:-]`, and `StoreUnavailable`
    where the store does not answer.
    """

    def __init__(self, database: Database, config: ConversationConfig) -> None:
        self._database = database
        self._config = config

    def check(self, messages: Sequence[Message]) -> None:
        """Refuses, before anything is spent on them, new messages that a conversation could never hold.

        Raises:
            InvalidRequest: They are too many, or too large, with the numbers.
        """
        room = self._config.max_messages - 1  # one for the answer
        if len(messages) > room:
            raise InvalidRequest(
                f"`messages`: {len(messages)} new messages; a conversation takes at most {room} at once "
                f"(conversations.max_messages). Send only what is new: the server has the rest",
                param="messages",
            )
        size = sum(len(encode(message)) for message in messages)
        if size > self._config.max_bytes:
            raise InvalidRequest(
                f"`messages`: {size} bytes; a conversation holds at most {self._config.max_bytes} "
                f"(conversations.max_bytes)",
                param="messages",
            )

    async def history(self, key_id: str, conversation_id: str) -> list[Message]:
        """The turns so far, oldest first; empty if the conversation is new.

        Raises:
            InvalidRequest: It is new, and the key has as many as it may have.
        """
        _check_id(conversation_id)

        def work(connection: Connection) -> list[Message]:
            messages = _read(connection, key_id, conversation_id)
            if not messages and not _exists(connection, key_id, conversation_id):
                self._check_room(connection, key_id)
            return messages

        return await self._database.run(work, write=False)

    async def append(
        self, key_id: str, conversation_id: str, messages: Sequence[Message], request_id: str | None = None
    ) -> None:
        """Adds `messages`, all or none; makes the conversation if it is new and forgets what no longer fits.

        What is added is kept even if it is over the bounds alone; `check` is there to refuse that before.

        Raises:
            InvalidRequest: It is new, and the key has as many as it may have.
        """
        _check_id(conversation_id)
        added = [(message.role, encode(message).decode()) for message in messages]

        def work(connection: Connection) -> None:
            now_ms = _now_ms()
            self._open(connection, key_id, conversation_id, now_ms)
            mine = _is(schema.messages, key_id, conversation_id)
            last = connection.scalar(select(func.max(_messages.position)).where(mine))
            start = 0 if last is None else last + 1
            rows: list[dict[str, Any]] = [
                {
                    "key_id": key_id,
                    "conversation_id": conversation_id,
                    "position": position,
                    "request_id": request_id,
                    "role": role,
                    "content": content,
                    "created_ms": now_ms,
                }
                for position, (role, content) in enumerate(added, start)
            ]
            if rows:
                connection.execute(insert(schema.messages), rows)
            self._forget(connection, key_id, conversation_id, start)
            changed = update(schema.conversations).where(_is(schema.conversations, key_id, conversation_id))
            connection.execute(changed.values(updated_ms=now_ms))

        await self._database.run(work)

    async def create(self, key_id: str, conversation_id: str | None = None, title: str | None = None) -> Conversation:
        """Makes an empty conversation.

        Raises:
            Conflict: The key has one of this id.
            InvalidRequest: The key has as many as it may have.
        """
        conversation_id = new_id("conv") if conversation_id is None else conversation_id
        _check_id(conversation_id)

        def work(connection: Connection) -> Conversation:
            if not self._open(connection, key_id, conversation_id, _now_ms(), title):
                raise Conflict(f"conversation {conversation_id!r} is there already; use it, or take another id")
            return _get(connection, key_id, conversation_id)

        return await self._database.run(work)

    async def get(self, key_id: str, conversation_id: str) -> Conversation:
        """The conversation with its messages.

        Raises:
            NotFound: The key has none of this id.
        """
        _check_id(conversation_id)

        def work(connection: Connection) -> Conversation:
            conversation = _get(connection, key_id, conversation_id)
            conversation.messages = _read(connection, key_id, conversation_id)
            return conversation

        return await self._database.run(work, write=False)

    async def list(self, key_id: str, limit: int = 20, after: str | None = None) -> ConversationPage:
        """The key's conversations, the newest first: at most `limit`, from behind the one with id `after`.

        Raises:
            InvalidRequest: `limit` is not 1 to 100, or there is no conversation `after`.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidRequest(f"`limit`: {limit}; send 1 to {MAX_PAGE}", param="limit")

        def work(connection: Connection) -> ConversationPage:
            order = (_conversations.created_ms, _conversations.conversation_id)
            query = _summaries().where(_conversations.key_id == key_id).order_by(*(column.desc() for column in order))
            if after is not None:
                _check_id(after, param="after")
                if (mark := _find(connection, key_id, after)) is None:
                    raise InvalidRequest(f"`after`: there is no conversation {after!r}", param="after")
                query = query.where(tuple_(*order) < tuple_(mark.created_ms, after))
            rows = connection.execute(query.limit(limit + 1)).all()
            return ConversationPage(data=[_summary(row) for row in rows[:limit]], has_more=len(rows) > limit)

        return await self._database.run(work, write=False)

    async def delete(self, key_id: str, conversation_id: str) -> None:
        """Removes the conversation and all that was said in it.

        Raises:
            NotFound: The key has none of this id.
        """
        _check_id(conversation_id)

        def work(connection: Connection) -> None:
            gone = connection.execute(
                delete(schema.conversations).where(_is(schema.conversations, key_id, conversation_id))
            )
            if gone.rowcount == 0:
                raise _not_found(conversation_id)

        await self._database.run(work)

    def _open(
        self, connection: Connection, key_id: str, conversation_id: str, now_ms: int, title: str | None = None
    ) -> bool:
        """Holds the conversation for this transaction, so that appends come one after the other.

        Returns:
            Whether it was made just now.
        """
        if _find(connection, key_id, conversation_id, hold=True) is not None:
            return False
        _one_at_a_time(connection, key_id)
        if _find(connection, key_id, conversation_id, hold=True) is not None:
            return False
        self._check_room(connection, key_id)
        connection.execute(
            insert(schema.conversations).values(
                key_id=key_id,
                conversation_id=conversation_id,
                title=title,
                created_ms=now_ms,
                updated_ms=now_ms,
            )
        )
        return True

    def _check_room(self, connection: Connection, key_id: str) -> None:
        count = connection.scalar(
            select(func.count()).select_from(schema.conversations).where(_conversations.key_id == key_id)
        )
        if (count or 0) >= self._config.max_conversations:
            raise InvalidRequest(
                f"`conversation`: this key has {count} conversations, and may have {self._config.max_conversations} "
                f"(conversations.max_conversations); delete one: DELETE /v1/conversations/ID",
                param="conversation",
            )

    def _forget(self, connection: Connection, key_id: str, conversation_id: str, added_from: int) -> None:
        """Removes the oldest turns beyond the bounds; never anything from position `added_from` on."""
        mine = _is(schema.messages, key_id, conversation_id)
        query = select(_messages.position, _messages.role, _messages.content).where(mine).order_by(_messages.position)
        rows = connection.execute(query).all()
        pinned, kept = first_kept(
            [row.role for row in rows],
            [len(row.content.encode()) for row in rows],
            added_from=next((index for index, row in enumerate(rows) if row.position >= added_from), len(rows)),
            max_messages=self._config.max_messages,
            max_bytes=self._config.max_bytes,
        )
        if kept > pinned:
            oldest, newest = rows[pinned].position, rows[kept - 1].position
            connection.execute(delete(schema.messages).where(mine, _messages.position.between(oldest, newest)))


def _check_id(conversation_id: str, *, param: str = "conversation") -> None:
    if not _ID.fullmatch(conversation_id):
        raise InvalidRequest(
            f"`{param}`: {conversation_id[:80]!r} is no conversation id; an id is 1 to 64 of A-Z a-z 0-9 _ . : -",
            param=param,
        )


def _one_at_a_time(connection: Connection, key_id: str) -> None:
    """New conversations of one key are made one after the other: the bound is exact, and no two can collide.

    There is no row yet that could be locked. SQLite has one writer at a time anyhow.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_CREATION_LOCKS, func.hashtext(key_id))))


def _not_found(conversation_id: str) -> NotFound:
    return NotFound(
        f"there is no conversation {conversation_id!r} of this key; GET /v1/conversations lists what there is"
    )


def _is(table: Table, key_id: str, conversation_id: str) -> ColumnElement[bool]:
    return and_(table.c.key_id == key_id, table.c.conversation_id == conversation_id)


def _find(connection: Connection, key_id: str, conversation_id: str, *, hold: bool = False) -> Row[Any] | None:
    query = select(schema.conversations).where(_is(schema.conversations, key_id, conversation_id))
    return connection.execute(query.with_for_update() if hold else query).one_or_none()


def _exists(connection: Connection, key_id: str, conversation_id: str) -> bool:
    return _find(connection, key_id, conversation_id) is not None


def _read(connection: Connection, key_id: str, conversation_id: str) -> list[Message]:
    query = select(_messages.content).where(_is(schema.messages, key_id, conversation_id)).order_by(_messages.position)
    return [_decode(content) for content in connection.scalars(query)]


def _summaries() -> Any:
    count = (
        select(func.count())
        .where(_messages.key_id == _conversations.key_id, _messages.conversation_id == _conversations.conversation_id)
        .scalar_subquery()
    )
    return select(schema.conversations, count.label("message_count"))


def _get(connection: Connection, key_id: str, conversation_id: str) -> Conversation:
    query = _summaries().where(_is(schema.conversations, key_id, conversation_id))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise _not_found(conversation_id)
    return _summary(row)


def _summary(row: Row[Any]) -> Conversation:
    return Conversation(
        id=row.conversation_id,
        title=row.title,
        created=row.created_ms // 1000,
        updated=row.updated_ms // 1000,
        message_count=row.message_count,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
