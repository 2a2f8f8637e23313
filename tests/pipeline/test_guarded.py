"""Answers that pass guardrails in a stream: valid events for the official client, whatever comes in whatever pieces."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from parkway.core.sse import data_of
from parkway.pipeline.guarded import AnswerGuard
from parkway.policy.guardrails.window import apply
from tests.policy.guardrails.test_window import HOLD, PERSONAL, guard, pieces

RULES = guard({**PERSONAL, "hold_tokens": HOLD}, {"check": "secrets", "action": "block", "hold_tokens": HOLD})

Channel = tuple[int, str]
CHANNELS: tuple[Channel, ...] = ((0, "content"), (0, "arguments"), (1, "content"), (1, "reasoning_content"))


def event(channel: Channel, piece: str) -> bytes:
    index, name = channel
    delta: dict[str, Any] = {name: piece}
    if name == "arguments":
        delta = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
    return framed({"index": index, "delta": delta, "finish_reason": None})


def framed(*choices: dict[str, Any], **more: Any) -> bytes:
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": list(choices), **more}
    return b"data: " + json.dumps(body).encode()


@st.composite
def streams(draw: st.DrawFn) -> tuple[dict[Channel, str], list[bytes]]:
    """Texts of two choices in several channels, and the events that bring them, one channel after the other."""
    texts: dict[Channel, str] = {}
    queues: dict[int, list[bytes]] = defaultdict(list)
    for channel in CHANNELS:
        parts = draw(pieces())
        if channel[1] == "arguments":
            text = json.dumps({"text": "".join(parts)})
            parts = [text[at : at + 4] for at in range(0, len(text), 4)]
        texts[channel] = "".join(parts)
        queues[channel[0]] += [event(channel, part) for part in parts]
    for index, queue in queues.items():
        queue.append(framed({"index": index, "delta": {}, "finish_reason": "stop"}))
    events = [framed({"index": index, "delta": {"role": "assistant", "content": ""}}) for index in queues]
    while any(queues.values()):
        index = draw(st.sampled_from([index for index, queue in queues.items() if queue]))
        events.append(queues[index].pop(0))
    return texts, [
        *events,
        framed(usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}),
        b"data: [DONE]",
    ]


async def passed(events: list[bytes]) -> list[bytes]:
    answer = AnswerGuard(RULES, choices=2, chat=True, json=False)
    return [block for each in events for block in await answer.blocks([each])]


@given(streams())
@settings(max_examples=60, deadline=None)
def test_events_are_valid_and_say_what_the_whole_would(stream: tuple[dict[Channel, str], list[bytes]]) -> None:
    texts, events = stream
    *blocks, last = [data_of(block) or b"" for block in asyncio.run(passed(events))]
    assert last == b"[DONE]"
    said: dict[Channel, str] = defaultdict(str)
    ended: dict[int, str] = {}
    for block in blocks:
        for choice in ChatCompletionChunk.model_validate_json(block).choices:
            assert choice.index not in ended, "nothing comes behind the end of a choice"
            if choice.finish_reason:
                ended[choice.index] = choice.finish_reason
            delta = choice.delta.model_dump(exclude_unset=True)
            for name in ("content", "reasoning_content"):
                said[choice.index, name] += delta.get(name) or ""
            for call in delta.get("tool_calls") or ():
                said[choice.index, "arguments"] += call["function"]["arguments"]
    for index in (0, 1):
        mine = {channel: text for channel, text in texts.items() if channel[0] == index}
        whole = {channel: apply(RULES, text, json=channel[1] == "arguments") for channel, text in mine.items()}
        if any(each.block for each in whole.values()):
            assert ended[index] == "content_filter"
            assert all(whole[channel].text.startswith(said[channel]) for channel in mine)
        else:
            assert ended[index] == "stop"
            assert {channel: said[channel] for channel in mine} == {name: each.text for name, each in whole.items()}
