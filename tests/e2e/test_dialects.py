"""`/v1/responses` and `/v1/messages` over Parkway's own engine, with the official clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.running import Parkway

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}},
    "required": ["on"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def parkway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parkway]:
    with Parkway(tmp_path_factory.mktemp("home"), {"models": {"park-mini": "park-mini"}}) as running:
        yield running


@pytest.fixture
def claude(parkway: Parkway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=parkway.url, api_key=parkway.key, max_retries=0, timeout=60) as client:
        yield client


def test_a_response_is_what_a_chat_is(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(
        model="park-mini", messages=[{"role": "user", "content": "hello"}], max_tokens=12, temperature=0
    )
    answer = client.responses.create(model="park-mini", input="hello", max_output_tokens=12, temperature=0)
    assert answer.output_text == chat.choices[0].message.content
    assert (answer.status, answer.usage and answer.usage.output_tokens) == ("incomplete", 12)
    with client.responses.stream(model="park-mini", input="hello", max_output_tokens=12, temperature=0) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert "".join(deltas) == answer.output_text
    assert len(deltas) > 2


def test_a_response_calls_a_tool_and_goes_on(client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "name": "switch", "parameters": SCHEMA, "strict": True}
    first = client.responses.create(
        model="park-mini",
        input="lights on",
        tools=[tool],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
    )
    (call,) = first.output
    assert call.type == "function_call"
    assert set(json.loads(call.arguments)) == {"on"}
    second = client.responses.create(
        model="park-mini",
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "done"}],
        max_output_tokens=4,
    )
    assert second.previous_response_id == first.id
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > 10


def test_answers_that_come_to_their_end(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    question = "How do I count lines in a file?"
    answer = client.responses.create(model="park-mini", input=question, temperature=0)
    assert answer.status == "completed"
    assert client.responses.retrieve(answer.id).output_text == answer.output_text
    message = claude.messages.create(
        model="park-mini",
        max_tokens=200,
        messages=[{"role": "user", "content": question}],
        extra_body={"temperature": 0},
    )
    assert message.stop_reason == "end_turn"
    assert message.content[0].text == answer.output_text  # pyright: ignore


def test_a_response_in_a_form(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "name": "switch", "schema": SCHEMA, "strict": True}
    answer = client.responses.create(model="park-mini", input="lights?", text={"format": form}, temperature=0)
    assert set(json.loads(answer.output_text)) == {"on"}


def test_a_message_is_what_a_chat_is(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    chat = client.chat.completions.create(
        model="park-mini", messages=[{"role": "user", "content": "hello"}], max_tokens=12, temperature=0
    )
    hello: Any = [{"role": "user", "content": "hello"}]
    cold = {"temperature": 0}
    message = claude.messages.create(model="park-mini", messages=hello, max_tokens=12, extra_body=cold)
    assert message.content[0].type == "text"
    said = message.content[0].text
    assert said == chat.choices[0].message.content
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 12)
    with claude.messages.stream(model="park-mini", messages=hello, max_tokens=12, extra_body=cold) as stream:
        streamed = stream.get_final_message()
    assert streamed.content[0].text == said  # pyright: ignore
    assert streamed.usage.output_tokens == 12
    stop = said[4:6]
    stopped = claude.messages.create(
        model="park-mini", messages=hello, max_tokens=12, stop_sequences=[stop], extra_body=cold
    )
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", stop)
    counted = claude.messages.count_tokens(model="park-mini", messages=hello)
    assert counted.input_tokens == message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


def test_a_message_calls_a_tool_and_goes_on(claude: anthropic.Anthropic) -> None:
    tools: Any = [{"name": "switch", "input_schema": SCHEMA}]
    asked: Any = [{"role": "user", "content": "lights on"}]
    choice: Any = {"type": "any", "disable_parallel_tool_use": True}
    with claude.messages.stream(
        model="park-mini",
        messages=asked,
        max_tokens=512,
        tools=tools,
        tool_choice=choice,
        extra_body={"temperature": 0},
    ) as stream:
        first = stream.get_final_message()
    (call,) = first.content
    assert call.type == "tool_use"
    assert first.stop_reason == "tool_use"
    assert set(call.input) == {"on"}
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "done"}
    turns = [*asked, first.to_param(), {"role": "user", "content": [result]}]
    second = claude.messages.create(model="park-mini", messages=turns, max_tokens=4)
    assert second.usage.output_tokens == 4


def test_errors_of_the_engine_in_each_form(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    picture: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
    with pytest.raises(anthropic.BadRequestError, match="image_url"):
        claude.messages.create(model="park-mini", messages=[{"role": "user", "content": [picture]}], max_tokens=4)
    with pytest.raises(openai.BadRequestError) as long:
        client.responses.create(model="park-mini", input="word " * 20_000)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="reasoning_effort"):
        client.responses.create(model="park-mini", input="x", reasoning={"effort": "low"})
