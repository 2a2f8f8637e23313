"""A request for a message in Anthropic's form, as a chat request."""

from __future__ import annotations

from typing import Any

from parkway.core.chat import ChatRequest, Message, StreamOptions
from parkway.core.errors import InvalidRequest, UnsupportedField
from parkway.core.messages import CountRequest, InputBlock, InputMessage, MessagesRequest, MessagesTool, ToolChoice
from parkway.core.wire import encode

_REFUSED = {
    "container": "nothing is executed here; leave it out",
    "mcp_servers": "this gateway calls no tools itself; answer calls of `tools` yourself",
    "context_management": "contexts are not edited here; leave it out and send what the model is to see",
}

_CHOICES: dict[str, str] = {"auto": "auto", "any": "required", "none": "none"}


def refuse_unsupported(request: CountRequest) -> None:
    """Refuses what would change the answer and cannot be had.

    Raises:
        UnsupportedField: With the reason, and what to do instead.
    """
    for name, reason in _REFUSED.items():
        given = getattr(request, name, None)
        if given and not (name == "context_management" and _clears_thinking_alone(given)):
            raise UnsupportedField(f"`{name}` is not supported: {reason}", param=name)
    if request.messages[-1].role == "assistant":
        raise UnsupportedField(
            "`messages`: the last one is the assistant's, and an answer that it begins is not continued here; "
            "end with a message of the user",
            param="messages",
        )


def _clears_thinking_alone(edits: dict[str, Any]) -> bool:
    """Whether nothing is to be taken out of the context but thinking, which no endpoint gets anyhow."""
    listed = edits.get("edits")
    if set(edits) != {"edits"} or not isinstance(listed, list):
        return False
    return all(isinstance(each, dict) and str(each.get("type", "")).startswith("clear_thinking_") for each in listed)


def chat_request(request: CountRequest) -> ChatRequest:
    """The chat request for `request`; one that only asks for a count of tokens asks for one token.

    Raises:
        InvalidRequest, UnsupportedField: A block, a tool or the choice of one is malformed, or of a kind that is not
            there; `param` names it.
    """
    messages = [turn for index, message in enumerate(request.messages) for turn in _turns(message, index)]
    if request.system is not None:
        messages.insert(0, Message(role="system", content=_system(request.system, "system")))
    if not messages:
        raise InvalidRequest("`messages` has no content; send at least one text", param="messages")
    tools = [_function(tool, f"tools.{index}") for index, tool in enumerate(request.tools or ())] or None
    config = request.output_config
    chat = ChatRequest(
        model=request.model,
        messages=messages,
        max_tokens=1,
        tools=tools,
        tool_choice=_choice(request.tool_choice, tools),
        parallel_tool_calls=False if request.tool_choice and request.tool_choice.disable_parallel_tool_use else None,
        reasoning_effort=config.effort if config is not None else None,
    )
    if config is not None and config.format is not None:
        described = {"name": "answer", "schema": config.format.schema, "strict": True}
        chat.response_format = {"type": "json_schema", "json_schema": described}
    if isinstance(request, MessagesRequest):
        chat.max_tokens = request.max_tokens
        chat.stream = request.stream
        chat.stream_options = StreamOptions(include_usage=True) if request.stream else None
        chat.stop = request.stop_sequences or None
        chat.temperature, chat.top_p = request.temperature, request.top_p
        chat.top_k = request.top_k or None
        chat.knowledge, chat.grounding = request.knowledge, request.grounding
        chat.user = request.metadata.user_id if request.metadata is not None else None
    return chat


def _system(system: str | list[InputBlock], place: str) -> str:
    if isinstance(system, str):
        return system
    return "\n\n".join(_text(block, f"{place}.{index}") for index, block in enumerate(system))


def _turns(message: InputMessage, index: int) -> list[Message]:
    """A message as chat has it: results of tools are messages of their own, and calls beside the text."""
    place = f"messages.{index}.content"
    if isinstance(message.content, str):
        return [Message(role=message.role, content=message.content)]
    if message.role == "system":
        return [Message(role="system", content=_system(message.content, place))]
    if message.role == "assistant":
        return [_assistant(message.content, place)]
    turns: list[Message] = []
    parts: list[dict[str, Any]] = []
    for position, block in enumerate(message.content):
        at = f"{place}.{position}"
        if block.type == "tool_result":
            result, pictures = _result(block, at)
            turns.append(result)
            parts.extend(pictures)
        else:
            parts.append(_part(block, at))
    if parts:
        only = len(parts) == 1 and parts[0]["type"] == "text"
        turns.append(Message(role="user", content=parts[0]["text"] if only else parts))
    return turns


def _assistant(blocks: list[InputBlock], place: str) -> Message:
    text: list[str] = []
    calls: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        at = f"{place}.{index}"
        if block.type == "tool_use":
            function = {"name": _needed(block.name, f"{at}.name"), "arguments": encode(block.input or {}).decode()}
            calls.append({"id": _needed(block.id, f"{at}.id"), "type": "function", "function": function})
        elif block.type not in ("thinking", "redacted_thinking"):  # no chat endpoint takes back what it thought
            text.append(_text(block, at))
    content = "".join(text)
    return Message(role="assistant", content=content if content or not calls else None, tool_calls=calls or None)


def _result(block: InputBlock, place: str) -> tuple[Message, list[dict[str, Any]]]:
    """What a tool said as a message, and the images in it, which only a message of the user can have.

    Chat has no field that says that a tool failed; the words that say so stand before what it said.
    """
    call_id = _needed(block.tool_use_id, f"{place}.tool_use_id")
    content = block.content or ""
    texts = [content] if isinstance(content, str) else []
    pictures: list[dict[str, Any]] = []
    for index, part in enumerate(() if isinstance(content, str) else content):
        seen = _part(part, f"{place}.content.{index}")
        if seen["type"] == "text":
            texts.append(seen["text"])
        else:
            pictures.append(seen)
    text = "\n".join(texts)
    return Message(role="tool", tool_call_id=call_id, content=f"Error: {text}" if block.is_error else text), pictures


def _part(block: InputBlock, place: str) -> dict[str, Any]:
    if block.type != "image":
        return {"type": "text", "text": _text(block, place)}
    source = _needed(block.source, f"{place}.source")
    if source.type == "url":
        return {"type": "image_url", "image_url": {"url": _needed(source.url, f"{place}.source.url")}}
    if source.type == "base64":
        kind, data = _needed(source.media_type, f"{place}.source.media_type"), _needed(source.data, f"{place}.data")
        return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
    raise UnsupportedField(
        f"`{place}.source.type`: {source.type[:40]!r} is not supported; send base64 or url", param=f"{place}.source"
    )


def _text(block: InputBlock, place: str) -> str:
    if block.type != "text":
        raise UnsupportedField(
            f"`{place}.type`: {block.type[:40]!r} is not supported here; blocks may be text, image and tool_result of "
            "the user, text and tool_use of the assistant, and text of the system",
            param=f"{place}.type",
        )
    return _needed(block.text, f"{place}.text")


def _function(tool: MessagesTool, place: str) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise UnsupportedField(
            f"`{place}.type`: {tool.type[:40]!r} is not supported; this gateway runs no tools itself: describe yours "
            "by `name` and `input_schema` and answer its calls",
            param=f"{place}.type",
        )
    function: dict[str, Any] = {
        "name": tool.name,
        "parameters": _needed(tool.input_schema, f"{place}.input_schema"),
    }
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice | None, tools: list[dict[str, Any]] | None) -> str | dict[str, Any] | None:
    if choice is None or (tools is None and choice.type in ("auto", "none")):
        return None
    if choice.type == "tool":
        return {"type": "function", "function": {"name": _needed(choice.name, "tool_choice.name")}}
    return _CHOICES[choice.type]


def _needed(value: Any, place: str) -> Any:
    if value is None:
        raise InvalidRequest(f"`{place}` is missing; it is required", param=place)
    return value
