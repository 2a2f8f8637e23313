"""An endpoint's answer that has to rest on passages, on its way to the client: event by event, or whole."""

from __future__ import annotations

from typing import Any

import msgspec

from parkway.aggregate.grounding.checking import Checker
from parkway.aggregate.grounding.citation import annotations_of
from parkway.core.errors import EndpointFailed
from parkway.core.grounding import Grounded
from parkway.core.sse import data_of
from parkway.core.wire import encode
from parkway.pipeline.exchange import Exchange
from parkway.pipeline.grounds import Grounding

_DONE = b"[DONE]"
_CALLS = ("tool_calls", "function_call")
_REASONING = ("reasoning", "reasoning_content")


def grounded_answer(exchange: Exchange) -> GroundedAnswer | None:
    """What the answer has to pass; None where it need not rest on anything."""
    grounding = exchange.grounding
    return None if grounding is None else GroundedAnswer(grounding)


class GroundedAnswer:
    """Checks one answer and tells what it rests on. Calls of tools are left out: passages may have asked for them."""

    def __init__(self, grounding: Grounding) -> None:
        self._grounding = grounding
        config, terms = grounding.config, grounding.terms
        self._checker = Checker(
            grounding.passages, grounding.question, terms.check, config.min_support, config.unknown, grounding.similar
        )
        self._over = False
        self._last: dict[str, Any] = {}

    async def blocks(self, blocks: list[bytes]) -> list[bytes]:
        """Event blocks of the endpoint as blocks for the client."""
        return [passed for block in blocks for passed in await self._block(block)]

    async def rest(self) -> list[bytes]:
        """What was still held when the endpoint stopped without having said that it is done."""
        return []  # an answer that broke off: what was not checked is not told

    async def body(self, body: bytes) -> bytes:
        """A whole answer."""
        try:
            answer = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return body  # what cannot be read is refused behind this, and not relayed
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return body
        choice = choices[0]
        message = choice.get("message")
        if not isinstance(message, dict):
            return body
        content = message.get("content")
        await self._checker.feed(content if isinstance(content, str) else "")
        await self._checker.finish()
        self._clean(message)
        told = self._tell()
        message["content"] = self._checker.text
        message["annotations"] = annotations_of(told.citations)
        choice["finish_reason"] = _finish_of(choice.get("finish_reason"))
        choice["logprobs"] = None
        return encode({**answer, "choices": [choice], "parkway": told})

    async def _block(self, block: bytes) -> list[bytes]:
        data = data_of(block)
        if data is None:
            return [block]
        if data == _DONE:
            return [*await self._end(), block]
        try:
            event = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise EndpointFailed(
                "the endpoint sent an event that is not JSON, so that nothing in it can be checked"
            ) from error
        choices = event.get("choices") if isinstance(event, dict) else None
        if not isinstance(choices, list) or not choices:
            return [block]
        choice = next((each for each in choices if isinstance(each, dict) and each.get("index", 0) == 0), None)
        if choice is None or self._over:
            return [_event({**event, "choices": []})] if event.get("usage") else []
        self._last = {name: value for name, value in event.items() if name not in ("choices", "usage")}
        return await self._choice(event, choice)

    async def _choice(self, event: dict[str, Any], choice: dict[str, Any]) -> list[bytes]:
        given = choice.get("delta")
        delta: dict[str, Any] = given if isinstance(given, dict) else {}
        content = delta.get("content")
        released = await self._checker.feed(content) if isinstance(content, str) else ""
        self._clean(delta)
        if "content" in delta:
            delta["content"] = released
        choice |= {"delta": delta, "logprobs": None}
        reason = choice.get("finish_reason")
        says = released or any(value for name, value in delta.items() if name != "content")
        if reason is None:
            if not says and not event.get("usage"):
                return []
            return [_event({**event, "choices": [choice] if says else []})]
        begun = [_event({**event, "choices": [{**choice, "finish_reason": None}]})] if says else []
        last = {**choice, "delta": {}, "finish_reason": _finish_of(reason)}
        return [*begun, *await self._end(), _event({**event, "choices": [last]})]

    async def _end(self) -> list[bytes]:
        """The rest of the text, and what it rests on; once."""
        if self._over:
            return []
        self._over = True
        rest = await self._checker.finish()
        told = self._tell()
        said = [self._piece({"content": rest})] if rest else []
        return [*said, self._piece({"annotations": annotations_of(told.citations)}, parkway=told)]

    def _clean(self, words: dict[str, Any]) -> None:
        for name in (*_CALLS, "annotations", *(_REASONING if self._grounding.terms.check == "drop" else ())):
            words.pop(name, None)

    def _piece(self, delta: dict[str, Any], **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}
        return _event({**self._last, "choices": [choice], **more})

    def _tell(self) -> Grounded:
        checker, grounding = self._checker, self._grounding
        grounding.told = Grounded(
            tier=grounding.terms.tier,
            answered=checker.answered,
            confidence=grounding.confidence,
            citations=checker.citations,
            unsupported=checker.unsupported,
            dropped=checker.dropped,
            query=grounding.query,
        )
        return grounding.told


def _finish_of(reason: Any) -> Any:
    """Nothing is called, so that nobody is to wait for results."""
    return "stop" if reason in _CALLS else reason


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + encode(event)
