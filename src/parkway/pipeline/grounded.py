"""An endpoint's answer that has to rest on passages, on its way to the client: event by event, or whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class _Choice:
    """One of the answers that were asked for.

    Attributes:
        checker: None: it has a form, and passes as it is.
        called: Which of its calls are of tools that the client offers, by their place; others are left out.
    """

    index: int
    checker: Checker | None
    called: dict[int, bool] = field(default_factory=dict[int, bool])
    over: bool = False

    @property
    def calls(self) -> bool:
        return any(self.called.values())


class GroundedAnswer:
    """Checks an answer, or several, and tells what each rests on."""

    def __init__(self, grounding: Grounding) -> None:
        self._grounding = grounding
        self._choices = {index: _Choice(index, self._new_checker()) for index in range(grounding.choices)}
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
        if not isinstance(choices, list):
            return body
        kept = {state.index: given for at, given in enumerate(choices) if (state := self._of(given, at)) is not None}
        if not kept or any(not isinstance(given.get("message"), dict) for given in kept.values()):
            return body
        told = [await self._whole(self._choices[at], given, given["message"]) for at, given in sorted(kept.items())]
        return encode({**answer, "choices": [given for _, given in sorted(kept.items())], "parkway": told[0]})

    async def _whole(self, state: _Choice, choice: dict[str, Any], message: dict[str, Any]) -> Grounded:
        content = message.get("content")
        self._clean(state, message)
        if state.checker is not None:
            await state.checker.feed(content if isinstance(content, str) else "")
            await state.checker.finish(silent=state.calls)
            message["content"] = state.checker.text or (None if state.calls else "")
        told = self._tell(state)
        message["annotations"] = annotations_of(told.citations)
        choice["finish_reason"] = _finish_of(state, choice.get("finish_reason"))
        choice |= {"logprobs": None, **self._beside(told)}
        return told

    async def _block(self, block: bytes) -> list[bytes]:
        data = data_of(block)
        if data is None:
            return [block]
        if data == _DONE:
            return [*[each for state in self._choices.values() for each in await self._end(state)], block]
        try:
            event = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise EndpointFailed(
                "the endpoint sent an event that is not JSON, so that nothing in it can be checked"
            ) from error
        choices = event.get("choices") if isinstance(event, dict) else None
        if not isinstance(choices, list) or not choices:
            return [block]
        self._last = {name: value for name, value in event.items() if name not in ("choices", "usage")}
        passed = [
            each
            for given in choices
            if (state := self._of(given)) is not None and not state.over
            for each in await self._piece_of(state, given)
        ]
        if event.get("usage"):
            passed.append(_event({**event, "choices": []}))
        return passed

    async def _piece_of(self, state: _Choice, choice: dict[str, Any]) -> list[bytes]:
        given = choice.get("delta")
        delta: dict[str, Any] = given if isinstance(given, dict) else {}
        content = delta.get("content")
        self._clean(state, delta)
        if state.checker is not None and "content" in delta:
            delta["content"] = await state.checker.feed(content) if isinstance(content, str) else ""
        choice |= {"delta": delta, "logprobs": None}
        reason = choice.get("finish_reason")
        begun = [self._told({**choice, "finish_reason": None})] if any(delta.values()) else []
        if reason is None:
            return begun
        ended = await self._end(state)
        return [*begun, *ended, self._told({**choice, "delta": {}, "finish_reason": _finish_of(state, reason)})]

    async def _end(self, state: _Choice) -> list[bytes]:
        """The rest of the text, and what it rests on; once."""
        if state.over:
            return []
        state.over = True
        rest = await state.checker.finish(silent=state.calls) if state.checker is not None else ""
        told = self._tell(state)
        choice = {"index": state.index, "finish_reason": None, "logprobs": None}
        said = [self._told({**choice, "delta": {"content": rest}})] if rest else []
        annotated = {**choice, "delta": {"annotations": annotations_of(told.citations)}, **self._beside(told)}
        return [*said, self._told(annotated, **({} if state.index else {"parkway": told}))]

    def _of(self, choice: Any, place: int = 0) -> _Choice | None:
        """Which of the choices it belongs to; None: to none that was asked for."""
        index = choice.get("index", place) if isinstance(choice, dict) else None
        return self._choices.get(index) if isinstance(index, int) else None

    def _new_checker(self) -> Checker | None:
        grounding, config = self._grounding, self._grounding.config
        if grounding.formed:
            return None
        return Checker(
            grounding.shown, grounding.question, grounding.checking, config.min_support, config.unknown,
            grounding.similar,
        )  # fmt: skip

    def _clean(self, state: _Choice, words: dict[str, Any]) -> None:
        """Leaves out what passages may have asked for: calls of anything but the tools that the client offers."""
        calls = list(self._offered(state, words.get("tool_calls")))
        for name in (*_CALLS, "annotations", *(_REASONING if self._grounding.terms.check == "drop" else ())):
            words.pop(name, None)
        if calls:
            words["tool_calls"] = calls

    def _offered(self, state: _Choice, calls: Any) -> Iterator[dict[str, Any]]:
        for position, call in enumerate(calls if isinstance(calls, list) else ()):
            function = call.get("function") if isinstance(call, dict) else None
            if not isinstance(function, dict):
                continue
            place = index if isinstance(index := call.get("index"), int) else position
            if place not in state.called or function.get("name"):  # only the first piece of a call has its name
                state.called[place] = function.get("name") in self._grounding.tools
            if state.called[place]:
                yield call

    def _beside(self, told: Grounded) -> dict[str, Grounded]:
        """What stands in each of several choices."""
        return {"parkway": told} if self._grounding.choices > 1 else {}

    def _told(self, choice: dict[str, Any], **more: Any) -> bytes:
        return _event({**self._last, "choices": [choice], **more})

    def _tell(self, state: _Choice) -> Grounded:
        grounding, checker = self._grounding, state.checker
        told = grounding.tell(
            answered=state.calls or checker is None or checker.answered,
            citations=checker.citations if checker is not None else [],
            unchecked=state.calls or checker is None or grounding.resumed,
        )
        if checker is not None:
            told.unsupported, told.dropped = checker.unsupported, checker.dropped
        if state.index == 0:
            grounding.told = told
        return told


def _finish_of(state: _Choice, reason: Any) -> Any:
    """Where nothing is called, nobody is to wait for results."""
    return "stop" if reason in _CALLS and not state.calls else reason


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + encode(event)
