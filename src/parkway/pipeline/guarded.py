"""The endpoint's answer on its way through the guardrails: event by event, or whole."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from parkway.core.chat import ChatRequest
from parkway.core.completions import CompletionRequest
from parkway.core.errors import EndpointFailed
from parkway.core.sse import data_of
from parkway.core.wire import encode
from parkway.pipeline.exchange import Exchange
from parkway.pipeline.guard import LOOP_NS
from parkway.pipeline.parts import Parts
from parkway.pipeline.wording import Path, Words, at_path, says_more, words_in
from parkway.policy.guardrails.guard import Block, Found, Guard
from parkway.policy.guardrails.window import Window, apply

_DONE = b"[DONE]"
_FILTERED = "content_filter"
_TOPIC_CHARS = 600


def answer_guard(exchange: Exchange, parts: Parts) -> AnswerGuard | None:
    """What the answer has to pass; None if nothing applies."""
    request = exchange.known_request
    if not (parts.guardrails.active and isinstance(request, ChatRequest | CompletionRequest)):
        return None
    rules = parts.guardrails.guard("output", request.model, exchange.known_caller.team)
    if rules is None:
        return None
    return AnswerGuard(
        rules, choices=request.n or 1, chat=isinstance(request, ChatRequest), json=_asks_for_json(request)
    )


def _asks_for_json(request: ChatRequest | CompletionRequest) -> bool:
    structured = request.structured_outputs
    if structured is not None and structured.json is not None:
        return True
    form = request.response_format if isinstance(request, ChatRequest) else None
    return form is not None and form.get("type") in ("json_object", "json_schema")


class _Choice:
    """One of the answers in a stream: a window for each of its texts."""

    def __init__(self, rules: Guard, found: Found, *, json: bool) -> None:
        self._rules = rules
        self._found = found
        self._json = json
        self.windows: dict[Path, Window] = {}
        self.over = False
        self.banned = False
        self.unjudged = ""
        """Text that has been let go and that no topic was asked about yet."""

    def window(self, path: Path, *, json: bool) -> Window:
        window = self.windows.get(path)
        if window is None:
            as_json = json or (self._json and path[-1] in ("content", "text"))
            window = self.windows[path] = Window(self._rules, self._found, json=as_json)
        return window

    def rest(self) -> Iterator[tuple[Path, str]]:
        """What the windows still held, in the order in which the texts began."""
        for path, window in self.windows.items():
            if text := window.finish():
                self._let_go(path, text)
                yield path, text
            if window.block is not None:
                return

    def feed(self, path: Path, text: str, *, json: bool) -> str:
        released = self.window(path, json=json).feed(text)
        self._let_go(path, released)
        return released

    def _let_go(self, path: Path, text: str) -> None:
        if self._rules.topics and path[-1] in ("content", "text"):
            self.unjudged += text

    @property
    def filtered(self) -> bool:
        """Whether it was ended by a guardrail."""
        return self.banned or self.block is not None

    @property
    def block(self) -> Block | None:
        return next((window.block for window in self.windows.values() if window.block is not None), None)


class AnswerGuard:
    """Guards one answer.

    Args:
        choices: How many answers the client asked for.
        chat: Whether they are messages, and not bare texts.
        json: Whether they are to be JSON; then they stay JSON.

    Attributes:
        found: What has been found so far.
        cut: Whether the answer was ended here, and not by the endpoint, which need not go on.
    """

    def __init__(self, rules: Guard, *, choices: int, chat: bool, json: bool) -> None:
        self.found: Found = Counter()
        self.cut = False
        self._rules = rules
        self._chat = chat
        self._json = json
        self._expected = choices
        self._choices: dict[int, _Choice] = {}
        self._last: dict[str, Any] = {}

    async def blocks(self, blocks: list[bytes]) -> list[bytes]:
        """Event blocks of the endpoint as blocks for the client: none, the same, or others."""
        if not self._rules.topics and self._rules.cost_ns * sum(map(len, blocks)) <= LOOP_NS:
            return self._all(blocks)
        out: list[bytes] = []
        for block in blocks:
            passed = await asyncio.to_thread(self._all, [block]) if len(block) > 4096 else self._all([block])
            out += passed if not self._rules.topics else await self._judged(passed)
        return out

    async def rest(self) -> list[bytes]:
        """What was still held when the endpoint stopped without having said that it is done."""
        return await self._judged(self._flush_all())

    async def body(self, body: bytes) -> bytes:
        """A whole answer; the same object if nothing has to change."""
        try:
            answer = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return body  # what cannot be read is refused behind this, and not relayed
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list):
            return body
        if self._rules.cost_ns * len(body) > LOOP_NS:
            changed = await asyncio.to_thread(self._look, choices)
        else:
            changed = self._look(choices)
        for choice in choices:
            if (block := await self._topic_of(choice)) is not None:
                changed = self._withhold(choice, block) or changed
        return encode(answer) if changed else body

    def _look(self, choices: list[Any]) -> bool:
        changed = False
        for choice in choices:
            if not isinstance(choice, dict):
                continue
            for words in _words_of(choice):
                as_json = words.json or (self._json and words.key in ("content", "text"))
                result = apply(self._rules, words.text, json=as_json)
                self.found.update(result.found)
                if result.block is not None:
                    changed = self._withhold(choice, result.block)
                    break
                if result.text is not words.text:
                    words.replace(result.text)
                    changed = True
                    if choice.get("logprobs") is not None:
                        choice["logprobs"] = None  # token by token they say what was redacted
        return changed

    def _withhold(self, choice: dict[str, Any], block: Block) -> bool:
        """Puts a notice in the place of a choice."""
        notice = f'[withheld by the guardrail "{block.rule.name}": {block.kind}]'
        if "message" in choice:
            choice["message"] = {"role": "assistant", "content": notice, "refusal": None}
        else:
            choice["text"] = notice
        choice["logprobs"] = None
        choice["finish_reason"] = _FILTERED
        return True

    async def _topic_of(self, choice: Any) -> Block | None:
        if not self._rules.topics or not isinstance(choice, dict) or choice.get("finish_reason") == _FILTERED:
            return None
        return await self._banned([words.text for words in _words_of(choice)])

    async def _banned(self, texts: list[str]) -> Block | None:
        for rule, topics in self._rules.topics:
            finding = await topics.find(texts)
            if finding is not None:
                self.found[rule, finding.kind] += 1
                if rule.action == "block" and not topics.forgives(finding):
                    return Block(rule, finding.kind)
        return None

    async def _judged(self, blocks: list[bytes]) -> list[bytes]:
        """Has topics judge what is about to leave, a passage at a time; a banned one does not leave."""
        for index, choice in self._choices.items():
            ends = any(data_of(block) == _DONE for block in blocks) or choice.over
            if not choice.unjudged or (len(choice.unjudged) < _TOPIC_CHARS and not ends):
                continue
            text, choice.unjudged = choice.unjudged, ""
            if await self._banned([text]) is not None:
                choice.over = choice.banned = True
                return [*self._without(blocks, index), *self._end(index)]
        return blocks

    def _without(self, blocks: list[bytes], index: int) -> Iterator[bytes]:
        """Events without one of the choices, and without the end of the stream."""
        for block in blocks:
            data = data_of(block)
            if data is None or data == _DONE:
                continue
            event = msgspec.json.decode(data)
            event["choices"] = [each for each in event.get("choices", ()) if each.get("index", 0) != index]
            if event["choices"] or event.get("usage"):
                yield _event(event)

    def _all(self, blocks: list[bytes]) -> list[bytes]:
        return [passed for block in blocks for passed in self._block(block)]

    def _block(self, block: bytes) -> list[bytes]:
        data = data_of(block)
        if self.cut:
            return []
        if data is None:
            return [block]
        if data == _DONE:
            return [*self._flush_all(), block]
        try:
            event = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise EndpointFailed(
                "the endpoint sent an event that is not JSON, so that no guardrail can read it"
            ) from error
        choices = event.get("choices") if isinstance(event, dict) else None
        if not isinstance(choices, list) or not choices:
            return [block]
        self._last = event
        out: list[bytes] = []
        kept: list[Any] = []
        for choice in choices:
            if isinstance(choice, dict):
                before, own = self._choose(choice)
                out += before
                kept += own
        if not self._rules.changes:
            return [block]
        if kept or event.get("usage"):
            out.append(_event({**event, "choices": kept}))
        self._end_if_over(out)
        return out

    def _choose(self, choice: dict[str, Any]) -> tuple[list[bytes], list[Any]]:
        """What one entry of an event becomes: events that go in front of it, and what is left of it."""
        index = choice.get("index", 0)
        if not isinstance(index, int) or not 0 <= index < max(self._expected, 1):
            return [], []  # nobody asked for it
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = _Choice(self._rules, self.found, json=self._json)
        if state.over:
            return [], []
        before: list[bytes] = []
        all_words = _words_of(choice, by_index=True)
        fed = False
        for words in all_words:
            if not words.text:
                continue
            fed = True
            if words.path not in state.windows:
                before += [self._piece(index, path, text) for path, text in state.rest()]  # one text ends, one begins
            words.replace(state.feed(words.path, words.text, json=words.json) if state.block is None else "")
        if state.block is None and choice.get("finish_reason") is not None:
            return self._finish(index, state, choice, before)
        if "logprobs" in choice and self._rules.changes:
            choice["logprobs"] = None  # token by token they say what may be held or redacted
        silent = fed and not any(words.text for words in all_words) and not _is_more(choice)
        if state.block is not None:
            state.over = True
            choice["finish_reason"] = None
            piece = [] if silent else [_event({**self._head(), "choices": [choice]})]
            return [*before, *piece, self._last_of(index)], []
        return before, [] if silent else [choice]

    def _finish(
        self, index: int, state: _Choice, choice: dict[str, Any], before: list[bytes]
    ) -> tuple[list[bytes], list[Any]]:
        """The choice ends: what was held goes first."""
        state.over = True
        if "logprobs" in choice and self._rules.changes:
            choice["logprobs"] = None
        held = [self._piece(index, path, text) for path, text in state.rest()]
        reason = choice["finish_reason"]
        if not held and state.block is None:
            return before, [choice]
        if any(words.text for words in _words_of(choice)) or _is_more(choice):
            before = [*before, _event({**self._head(), "choices": [{**choice, "finish_reason": None}]})]
        return [*before, *held, self._last_of(index, _FILTERED if state.block is not None else reason)], []

    def _flush_all(self) -> list[bytes]:
        out: list[bytes] = []
        for index, state in self._choices.items():
            if state.over:
                continue
            out += [self._piece(index, path, text) for path, text in state.rest()]
            if state.block is not None:
                state.over = True
                out.append(self._last_of(index))
        return out if self._rules.changes else []

    def _end(self, index: int) -> list[bytes]:
        out = [self._last_of(index)]
        self._end_if_over(out)
        return out

    def _end_if_over(self, out: list[bytes]) -> None:
        """Where every answer was ended here there is nothing to wait for."""
        states = self._choices.values()
        if (
            len(states) >= self._expected
            and all(state.over for state in states)
            and any(state.filtered for state in states)
        ):
            self.cut = True
            out.append(b"data: " + _DONE)

    def _head(self) -> dict[str, Any]:
        """What an event of ours has in common with those of the endpoint."""
        head = {name: value for name, value in self._last.items() if name not in ("choices", "usage")}
        return {**head, "usage": None} if "usage" in self._last else head

    def _piece(self, index: int, path: Path, text: str) -> bytes:
        return _event({**self._head(), "choices": [{"index": index, **at_path(path, text), "finish_reason": None}]})

    def _last_of(self, index: int, reason: str = _FILTERED) -> bytes:
        empty: dict[str, Any] = {"delta": {}} if self._chat else {"text": "", "logprobs": None}
        return _event({**self._head(), "choices": [{"index": index, **empty, "finish_reason": reason}]})


def _words_of(choice: dict[str, Any], *, by_index: bool = False) -> list[Words]:
    """The words of a choice: of its message, of a piece of one, or its text. Not its logprobs, which repeat them."""
    said = {name: choice[name] for name in ("message", "delta") if isinstance(choice.get(name), dict)}
    words = list(words_in(said, by_index=by_index))
    return words if said or not isinstance(choice.get("text"), str) else [Words(choice, "text", ("text",))]


def _is_more(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    return isinstance(delta, dict) and says_more(delta)


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + encode(event)
