"""A request for a response, as a chat request."""

from __future__ import annotations

from typing import Any

from parkway.core.chat import ChatRequest, Message, StreamOptions
from parkway.core.errors import InvalidRequest, UnsupportedField
from parkway.core.responses import InputItem, InputPart, ResponseRequest, TextConfig

_REFUSED = {
    "background": "answers are not made in the background here; leave it out, and stream if the answer is long",
    "conversation": "go on from an answer by its `previous_response_id`; leave it out",
    "prompt": "this server keeps no prompt templates; send the text as `instructions` and `input`",
    "moderation": "this route has no moderation of the client's choosing; leave it out",
    "context_management": "contexts are not compacted here; `truncation: auto` shortens what is too long",
}

_ITEMS = "message, function_call, function_call_output and reasoning"

_LOGPROBS = "message.output_text.logprobs"


def refuse_unsupported(request: ResponseRequest) -> None:
    """Refuses what would change the answer and cannot be had.

    Raises:
        UnsupportedField: With the reason, and what to do instead.
    """
    for name, reason in _REFUSED.items():
        if getattr(request, name) not in (None, False):
            raise UnsupportedField(f"`{name}` is not supported: {reason}", param=name)
    if request.text is not None and request.text.verbosity not in (None, "medium"):
        raise UnsupportedField(
            f"`text.verbosity`: {request.text.verbosity!r} is not supported, and ignoring it would change the answer; "
            "leave it out",
            param="text.verbosity",
        )


def chat_request(request: ResponseRequest, turns: list[Message]) -> ChatRequest:
    """The chat request for `request`, whose input are `turns`.

    `max_output_tokens` goes by the older name of the field, which every server knows.

    Raises:
        InvalidRequest, UnsupportedField: A tool or the choice of one is malformed, or of a kind that is not there.
    """
    tools, choice = _tools(request)
    first = [Message(role="system", content=request.instructions)] if request.instructions else []
    logprobs = _LOGPROBS in (request.include or ()) or bool(request.top_logprobs)
    return ChatRequest(
        model=request.model,
        messages=[*first, *turns],
        stream=request.stream,
        stream_options=StreamOptions(include_usage=True) if request.stream else None,
        temperature=request.temperature,
        top_p=request.top_p,
        max_tokens=request.max_output_tokens,
        logprobs=True if logprobs else None,
        top_logprobs=request.top_logprobs if logprobs else None,
        response_format=_response_format(request.text),
        reasoning_effort=request.reasoning.effort if request.reasoning else None,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=request.parallel_tool_calls if tools else None,
        service_tier=request.service_tier,
        user=request.user or request.safety_identifier,
        knowledge=request.knowledge,
        grounding=request.grounding,
    )


def turns_of(given: str | list[InputItem]) -> list[Message]:
    """The input as messages. A call of a function joins the words of the assistant before it, as chat has it.

    Raises:
        InvalidRequest, UnsupportedField: An item is malformed, or of a kind that is not there; `param` names it.
    """
    if isinstance(given, str):
        return [Message(role="user", content=given)]
    turns: list[Message] = []
    for index, item in enumerate(given):
        place = f"input.{index}"
        match item.type or "message":
            case "message":
                turns.append(_message(item, place))
            case "function_call":
                call = {
                    "id": _needed(item.call_id, f"{place}.call_id"),
                    "type": "function",
                    "function": {
                        "name": _needed(item.name, f"{place}.name"),
                        "arguments": _needed(item.arguments, f"{place}.arguments"),
                    },
                }
                if not turns or turns[-1].role != "assistant":
                    turns.append(Message(role="assistant"))
                turns[-1].tool_calls = [*(turns[-1].tool_calls or ()), call]
            case "function_call_output":
                call_id = _needed(item.call_id, f"{place}.call_id")
                output = _content(_needed(item.output, f"{place}.output"), f"{place}.output")
                turns.append(Message(role="tool", tool_call_id=call_id, content=output))
            case "reasoning":
                pass  # no chat endpoint takes back what it thought
            case other:
                raise UnsupportedField(
                    f"`{place}.type`: {other[:40]!r} is not supported; items may be {_ITEMS}", param=f"{place}.type"
                )
    if not turns:
        raise InvalidRequest("`input` has no message; send text, or at least one item with a role", param="input")
    return turns


def _message(item: InputItem, place: str) -> Message:
    role = _needed(item.role, f"{place}.role")
    content = _needed(item.content, f"{place}.content")
    if role != "assistant" or isinstance(content, str):
        return Message(role=role, content=_content(content, f"{place}.content"))
    said = [part for part in content if part.type != "refusal"]
    refused = "".join(part.refusal or "" for part in content if part.type == "refusal")
    parts = _content(said, f"{place}.content") if said else ""
    text = parts if isinstance(parts, str) else "".join(str(part.get("text", "")) for part in parts)
    return Message(role="assistant", content=text or (None if refused else ""), refusal=refused or None)


def _content(content: str | list[InputPart], place: str) -> str | list[dict[str, Any]]:
    """Content in chat's form: as text where it is nothing else."""
    if isinstance(content, str):
        return content
    parts = [_part(part, f"{place}.{index}") for index, part in enumerate(content)]
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(part: InputPart, place: str) -> dict[str, Any]:
    match part.type:
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": _needed(part.text, f"{place}.text")}
        case "input_image":
            image = {"url": _needed(part.image_url, f"{place}.image_url")}
            return {"type": "image_url", "image_url": {**image, **({"detail": part.detail} if part.detail else {})}}
        case other:
            raise UnsupportedField(
                f"`{place}.type`: {other[:40]!r} is not supported; parts may be input_text, output_text, refusal and "
                "input_image with an `image_url`",
                param=f"{place}.type",
            )


def _tools(request: ResponseRequest) -> tuple[list[dict[str, Any]] | None, str | dict[str, Any] | None]:
    """The tools and the choice among them, in chat's form."""
    tools = [_function(tool, f"tools.{index}") for index, tool in enumerate(request.tools or ())]
    choice = request.tool_choice
    if not isinstance(choice, dict):
        if choice not in (None, "auto", "none", "required"):
            raise InvalidRequest(
                f"`tool_choice`: {str(choice)[:40]!r}; expected auto, none, required, or an object", param="tool_choice"
            )
        return tools or None, choice if tools or choice == "required" else None
    match choice.get("type"):
        case "function":
            return tools, {"type": "function", "function": {"name": choice.get("name")}}
        case "allowed_tools":
            named = choice.get("tools")
            allowed = [tool.get("name") for tool in named if isinstance(tool, dict)] if isinstance(named, list) else []
            tools = [tool for tool in tools if tool["function"]["name"] in allowed]
            if not tools or choice.get("mode") not in ("auto", "required"):
                raise InvalidRequest(
                    "`tool_choice`: allowed_tools needs a `mode` (auto or required) and `tools` that are among `tools`",
                    param="tool_choice",
                )
            return tools, choice["mode"]
        case other:
            raise UnsupportedField(
                f"`tool_choice.type`: {str(other)[:40]!r} is not supported; expected function or allowed_tools",
                param="tool_choice",
            )


def _function(tool: dict[str, Any], place: str) -> dict[str, Any]:
    kind = tool.get("type")
    if kind != "function":
        raise UnsupportedField(
            f"`{place}.type`: {str(kind)[:40]!r} is not supported; this gateway runs no tools itself: describe "
            'yours as {"type": "function", "name": ..., "parameters": {...}} and answer its calls',
            param=f"{place}.type",
        )
    if not isinstance(tool.get("name"), str):
        raise InvalidRequest(f"`{place}.name` is missing or no text; it is required", param=f"{place}.name")
    told = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in told if tool.get(name) is not None}}


def _response_format(text: TextConfig | None) -> dict[str, Any] | None:
    if text is None or text.format is None or text.format.type == "text":
        return None
    if text.format.type == "json_object":
        return {"type": "json_object"}
    described: dict[str, Any] = {
        "name": _needed(text.format.name, "text.format.name"),
        "schema": _needed(text.format.schema, "text.format.schema"),
    }
    if text.format.strict is not None:
        described["strict"] = text.format.strict
    if text.format.description is not None:
        described["description"] = text.format.description
    return {"type": "json_schema", "json_schema": described}


def _needed(value: Any, place: str) -> Any:
    if value is None:
        raise InvalidRequest(f"`{place}` is missing; it is required", param=place)
    return value
