"""Tools in requests, and their calls in answers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher

from parkway.core.chat import ChatRequest, Message
from parkway.core.errors import InvalidRequest
from parkway.engine import tools
from parkway.engine.json_check import byte_tokenizer, matches
from parkway.engine.tool_grammar import tool_grammar
from parkway.engine.tool_parser import CallDelta, ToolParser
from parkway.engine.tools import HERMES, LLAMA, CallFormat, ToolUse

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def request(**fields: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=[Message(role="user", content="hi")], **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"tools": []}, None),
        ({"tools": [WEATHER], "tool_choice": "none"}, None),
        ({"tools": [WEATHER, CLOCK]}, (("weather", "clock"), False, True)),
        ({"tools": [WEATHER], "parallel_tool_calls": False}, (("weather",), False, False)),
        ({"tools": [WEATHER, CLOCK], "tool_choice": "required"}, (("weather", "clock"), True, True)),
        (
            {"tools": [WEATHER, CLOCK], "tool_choice": {"type": "function", "function": {"name": "clock"}}},
            (("clock",), True, False),
        ),
    ],
)
def test_what_a_request_says_about_tools(fields: dict[str, Any], expected: Any) -> None:
    use = ToolUse.of(request(**fields))
    assert (use and (tuple(each.name for each in use.functions), use.required, use.parallel)) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tools": [{"type": "function"}]}, "tools.0"),
        ({"tools": [{"type": "retrieval", "function": {"name": "x"}}]}, "tools.0"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": []}}]}, "parameters"),
        ({"tools": [CLOCK, CLOCK]}, "two functions called 'clock'"),
        ({"tools": [CLOCK] * 200}, "128 are the most"),
        ({"tool_choice": "required"}, "`tools` is empty"),
        ({"tools": [CLOCK], "tool_choice": "sometimes"}, "expected none, auto, required"),
        ({"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "none of the functions"),
    ],
)
def test_malformed_tools_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        ToolUse.of(request(**fields))
    assert caught.value.param


CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "a {\\" b", "days": 2}}\n</tool_call>'
OTHER = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
JSON_CALL = '{"name": "weather", "parameters": {"city": "x"}}'


def accepts(text: str, form: CallFormat = HERMES, **options: Any) -> bool:
    use = ToolUse.of(request(tools=[WEATHER, CLOCK]))
    assert use is not None
    functions = [(each.name, each.parameters) for each in use.functions]
    lark = tool_grammar(form, functions, **{"required": False, "parallel": True, **options})
    source = json.dumps({"grammars": [{"lark_grammar": lark}]})
    assert not LLMatcher(byte_tokenizer(), source, log_level=0).is_error()
    return matches(source, text)


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
def test_the_grammar_of_calls(required: bool, parallel: bool) -> None:
    options = {"required": required, "parallel": parallel}
    assert accepts(CALL, **options)
    assert accepts("", **options) is not required
    assert accepts("It rains <tool", **options) is not required
    assert accepts("Let me look.\n" + CALL, **options) is not required
    assert accepts(CALL + "\n" + OTHER, **options) is parallel
    for wrong in (
        CALL[:-1],
        CALL.replace("weather", "wetter"),
        CALL.replace("city", "town"),
        CALL.replace("2", "2.5"),
        "<tool_call>nonsense",
        OTHER.replace("{}", '{"x": 1}'),
    ):
        assert not accepts(wrong, **options)
    assert accepts(JSON_CALL, LLAMA, **options)
    assert accepts("It rains {", LLAMA, **options) is not required
    assert not accepts('{"name": "weather"', LLAMA, **options)
    assert not accepts('{"something": "else"}', LLAMA, **options)


def test_an_answer_without_a_call_may_have_a_form_of_its_own() -> None:
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    assert accepts('{"sum": 3}', otherwise=schema)
    assert accepts(CALL, otherwise=schema)
    assert not accepts("three", otherwise=schema)


def read(form: CallFormat, pieces: list[str]) -> tuple[str, list[tuple[str, str]], ToolParser]:
    """The text, and name and arguments of each call, as somebody puts them together from a stream."""
    parser = ToolParser(form)
    parts = [part for piece in pieces for part in parser.feed(piece)]
    text = "".join(part for part in parts if isinstance(part, str)) + parser.finish()
    calls: dict[int, tuple[str, str]] = {}
    for part in parts:
        if isinstance(part, CallDelta):
            assert (part.name is None) == (part.id is None) == (part.index in calls)
            name, arguments = calls.get(part.index, (part.name or "", ""))
            calls[part.index] = (name, arguments + part.arguments)
    return text, list(calls.values()), parser


WEATHER_CALL = ("weather", '{"city": "a {\\" b", "days": 2}')
ANSWERS = {
    "": (HERMES, "", []),
    "only text, a < b and <tool too": (HERMES, "only text, a < b and <tool too", []),
    " text \n ends in space \n": (HERMES, " text \n ends in space \n", []),
    CALL: (HERMES, "", [WEATHER_CALL]),
    "Let me look.\n\n" + CALL: (HERMES, "Let me look.", [WEATHER_CALL]),
    CALL + "\n" + OTHER + "\n": (HERMES, "", [WEATHER_CALL, ("clock", "{}")]),
    CALL + "\nDone.": (HERMES, "\nDone.", [WEATHER_CALL]),
    JSON_CALL: (LLAMA, "", [("weather", '{"city": "x"}')]),
    "no call {": (LLAMA, "no call {", []),
}


@given(st.sampled_from(list(ANSWERS)), st.data())
def test_calls_are_found_however_the_answer_is_cut(answer: str, data: st.DataObject) -> None:
    form, text, calls = ANSWERS[answer]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=8)))
    pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    found, made, parser = read(form, pieces)
    assert (found, made) == (text, calls)
    assert (parser.calls, parser.open) == (len(calls), False)


@pytest.mark.parametrize("size", range(len("<tool_call>"), len(CALL)))
def test_a_call_that_is_cut_off_is_no_call(size: int) -> None:
    text, _, parser = read(HERMES, [CALL[:size]])
    assert (text, parser.calls, parser.open) == ("", 0, True)


def test_messages_for_templates() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "<|x|>"}'}}
    message = Message(role="assistant", content=None, tool_calls=[call])
    seen = tools.for_template(message, lambda text: text.replace("<|x|>", "clean"))
    assert seen["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "clean"}}
    answer = tools.for_template(Message(role="tool", content="sunny", tool_call_id="c1"), str)
    assert answer == {"role": "tool", "content": "sunny", "tool_call_id": "c1"}


@pytest.mark.parametrize("call", [{"id": "1"}, {"function": {}}, {"function": {"name": "f", "arguments": "{not json"}}])
def test_malformed_calls_in_messages_are_refused(call: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        tools.for_template(Message(role="assistant", tool_calls=[call]), str)
    assert caught.value.param == "messages"


def test_an_answer_to_no_call_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="tool_call_id"):
        tools.for_template(Message(role="tool", content="42"), str)


def test_a_template_that_knows_no_tools_gets_them_as_text() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    messages = [
        Message(role="system", content="Be brief."),
        Message(role="user", content="What time is it?"),
        Message(role="assistant", tool_calls=[call]),
        Message(role="tool", content="noon", tool_call_id="c1"),
    ]
    seen = tools.without_tools(
        [tools.for_template(message, str) for message in messages], ToolUse.of(request(tools=[CLOCK]))
    )
    assert [message["role"] for message in seen] == ["system", "user", "assistant", "user"]
    assert seen[0]["content"].startswith("Be brief.\n\n# Tools")
    assert '"name": "clock"' in seen[0]["content"]
    assert seen[2]["content"] == OTHER
    assert seen[3]["content"] == "<tool_response>\nnoon\n</tool_response>"
