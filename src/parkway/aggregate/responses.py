"""Answers of `/v1/responses` that the server keeps: chains of turns that branch, bounded, owned by the key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Integer, and_, delete, insert, literal, select

from parkway.aggregate.config import ResponsesConfig
from parkway.core.chat import Message
from parkway.core.errors import InvalidRequest, NotFound, PreviousResponseNotFound
from parkway.core.responses import ItemPage, KeptItem
from parkway.core.wire import encode
from parkway.store import schema
from parkway.store.sql import Database

MAX_PAGE = 100

_ID = re.compile(r"resp_[A-Za-z0-9_-]{1,96}")

_responses = schema.responses.c
_decode_turns = msgspec.json.Decoder(list[Message]).decode

# Every answer is counted against the bound of its key only now and then: the ids end in random hexadecimal digits.
_TRIMS_ON = "0"
_TRIM_ROWS = 1000


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """What is kept of a request and its answer.

    Attributes:
        turns: What the request added to the conversation, and the answer at the end.
        body: The answer, as its client got it.
    """

    response_id: str
    previous_id: str | None
    model: str
    turns: Sequence[Message]
    body: bytes
    created_ms: int


class Responses:
    """The kept answers of all keys. To a key, another's are not there.

    Every method raises `StoreUnavailable` where the store does not answer.
    """

    def __init__(self, database: Database, config: ResponsesConfig) -> None:
        self._database = database
        self._config = config

    async def history(self, key_id: str, response_id: str) -> list[Message]:
        """All turns up to the answer `response_id`, oldest first.

        Raises:
            PreviousResponseNotFound: The key has no such answer, or one that it goes on from is not there any more.
            InvalidRequest: They are too many or too large to go on from.
        """
        if not _ID.fullmatch(response_id):
            raise _no_previous(response_id)
        longest = self._config.max_chain

        def work(connection: Connection) -> list[Any]:
            return list(connection.execute(_chain(key_id, response_id, longest + 1)))

        rows = await self._database.run(work, write=False)
        if len(rows) > longest:
            raise InvalidRequest(
                f"`previous_response_id`: more than {longest} answers one behind the other (responses.max_chain); "
                "begin anew with what matters of them as `input`",
                param="previous_response_id",
            )
        if not rows or rows[-1].previous_id is not None:
            raise _no_previous(rows[-1].previous_id if rows else response_id)
        size = sum(len(row.turns.encode()) for row in rows)
        if size > self._config.max_bytes:
            raise InvalidRequest(
                f"`previous_response_id`: what it goes on from has {size} bytes, at most {self._config.max_bytes} "
                "allowed (responses.max_bytes); begin anew with what matters of it as `input`",
                param="previous_response_id",
            )
        return [message for row in reversed(rows) for message in _decode_turns(row.turns)]

    async def keep(self, key_id: str, kept: KeptResponse) -> bool:
        """Stores an answer; not one that is over `max_bytes` by itself. Returns whether it did."""
        turns, body = encode(kept.turns).decode(), kept.body.decode()
        if len(turns) + len(body) > self._config.max_bytes:
            return False
        row = {
            "response_id": kept.response_id,
            "key_id": key_id,
            "previous_id": kept.previous_id,
            "model": kept.model,
            "turns": turns,
            "body": body,
            "created_ms": kept.created_ms,
        }

        def work(connection: Connection) -> None:
            connection.execute(insert(schema.responses).values(row))
            if kept.response_id.endswith(_TRIMS_ON):
                self._trim(connection, key_id)

        await self._database.run(work)
        return True

    async def get(self, key_id: str, response_id: str) -> bytes:
        """The answer as its client got it.

        Raises:
            NotFound: The key has none of this id.
        """
        query = select(_responses.body).where(_is(key_id, _known_form(response_id)))
        body = await self._database.run(lambda connection: connection.scalar(query), write=False)
        if body is None:
            raise _not_found(response_id)
        return body.encode()

    async def input_items(
        self, key_id: str, response_id: str, *, limit: int = 20, after: str | None = None, descending: bool = True
    ) -> ItemPage:
        """The items of the request that made the answer: at most `limit`, from behind the one with id `after`.

        Raises:
            NotFound: The key has none of this id.
            InvalidRequest: There is no item `after`.
        """
        query = select(_responses.turns).where(_is(key_id, _known_form(response_id)))
        turns = await self._database.run(lambda connection: connection.scalar(query), write=False)
        if turns is None:
            raise _not_found(response_id)
        items = _items(response_id, _decode_turns(turns)[:-1])
        if descending:
            items.reverse()
        start = 0
        if after is not None:
            start = next((index for index, item in enumerate(items, 1) if item.id == after), 0)
            if not start:
                raise InvalidRequest(f"`after`: {after[:80]!r} is no item of this response", param="after")
        page = items[start : start + limit]
        first, last = (page[0].id, page[-1].id) if page else ("", "")
        return ItemPage(data=page, first_id=first, last_id=last, has_more=start + limit < len(items))

    async def delete(self, key_id: str, response_id: str) -> None:
        """Removes the answer; what goes on from it cannot be gone on from any more.

        Raises:
            NotFound: The key has none of this id.
        """
        _known_form(response_id)

        def work(connection: Connection) -> None:
            if not connection.execute(delete(schema.responses).where(_is(key_id, response_id))).rowcount:
                raise _not_found(response_id)

        await self._database.run(work)

    def _trim(self, connection: Connection, key_id: str) -> None:
        """Removes the oldest answers of a key that are beyond its bound."""
        beyond = (
            select(_responses.response_id)
            .where(_responses.key_id == key_id)
            .order_by(_responses.created_ms.desc(), _responses.response_id.desc())
            .offset(self._config.max_responses)
            .limit(_TRIM_ROWS)
        )
        connection.execute(delete(schema.responses).where(_responses.response_id.in_(beyond)))


def prune_responses(connection: Connection, older_than_ms: int, limit: int) -> int:
    """Removes at most `limit` answers from before `older_than_ms`. Returns how many went."""
    old = select(_responses.response_id).where(_responses.created_ms < older_than_ms).limit(limit)
    return connection.execute(delete(schema.responses).where(_responses.response_id.in_(old))).rowcount


def _chain(key_id: str, response_id: str, longest: int) -> Any:
    """The answer, the one that it goes on from, and so on: at most `longest`."""
    mine = select(_responses.turns, _responses.previous_id, literal(1, Integer).label("depth"))
    chain = mine.where(_is(key_id, response_id)).cte("chain", recursive=True)
    before = select(_responses.turns, _responses.previous_id, (chain.c.depth + 1).label("depth"))
    further = and_(_responses.response_id == chain.c.previous_id, _responses.key_id == key_id)
    chain = chain.union_all(before.join_from(schema.responses, chain, further).where(chain.c.depth < longest))
    return select(chain.c.turns, chain.c.previous_id).order_by(chain.c.depth)


def _is(key_id: str, response_id: str) -> Any:
    return and_(_responses.response_id == response_id, _responses.key_id == key_id)


def _known_form(response_id: str) -> str:
    """The id, if it is of a form that an id may have; a database need not see anything else."""
    if not _ID.fullmatch(response_id):
        raise _not_found(response_id)
    return response_id


def _no_previous(response_id: str) -> PreviousResponseNotFound:
    return PreviousResponseNotFound(
        f"Previous response with id {response_id[:100]!r} not found: this key has none, or it was deleted, has expired "
        "or was not stored",
        param="previous_response_id",
    )


def _not_found(response_id: str) -> NotFound:
    return NotFound(f"Response with id {response_id[:100]!r} not found: this key has none, or it was not stored")


def _items(response_id: str, turns: list[Message]) -> list[KeptItem]:
    """Messages as the items that they came as; their ids are made of the answer's and their place."""
    items: list[KeptItem] = []
    tail = response_id.removeprefix("resp_")

    def add(prefix: str, **fields: Any) -> None:
        items.append(KeptItem(id=f"{prefix}_{tail}_in{len(items)}", **fields))

    for turn in turns:
        if turn.role == "tool":
            output = turn.content if isinstance(turn.content, str) else _shown(turn.content, "input_text")
            add("fco", type="function_call_output", call_id=turn.tool_call_id or "", output=output)
            continue
        if turn.content is not None or turn.refusal:
            content = _shown(turn.content, "output_text" if turn.role == "assistant" else "input_text")
            if turn.refusal:
                content.append({"type": "refusal", "refusal": turn.refusal})
            add("msg", type="message", role=turn.role, content=content)
        for call in turn.tool_calls or ():
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            add("fc", type="function_call", call_id=call["id"], name=name, arguments=arguments)
    return items


def _shown(content: str | list[dict[str, Any]] | None, kind: str) -> list[dict[str, Any]]:
    """Chat's content as parts of an item."""
    if content is None or isinstance(content, str):
        return [_text_part(content, kind)] if content is not None else []
    parts: list[dict[str, Any]] = []
    for part in content:
        if part["type"] == "text":
            parts.append(_text_part(part["text"], kind))
        else:
            image = part["image_url"]
            parts.append({"type": "input_image", "image_url": image["url"], "detail": image.get("detail", "auto")})
    return parts


def _text_part(text: str, kind: str) -> dict[str, Any]:
    return {"type": kind, "text": text, **({"annotations": []} if kind == "output_text" else {})}
