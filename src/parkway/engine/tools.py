"""Tools in a request: which functions there are, whether one must be called, and how the model writes a call."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from parkway.core.chat import ChatRequest, Message
from parkway.core.errors import InvalidRequest

MAX_FUNCTIONS = 128

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class Function:
    """A function that the model may call; `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallFormat:
    """How a model writes calls.

    Fields:
        begin, end: around each call; empty where a call is the whole answer.
        arguments: the key beside `name`.
    """

    begin: str
    end: str
    arguments: Literal["arguments", "parameters"]

    @property
    def whole_answer(self) -> bool:
        return not self.begin


HERMES = CallFormat("<tool_call>", "</tool_call>", "arguments")
"""Hermes, Qwen and many others. Source: the chat template of Qwen2.5."""

LLAMA = CallFormat("", "", "parameters")
"""Llama 3.1 and later. Source: the model card of Llama 3.1, "JSON based tool calling"."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """What a request says about tools.

    Fields:
        functions: those that may be called; never empty.
        required: the answer has to be a call.
        parallel: it may be several.
    """

    functions: tuple[Function, ...]
    required: bool
    parallel: bool

    @classmethod
    def of(cls, request: ChatRequest) -> "ToolUse | None":
        """The tools of a request; None where none may be used.

        Raises:
            InvalidRequest: a tool is malformed, or `tool_choice` names none of them.
        """
        functions = _functions(request.tools or [])
        choice = request.tool_choice or "auto"
        if choice not in ("none", "auto") and not functions:
            raise InvalidRequest("`tool_choice` asks for a call, but `tools` is empty", param="tool_choice")
        if not may_call(request):
            return None
        parallel = request.parallel_tool_calls is not False
        if isinstance(choice, dict):
            return cls((_named(choice, functions),), required=True, parallel=False)
        if choice not in ("auto", "required"):
            raise InvalidRequest(
                f"`tool_choice` is {choice[:40]!r}; expected none, auto, required or a function", param="tool_choice"
            )
        return cls(tuple(functions), required=choice == "required", parallel=parallel)

    def for_template(self) -> list[dict[str, Any]]:
        """The tools as chat templates expect them."""
        return [
            {
                "type": "function",
                "function": {"name": each.name, "description": each.description, "parameters": each.parameters},
            }
            for each in self.functions
        ]


def may_call(request: ChatRequest) -> bool:
    """Whether calls may be among the answer, of a request whose tools are in order."""
    return bool(request.tools) and request.tool_choice != "none"


def instructions(use: ToolUse) -> str:
    """What a model is told about tools whose chat template does not know any. Source: the template of Qwen2.5."""
    listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in use.for_template())
    return (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        f"You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{listed}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within "
        "<tool_call></tool_call> XML tags:\n"
        '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )


def without_tools(messages: list[dict[str, Any]], use: ToolUse | None) -> list[dict[str, Any]]:
    """`messages` for a template that knows no tools: what it would leave out stands in texts, as Hermes writes it."""
    plain = [_plain(message) for message in messages]
    if use is None:
        return plain
    if plain and plain[0]["role"] == "system":
        first = {**plain[0], "content": f"{plain[0]['content']}\n\n{instructions(use)}"}
        return [first, *plain[1:]]
    return [{"role": "system", "content": instructions(use)}, *plain]


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    content = message["content"]
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    calls = [
        f"{HERMES.begin}\n{json.dumps(call['function'], ensure_ascii=False)}\n{HERMES.end}"
        for call in message.get("tool_calls", [])
    ]
    return {**message, "content": "\n".join([*([content] if content else []), *calls])}


def for_template(message: Message, clean: Callable[[str], str]) -> dict[str, Any]:
    """A message as chat templates expect it: arguments of calls as objects, every text passed through `clean`.

    Raises:
        InvalidRequest: a call is malformed, or a tool's answer does not say to which call it belongs.
        UnsupportedField: the content is not text.
    """
    # Templates know the older name of the role that OpenAI now calls developer.
    if message.role == "tool" and not message.tool_call_id:
        raise InvalidRequest(
            "`messages`: a message of role tool needs the `tool_call_id` of its call", param="messages"
        )
    role = "system" if message.role == "developer" else "tool" if message.role == "function" else message.role
    seen: dict[str, Any] = {"role": role, "content": message.text()}
    if message.name is not None:
        seen["name"] = message.name
    if message.tool_call_id is not None:
        seen["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        seen["tool_calls"] = [_call_for_template(call) for call in message.tool_calls]
    return _cleaned(seen, clean)


def _functions(tools: list[dict[str, Any]]) -> list[Function]:
    if len(tools) > MAX_FUNCTIONS:
        raise InvalidRequest(f"`tools` has {len(tools)} functions; {MAX_FUNCTIONS} are the most", param="tools")
    functions = [_function(tool, f"tools.{index}") for index, tool in enumerate(tools)]
    names = [function.name for function in functions]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequest(f"`tools` has two functions called {twice!r}", param="tools")
    return functions


def _function(tool: dict[str, Any], place: str) -> Function:
    given = tool.get("function")
    if tool.get("type") != "function" or not isinstance(given, dict):
        raise InvalidRequest(f'`{place}`: expected {{"type": "function", "function": {{...}}}}', param=place)
    name, description = given.get("name"), given.get("description") or ""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"`{place}.function.name` is {str(name)[:80]!r}; expected 1 to 64 letters, digits, `_`, `-` or `.`",
            param=f"{place}.function.name",
        )
    if not isinstance(description, str):
        raise InvalidRequest(f"`{place}.function.description` is not text", param=f"{place}.function.description")
    parameters = given.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise InvalidRequest(
            f"`{place}.function.parameters` is not a JSON Schema; expected an object",
            param=f"{place}.function.parameters",
        )
    return Function(name, description, _object(parameters) if parameters else _NO_PARAMETERS)


def _object(schema: dict[str, Any]) -> dict[str, Any]:
    """Arguments are always an object, even where a schema forgets to say so."""
    return schema if "type" in schema or "$ref" in schema else {"type": "object", **schema}


def _named(choice: dict[str, Any], functions: list[Function]) -> Function:
    given = choice.get("function")
    name = given.get("name") if isinstance(given, dict) else None
    found = next((function for function in functions if function.name == name), None)
    if choice.get("type") != "function" or found is None:
        names = ", ".join(function.name for function in functions)
        raise InvalidRequest(
            f"`tool_choice` names {str(name)[:80]!r}, which is none of the functions in `tools`: {names}",
            param="tool_choice",
        )
    return found


def _call_for_template(call: dict[str, Any]) -> dict[str, Any]:
    given = call.get("function")
    name = given.get("name") if isinstance(given, dict) else None
    arguments = given.get("arguments") if isinstance(given, dict) else None
    if not isinstance(name, str):
        raise InvalidRequest("`messages`: a tool call has no function name", param="messages")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as error:
            raise InvalidRequest(
                f"`messages`: the arguments of a call of {name[:64]!r} are not JSON: {error}", param="messages"
            ) from error
    return {
        "id": call.get("id"),
        "type": "function",
        "function": {"name": name, "arguments": {} if arguments is None else arguments},
    }


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    """Every text inside of `value` cleaned."""
    match value:
        case str():
            return clean(value)
        case list():
            return [_cleaned(each, clean) for each in value]
        case dict():
            return {clean(key): _cleaned(each, clean) for key, each in value.items()}
        case _:
            return value
